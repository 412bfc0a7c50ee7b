"""Small pictures of a few images, for pages that people look at."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image

from cvcoteach._validation import IntArray
from cvcoteach.data.decode import decode_files
from cvcoteach.data.images import load_images
from cvcoteach.data.sources import Source


def thumbnails(
    source: Source, rows: IntArray, size: int = 96, kind: Literal["PNG", "JPEG"] = "PNG"
) -> list[bytes | None]:
    """Return PNG or JPEG bytes (size×size, RGB) of the images `rows` of a source; None where one cannot be read."""
    if not len(rows):
        return []
    part = source.subset(rows)
    if part.files is None:
        images = load_images(part, size, channels=3)
        pixels, readable = images.pixels, images.readable
    else:
        pixels, records, _, _ = decode_files(part.files, size, 3, only_grey=False)
        readable = records["readable"]
    return [_encoded(picture, kind) if good else None for picture, good in zip(pixels, readable, strict=True)]


def _encoded(picture: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return file.getvalue()
