"""The preset `auto`: chooses features, fine-tuning or a small network, and estimates how long it takes."""

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
"""Pixels; in images up to this size, a network for photographs sees no more than the small one."""
FEW_IMAGES = 200
"""With fewer images, a network trained from scratch learns too little; heads on features need less."""
ENOUGH_TO_FINETUNE = 5_000
"""With fewer images, a fine-tuned network memorises wrong labels sooner than it adapts."""
BACKBONES = {
    "cuda": "torchvision:convnext_tiny",
    "mps": "torchvision:resnet50",
    "cpu": "torchvision:mobilenet_v3_large",
}
"""The network whose features of 100,000 images each kind of device computes in minutes."""

_MEASURED_SECONDS = 2.0


@dataclass(frozen=True, eq=False)
class Choice:
    """A decision of the preset `auto`."""

    backbone: Backbone | None
    """None: the small network, from scratch."""
    finetune: bool
    """Whether to fine-tune the backbone in the folds; otherwise heads are trained on its features."""
    reason: str
    """What was chosen and why, as part of a sentence."""


def choose(
    n_images: int,
    side: int,
    device: torch.device,
    *,
    size: int | None = None,
    load: Callable[..., Backbone] = load_backbone,
) -> Choice:
    """Choose between heads on features, fine-tuning, and the small network.

    Args:
        n_images: Images in the dataset.
        side: Their natural height and width, pixels.
        device: Where to compute.
        size: The image size that the user asked for, pixels; None: the backbone's own.
        load: As `load_backbone`; called before a backbone is chosen, so that an unavailable one is not.
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
    why = "there is no GPU" if device.type == "cpu" else f"{n_images:,} images of {side} pixels gain little from more"
    return Choice(backbone, False, f"heads on frozen features of {name}, since {why}")


def seconds_to_extract(
    backbone: Backbone, pixels: npt.NDArray[np.uint8], device: torch.device, at_most: float = _MEASURED_SECONDS
) -> float:
    """Estimate how long the features of all images will take, from the first batches (about two seconds)."""
    extractor = Extractor(backbone, pixels, device)
    list(extractor.features(0, min(8, len(pixels))))  # the first call warms up
    began, done = time.perf_counter(), 0
    for features in extractor.features(0, len(pixels)):
        done += len(features)
        if time.perf_counter() - began > at_most:
            break
    return (time.perf_counter() - began) / max(done, 1) * len(pixels)
