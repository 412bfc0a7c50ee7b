"""How many levels of gray images use: photographs a hundred and more, drawings and masks a handful."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cvcoteach.data.decode import FORMATS, MAX_PIXELS, pixel_limit
from cvcoteach.data.parts import opened
from cvcoteach.data.sources import Source, spread

_SIDE = 64  # px; a JPEG is decoded no larger than it must be


def brightness_levels(source: Source, sample: int = 16) -> int:
    """Return how many levels of gray an image uses: the median of up to `sample` images, 256 if none can be read."""
    rows, counts = spread(len(source), sample).tolist(), []
    if source.array is not None:
        return int(np.median([len(np.unique(_gray(source.array[row]))) for row in rows]))
    assert source.files is not None
    with warnings.catch_warnings(), pixel_limit(MAX_PIXELS):
        warnings.simplefilter("ignore")
        for row in rows:
            try:
                with opened(source.files[row]) as file, Image.open(file, formats=FORMATS) as image:
                    image.draft("L", (_SIDE, _SIDE))
                    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
                    counts.append(len(np.unique(np.asarray(image if deep else image.convert("L")))))
            except Exception:  # a broken file makes a decoder raise anything; loading says what
                continue
    return int(np.median(counts)) if counts else 256


def _gray(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (H, W) of an image (H, W) or (H, W, C): the mean of its colours."""
    return image if image.ndim == 2 else image[..., :3].mean(axis=2)
