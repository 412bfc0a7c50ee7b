"""Near copies of images, such as frames of a video: how many there are, and which column of a table tells them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._validation import IntArray
from cvcoteach.data.halves import singles
from cvcoteach.data.near_copies import LEAST_FEATURES, LEAST_IMAGES
from cvcoteach.data.neighbors import distances, neighbors, principal_axes
from cvcoteach.data.sources import spread

_LOOKED_AT = 3000
"""Images compared with each other."""
_SIDE = 8
"""Pixels a side of the small gray images that are compared."""
_FOR_AXES, _AXES = 300, 32
"""Images that tell the principal axes, and these."""
_NEAR = 0.15
"""Of the median distance between two images, the distance below which one is a near copy of the other.

Frames of a burst lie below it (CIFAR images moved by a pixel: 0.01 to 0.15); of images taken one by one not one in a
thousand does (CIFAR-10, handwritten digits).
"""
_MANY = 0.05
"""Share of images with a near copy from which folds should know about it."""
_SAME_GROUP, _BY_CHANCE = 0.8, 0.2
"""Share of near copies that agree in a column of groups at least, and of any two images at most."""


class Twins(NamedTuple):
    """Near copies among the images that were looked at."""

    pairs: IntArray
    """(m, 2) positions of an image and its nearest one, where that is a near copy."""
    n_looked_at: int
    """Number of images compared with each other."""

    @property
    def share(self) -> float:
        """Share of these that have a near copy among them."""
        return len(self.pairs) / max(1, self.n_looked_at)

    @property
    def many(self) -> bool:
        """Whether there are enough to spoil the folds."""
        return self.share >= _MANY


def near_twins(rows: npt.NDArray[Any], which: IntArray | None, first_copy: IntArray) -> Twins:
    """Return near copies among up to 3,000 images; exact ones do not count.

    Args:
        rows: (m, H, W, C) pixels or (m, d) features, in memory or memory-mapped.
        which: (n,) the rows that are images of the run, ascending; None: all.
        first_copy: (n,) the first image with the same content, itself where there is none.
    """
    everyone = np.flatnonzero(first_copy == np.arange(len(first_copy)))
    # whole stretches: frames of a video often follow each other
    looked_at = everyone[_stretches(len(everyone), _LOOKED_AT)]
    if len(looked_at) < LEAST_IMAGES or (rows.ndim == 2 and rows.shape[1] < LEAST_FEATURES):
        return Twins(np.empty((0, 2), np.int64), len(looked_at))
    x = _small(rows[looked_at if which is None else which[looked_at]])
    x = (x - x.mean(axis=0)).astype(np.float32, copy=False)  # near copies are far from the last digits
    places = np.arange(len(x))
    usual = float(np.median(distances(x, places, np.roll(places, len(x) // 2))))
    # along some axes two images are nearer than they are, so that all near ones are among those that are near there
    axes, _ = principal_axes(x[spread(len(x), _FOR_AXES)], _AXES)
    one, other = neighbors(x @ axes, _NEAR * usual)
    distance = np.tile(distances(x, one, other), 2)
    one, other = np.concatenate([one, other]), np.concatenate([other, one])
    order = np.lexsort((distance, one))
    order = order[distance[order] < _NEAR * usual]
    near, first = np.unique(one[order], return_index=True)
    return Twins(np.stack([looked_at[near], looked_at[other[order][first]]], axis=1), len(x))


def group_like(columns: pd.DataFrame, twins: Twins) -> str | None:
    """Return the column in which near copies agree, but other images do not; None where there is none.

    columns: (n) rows of the images.
    """
    best, best_share = None, _SAME_GROUP
    for name in columns.columns:
        codes = pd.factorize(columns[name])[0]
        apart = codes[twins.pairs[:, 0]] == codes[np.roll(twins.pairs[:, 1], len(twins.pairs) // 2)]
        share = float((codes[twins.pairs[:, 0]] == codes[twins.pairs[:, 1]]).mean())
        if share >= best_share and apart.mean() <= _BY_CHANCE:
            best, best_share = str(name), share
    return best


def _stretches(n: int, most: int, length: int = 50) -> IntArray:
    """Return at most `most` of 0..n-1: all, or stretches of neighbors, evenly spread."""
    if n <= most:
        return np.arange(n)
    starts = spread(n - length, most // length)
    return np.unique((starts[:, None] + np.arange(length)).ravel())


def _small(rows: npt.NDArray[Any]) -> npt.NDArray[np.floating]:
    """Return features as they are, and images as gray ones of 8×8 pixels, (m, d)."""
    if rows.ndim == 2:
        return singles(rows) if rows.dtype == np.float16 else rows.astype(np.promote_types(rows.dtype, np.float32))
    gray = rows.reshape(*rows.shape[:3], -1).mean(axis=-1)
    edges = np.linspace(0, gray.shape[1], min(_SIDE, gray.shape[1]) + 1).astype(np.int64)[:-1]
    across = np.linspace(0, gray.shape[2], min(_SIDE, gray.shape[2]) + 1).astype(np.int64)[:-1]
    sums = np.add.reduceat(np.add.reduceat(gray, edges, axis=1), across, axis=2)
    heights, widths = np.diff([*edges, gray.shape[1]]), np.diff([*across, gray.shape[2]])
    return (sums / (heights[:, None] * widths[None])).reshape(len(rows), -1)
