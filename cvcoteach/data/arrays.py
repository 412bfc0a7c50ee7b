"""Images in memory, of any kind of number -> small squares of uint8."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cvcoteach.data.decode import as_pixels, squash
from cvcoteach.data.levels import Levels, Pixels, array_levels, bytes_of

_CHUNK_BYTES = 32 * 2**20


class DecodedArray(NamedTuple):
    """An array of images, decoded."""

    pixels: Pixels
    """(n, size, size, C) uint8, C = 1 or 3; the array itself where it fits already."""
    content: str
    """Hex digest of the array."""
    levels: Levels
    """Which values became black and white."""


def decode_array(
    array: npt.NDArray[Any], size: int, channels: int | None = None, levels: Levels | None = None
) -> DecodedArray:
    """Return images (n, H, W) or (n, H, W, 1|3|4) of numbers or bool as squares.

    Args:
        array: the images.
        size: pixels a side.
        channels: 1 or 3; None takes 1 if all images are grey, else 3.
        levels: black and white; None: by the range of the array.
    """
    digest = hashlib.blake2b(f"{array.shape} {array.dtype} ".encode(), digest_size=16)
    step = max(1, _CHUNK_BYTES // array[0].nbytes)
    parts = [slice(start, start + step) for start in range(0, len(array), step)]
    grey = True
    for part in parts:
        digest.update(np.ascontiguousarray(array[part]).data)
        grey = grey and bool(array.ndim == 3 or (array[part][..., :3] == array[part][..., :1]).all())
    levels = array_levels(array) if levels is None else levels
    channels = channels or (1 if grey else 3)
    if array.dtype == np.uint8 and array.shape[1:] == (size, size, channels) and levels.of("bytes") is None:
        return DecodedArray(array, digest.hexdigest(), levels)
    pixels = np.empty((len(array), size, size, channels), np.uint8)
    for part in parts:
        pixels[part] = _squares(array[part], size, channels, levels)
    return DecodedArray(pixels, digest.hexdigest(), levels)


def _squares(images: npt.NDArray[Any], size: int, channels: int, levels: Levels) -> Pixels:
    values = bytes_of(images if images.ndim == 4 else images[..., None], levels)
    if values.shape[1:3] == (size, size) and values.shape[-1] <= channels:
        return np.broadcast_to(values, (*values.shape[:3], channels))
    squares = np.empty((len(values), size, size, channels), np.uint8)
    for i, image in enumerate(values):
        picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
        squares[i] = as_pixels(squash(picture, size), channels)
    return squares
