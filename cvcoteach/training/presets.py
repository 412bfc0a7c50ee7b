"""`--preset auto`: what to do with these images on this machine, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import Backbone, load_backbone
from cvcoteach.training.extraction import Extractor

SMALL_IMAGE = 24
"""Pixels: of images up to this side a network for photographs sees nothing that the small one does not."""
FEW_IMAGES = 200
"""Fewer give a network trained from scratch nothing to learn from; features need less."""
ENOUGH_TO_FINETUNE = 5_000
"""Images; with fewer, a fine-tuned network learns wrong labels by heart sooner than it adapts."""
BACKBONES = {
    "cuda": "torchvision:convnext_tiny",
    "mps": "torchvision:resnet50",
    "cpu": "torchvision:mobilenet_v3_large",
}
"""What each kind of device computes for a hundred thousand images in minutes."""

_MEASURED_SECONDS = 2.0


@dataclass(frozen=True, eq=False)
class Choice:
    """What `--preset auto` decided."""

    backbone: Backbone | None
    """None: the small network, from scratch."""
    finetune: bool
    reason: str
    """One sentence."""


def choose(
    n_images: int,
    side: int,
    device: torch.device,
    *,
    size: int | None = None,
    load: Callable[..., Backbone] = load_backbone,
) -> Choice:
    """Features and heads, fine-tuning, or the small network.

    side: natural size of the images, pixels. size: that the user wants, if any. load: as `load_backbone`; called where
    a backbone is wanted, so that what cannot be had is not chosen.
    """
    if side <= SMALL_IMAGE and n_images >= FEW_IMAGES:
        return Choice(None, False, f"a small network from scratch, since the images have {side} pixels a side")
    name = BACKBONES.get(device.type, BACKBONES["cpu"])
    try:
        backbone = load(name, size=size)
    except InputError as error:
        return Choice(None, False, f"a small network from scratch, since {str(error).rstrip('.')}")
    if device.type == "cuda" and n_images >= ENOUGH_TO_FINETUNE and side > 2 * SMALL_IMAGE:
        why = f"there is a GPU, and {n_images:,} images of {side} pixels are enough"
        return Choice(backbone, True, f"fine-tuning {name}, since {why}")
    why = "there is no GPU" if device.type == "cpu" else f"{n_images:,} images of {side} pixels gain little by more"
    return Choice(backbone, False, f"heads on frozen features of {name}, since {why}")


def seconds_to_extract(
    backbone: Backbone, pixels: npt.NDArray[np.uint8], device: torch.device, at_most: float = _MEASURED_SECONDS
) -> float:
    """How long the features of all images will take, from the first batches (about two seconds of them)."""
    extractor = Extractor(backbone, pixels, device)
    list(extractor.features(0, min(8, len(pixels))))  # the first call prepares the network
    began, done = time.perf_counter(), 0
    for features in extractor.features(0, len(pixels)):
        done += len(features)
        if time.perf_counter() - began > at_most:
            break
    return (time.perf_counter() - began) / max(done, 1) * len(pixels)
