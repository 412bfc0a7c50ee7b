"""Backbones for tests, small enough to compute by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cvcoteach.training.backbones import Backbone, weights_digest
from cvcoteach.training.pretrained import Preprocessing


class Colours(nn.Module):
    """A map of the three colours, each at half the size, times a weight."""

    preprocessing = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 3, 1, 1), 2.0))
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self.seen += len(images)
        return nn.functional.avg_pool2d(images, 2) * self.weight


class Stopping(Colours):
    """Is killed after some images."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def forward(self, images: Tensor) -> Tensor:
        if self.seen >= self.after:
            raise KeyboardInterrupt
        return super().forward(images)


def colours() -> nn.Module:
    """A fresh `Colours`."""
    return Colours()


class Counted:
    """Builds `Colours`, and counts how often."""

    def __init__(self) -> None:
        self.loads = 0

    def __call__(self) -> nn.Module:
        self.loads += 1
        return Colours()


counted = Counted()


def from_weights(weights: str | None = None) -> nn.Module:
    """`Colours` that loads its weights itself."""
    network = Colours()
    if weights:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return network


def no_network() -> int:
    """Nothing that could be trained."""
    return 3


def backbone_of(network: nn.Module, size: int = 8) -> Backbone:
    """The network as a backbone for images as they are."""
    zero, one = (0.0,) * 3, (1.0,) * 3
    return Backbone(
        name="fake",
        network=network.eval(),
        digest=weights_digest(network),
        size=size,
        mean=zero,
        std=one,
        interpolation="bilinear",
        trainable=True,
    )


def images(n: int = 300, size: int = 8, channels: int = 3) -> np.ndarray:
    """Random images."""
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)
