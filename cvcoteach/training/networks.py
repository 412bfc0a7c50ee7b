"""Networks of this package: a small one for short trainings on a CPU, and the CIFAR ResNet of He et al."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = 256
"""Hidden units of a head on features."""


class SmallNet(nn.Module):
    """A narrow residual network for images from 8 pixels up, made for short trainings on a CPU.

    A 2×2 stem without padding and pooling before each normalisation, as in Jordan, "94% on CIFAR-10 in 3.29 seconds"
    (2024), leave 31, 15, 7 and 3 pixels of 32. The stem need not learn edges and colours first: it starts with them.
    """

    def __init__(self, n_classes: int, channels: int, widths: tuple[int, int, int] = (48, 96, 192)) -> None:
        super().__init__()
        a, b, c = widths
        stem = edges_and_colours(channels)
        first = nn.Conv2d(channels, len(stem), 2, bias=False)
        first.weight.data.copy_(stem)
        self.layers = nn.Sequential(
            nn.Sequential(first, nn.BatchNorm2d(len(stem)), nn.ReLU(inplace=True)),
            _Convolution(len(stem), a, pool=True),
            _Convolution(a, b, pool=True),
            _Residual(_Convolution(b, b)),
            _Convolution(b, c, pool=True),
            _Residual(_Convolution(c, c)),
        )
        self.head = nn.Linear(c, n_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, K) of images (b, C, H, W)."""
        features: Tensor = self.layers(images)
        logits: Tensor = self.head(features.amax(dim=(2, 3)))
        return logits / 4  # maxima are large: unscaled, the first steps would overshoot


def wide_net(n_classes: int, channels: int) -> SmallNet:
    """Return a `SmallNet` of twice its width: four times the arithmetic, of which a GPU has plenty."""
    return SmallNet(n_classes, channels, (96, 192, 384))


def edges_and_colours(channels: int) -> Tensor:
    """Return the Haar basis of 2×2 patches in opponent colours and its negative, (8·channels, channels, 2, 2), norm 1.

    They are close to the principal components of patches of photographs; with a normalisation after them, close to
    a whitening.
    """
    places = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).view(4, 2, 2) / 2
    colours = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]]) if channels == 3 else torch.eye(channels)
    colours = colours / colours.norm(dim=1, keepdim=True)
    basis = torch.einsum("kc,pij->pkcij", colours, places).reshape(4 * channels, channels, 2, 2)
    return torch.cat([basis, -basis])


class _Convolution(nn.Module):
    """3×3 convolution, pooling by two while enough pixels are left, normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.pool and min(x.shape[2:]) >= 4:
            x = functional.max_pool2d(x, 2)
        return functional.relu(self.norm(x), inplace=True)


class _Residual(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.layer(x))


class CifarResNet(nn.Module):
    """The residual network for CIFAR of He et al. (CVPR 2016, section 4.2): 6·n + 2 layers, 32 for n = 5.

    Shortcuts have no parameters (option A): every second pixel, missing channels filled with zeros.
    """

    def __init__(self, n_classes: int, channels: int, n: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        blocks: list[nn.Module] = []
        width = 16
        for stage, wider in enumerate((16, 32, 64)):
            for number in range(n):
                blocks.append(_BasicBlock(width, wider, stride=2 if stage and number == 0 else 1))
                width = wider
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, n_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, K) of images (b, C, H, W)."""
        features: Tensor = self.blocks(self.stem(images))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class _BasicBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.stride, self.wider = stride, n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride > 1:
            shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.wider))
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + shortcut)


def feature_head(d: int, n_classes: int) -> nn.Sequential:
    """Return a head with one hidden layer: features (b, d) -> logits (b, K)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(d, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, n_classes))


class GreyAsColour(nn.Module):
    """A network for colour images that is given grey ones: the channel is repeated."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Apply the network to images (b, 1 or 3, H, W)."""
        return self.network(images.expand(-1, 3, -1, -1))
