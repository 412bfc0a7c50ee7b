"""Random shifts and mirror images, for all images of a batch at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Motion(NamedTuple):
    """The shifts and reflections of a batch of images."""

    down: Tensor
    """(b,) pixels; negative is up."""
    right: Tensor
    """(b,) pixels; negative is left."""
    mirrored: Tensor
    """(b,) whether left and right are swapped."""

    def part(self, start: int, stop: int) -> Motion:
        """Return the motion of the images start..stop-1."""
        return Motion(*(values[start:stop] for values in self))


def draw_motion(n: int, shift: int, flip: bool, seed: int) -> Motion:
    """Draw the motion of n images: up to `shift` pixels each way, and mirrored half of the time if `flip`.

    The numbers are drawn on the CPU, so that every device sees the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    by = torch.randint(-shift, shift + 1, (2, n), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5 if flip else torch.zeros(n, dtype=torch.bool)
    return Motion(by[0], by[1], mirrored)


def move(pixels: Tensor, rows: Tensor, motion: Motion) -> Tensor:
    """Gather images and move them in the same step; what comes in at an edge is the image reflected.

    Args:
        pixels: (n, H, W, C).
        rows: (b,) the images to gather.
        motion: Of these images; a shift beyond the image is cut to its size.

    Returns:
        (b, H, W, C).
    """
    return taken(pixels, rows, *sources(motion, *pixels.shape[1:3]))


def sources(motion: Motion, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return which lines (…, H) and columns (…, W) of images of motion (…,) each line and column comes from."""
    device = motion.down.device
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    x = torch.where(motion.mirrored[..., None], width - 1 - x, x)
    y = _reflected(y - motion.down.clamp(1 - height, height - 1)[..., None], height)
    return y, _reflected(x - motion.right.clamp(1 - width, width - 1)[..., None], width)


def taken(pixels: Tensor, rows: Tensor, lines: Tensor, columns: Tensor) -> Tensor:
    """Return some lines (b, h) and columns (b, w) of images `rows` (b,) of pixels (n, H, W, C), (b, h, w, C)."""
    n, height, width, channels = pixels.shape
    at = torch.add(lines, rows[:, None], alpha=height)
    flat = torch.add(columns[:, None, :], at[:, :, None], alpha=width)
    pixel = pixels.view(n * height * width, channels).index_select(0, flat.view(-1))
    return pixel.view(*flat.shape, channels)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Mirror indices -(size-1)..2(size-1) at the edge pixel, which is not repeated (torch's "reflect")."""
    return size - 1 - (size - 1 - index.abs()).abs()
