"""From bytes to network inputs: a mean and a standard deviation per channel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cvcoteach._validation import IntArray

_STATISTICS_IMAGES = 4096
_EXACT_SUMS = 256
"""Squares of bytes whose sum float32 holds exactly; matrix products add up thirty times as fast as float64 does."""
_VALUES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation that normalise pixel values, as fractions 0..1: (value - mean) / std."""

    mean: tuple[float, ...]
    """(C,) per channel, in [0, 1]."""
    std: tuple[float, ...]
    """(C,) per channel, above 0."""


def normalise(images: Tensor, scaling: Scaling, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Turn uint8 images (b, H, W, C) into float32 (b, C, H, W) as (x / 255 - mean) / std.

    One channel and a mean of three gives three channels: grey images for a network that expects colour.
    """
    return scaled_by(images, factor_and_offset(scaling, images.device), memory_format)


def scaled_by(images: Tensor, by: tuple[Tensor, Tensor], memory_format: torch.memory_format) -> Tensor:
    """Do what `normalise` does, with the numbers of `factor_and_offset`."""
    floats = torch.addcmul(by[1], images.to(torch.float32), by[0])
    return floats.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)


@lru_cache(16)  # a GPU would wait for these few numbers in every batch
def factor_and_offset(scaling: Scaling, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what a byte is multiplied by, and what is added then: (C,) each, on the device."""
    mean, std = torch.tensor(scaling.mean), torch.tensor(scaling.std)
    return (1 / (255 * std)).to(device), (-mean / std).to(device)


def scaling_of(pixels: npt.NDArray[np.uint8], rows: IntArray) -> Scaling:
    """Return the mean and standard deviation per channel over some images (4,096 of them at most).

    Args:
        pixels: (n, H, W, C) uint8.
        rows: The images to measure, at least one.
    """
    taken = pixels[np.sort(rows[:: -(-len(rows) // _STATISTICS_IMAGES)])]
    images = taken.reshape(len(taken), -1)
    sums, squares = np.zeros((2, images.shape[1]))
    at_once = min(_EXACT_SUMS, max(1, _VALUES_AT_ONCE // images.shape[1]))
    for start in range(0, len(images), at_once):
        values = images[start : start + at_once].astype(np.float32)
        ones = np.ones(len(values), np.float32)
        sums += ones @ values
        squares += ones @ np.square(values, out=values)
    channels = taken.shape[-1]
    n = images.size // channels
    mean, square = (each.reshape(-1, channels).sum(axis=0) / n for each in (sums, squares))
    std = np.maximum(np.sqrt(np.maximum(square - mean**2, 0)) / 255, 1 / 255)  # a single colour is no error
    return Scaling(tuple((mean / 255).tolist()), tuple(std.tolist()))
