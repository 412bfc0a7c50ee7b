"""Images that show the same picture as another: re-encoded, scaled, a little cropped or moved, or frames of a burst.

Both are compared as pictures of 16×16 pixels from which brightness and contrast are taken out, or as features. What
counts as near is learned from the images: so near that chance would give hardly any image such a neighbor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cvcoteach._memory import scratch
from cvcoteach._validation import BoolArray, FloatArray, IntArray
from cvcoteach.data.halves import singles
from cvcoteach.data.neighbors import distances, neighbors, principal_axes
from cvcoteach.data.sources.source import spread

LEAST_IMAGES, LEAST_FEATURES = 100, 16
"""With fewer images one is near by chance; in few dimensions the nearest of many always is."""

_SIDE = 16
"""Pixels a side of the pictures that are compared."""
_READ_SIDE = 64
"""Pixels a side that are read of larger images, at least."""
_FLAT = 8.0
"""Contrast in gray levels (root mean square) below which a picture is too flat to tell from others."""
_FARTHEST_PICTURES, _FARTHEST_FEATURES = 0.3, 0.4
"""Largest distance of near copies, of pictures of length 1: 0.3 is a correlation of .955.

Of 20,000 images of CIFAR-10 the 50 nearest pairs, up to 0.3, are of one class each, and but for one or two the same
picture; so are the 12 pairs of features up to 0.45.
"""
_BY_CHANCE = 1e-3
"""Share of images for which chance may find a near copy."""
_BEYOND_CHANCE = 2
"""Times as many as that are found where there is more than chance; of fewer those that are surely no chance."""
_SURELY = 0.1
"""Images of all for which chance may find a near copy then."""
_TAILS = ((0.01, 0.1), (0.1, 0.5))
"""Quantiles of all distances from which the density of near neighbors is extrapolated; bursts may fill the first."""
_SAMPLE, _FOR_AXES = 1500, 400
"""Images among which all distances are looked at, and those that tell the principal axes."""
_AXES = 24
"""Principal axes in which neighbors are searched, up to the part of the distance that these hold of any two images.

Most of a small change is in the details, which these axes lack: among features of CIFAR-10, of images that were moved,
made brighter, saved as JPEG or scaled, and of some with noise added, 8,459 pairs are near copies; all lie within.
"""
_MORE_AXES = 31
"""Axes along which the found ones are compared again, before they are as a whole; products of 32 columns are fast."""
_LARGEST_GROUP = 20
"""A group holds at most the images divided by this."""
_STRICTER = 4
"""Times that the distance is halved for a group that is too large."""
_CHUNK_BYTES = 4 * 2**20
_EXACT_BYTES = 1 << 26
"""Points of found images that are kept as float32; of more half of the memory will do for a distance."""
_FAR = 1e4
"""Times the square of the usual contrast of features from which that of their center drowns it in float32."""


def near_copies(rows: npt.NDArray[Any], which: IntArray | None, first_copy: IntArray) -> IntArray:
    """Return the position (n,) of the first image that shows the same picture, which is its own where there is none.

    Copies of copies are copies, unless more than a twentieth of all images would be copies of each other: such a group
    falls into those that are nearer to each other, or into single images.

    Args:
        rows: (m, H, W, C) pixels or (m, d) features, in memory or memory-mapped.
        which: (n,) the rows that are images of the run, ascending; None: all.
        first_copy: (n,) the first image with the same content, itself where there is none.
    """
    everyone = np.flatnonzero(first_copy == np.arange(len(first_copy)))
    if len(everyone) < LEAST_IMAGES or (rows.ndim == 2 and rows.shape[1] < LEAST_FEATURES):
        return first_copy
    view = _View(rows, everyone if which is None else which[everyone])
    pairs = _near_pairs(view)
    nearest = np.arange(len(first_copy))
    nearest[everyone] = everyone[_groups(pairs, len(everyone))]
    return nearest[first_copy]


class _Pairs(NamedTuple):
    """Pairs of images that are near each other."""

    one: IntArray
    """(m,)"""
    other: IntArray
    """(m,)"""
    distance: FloatArray
    """(m,)"""

    def where(self, mask: BoolArray) -> _Pairs:
        return _Pairs(self.one[mask], self.other[mask], self.distance[mask])


class _View:
    """The images as points (n, d) of length 1, made when they are asked for."""

    def __init__(self, rows: npt.NDArray[Any], which: IntArray) -> None:
        self.rows, self.which = rows, which
        self.chunk = max(1, _CHUNK_BYTES // max(1, rows[:1].nbytes))
        self.center: npt.NDArray[np.float32] | float = 0.0
        self.least = _FLAT
        self.far = True
        if rows.ndim == 2:
            some = singles(rows[which[spread(len(which), _SAMPLE)]])
            self.center = center = some.mean(axis=0)
            usual = float(np.median(np.sqrt(((some - center) ** 2).mean(axis=1))))
            self.least = 1e-3 * usual
            self.far = not float((center**2).mean()) < _FAR * usual**2

    def __len__(self) -> int:
        return len(self.which)

    def points(self, of: IntArray) -> npt.NDArray[np.float32]:
        """Return the images `of` (m,) as points, (m, d); of a flat one not a number."""
        rows = self.rows[self.which[of]]
        values = singles(rows) if rows.ndim == 2 else _pictures(rows)
        values -= self.center
        length = np.sqrt(np.einsum("ij,ij->i", values, values))
        length[length <= self.least * math.sqrt(values.shape[1])] = np.nan
        values /= length[:, None]
        return values

    def along(self, axes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return all images as points along some axes (d, a), (n, a); of a flat one not a number."""
        result = np.empty((len(self), axes.shape[1]), np.float32)
        for start in range(0, len(self), self.chunk):
            part = np.arange(start, min(start + self.chunk, len(self)))
            result[part] = self._part_along(part, axes)
        return result

    def _part_along(self, part: IntArray, axes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return a stretch of images along some axes; of features without a copy of them less their center."""
        if self.far:
            return self.points(part) @ axes
        which, center = self.which[part], np.asarray(self.center)
        stretch = which[-1] - which[0] == len(part) - 1
        rows = singles(self.rows[which[0] : which[-1] + 1] if stretch else self.rows[which])
        seen = rows @ np.column_stack([axes, center])
        squared = np.matmul(rows[:, None], rows[:, :, None])[:, 0, 0] - 2 * seen[:, -1] + float(center @ center)
        length = np.sqrt(np.maximum(squared, 0))
        length[length <= self.least * math.sqrt(rows.shape[1])] = np.nan
        return (seen[:, :-1] - center @ axes) / length[:, None]

    def pairs(self, one: IntArray, other: IntArray) -> _Pairs:
        """Return pairs of images (m,), (m,) with how far they are from each other."""
        images, place = np.unique(np.concatenate([one, other]), return_inverse=True)
        points = np.empty((0, 0), np.float32)
        for start in range(0, len(images), self.chunk):
            part = self.points(images[start : start + self.chunk])
            if not start:
                many = part[:1].nbytes * len(images) > _EXACT_BYTES
                points = scratch((len(images), part.shape[1]), np.float16 if many else np.float32)
            points[start : start + len(part)] = part
        return _Pairs(one, other, distances(points, place[: len(one)], place[len(one) :]))


def _pictures(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return images (m, H, W, C) as small ones, each channel less its mean, (m, d)."""
    step = max(1, min(rows.shape[1:3]) // _READ_SIDE)
    small = rows[:, ::step, ::step].astype(np.float32)
    m, height, width, channels = small.shape
    down, across = _averaging(height), _averaging(width)
    small = np.matmul(down, small.reshape(m, height, width * channels))
    small = np.matmul(across, small.reshape(m, len(down), width, channels))
    small = small.reshape(m, -1, channels)
    small -= small.mean(axis=1, keepdims=True)
    return small.reshape(m, -1)


def _averaging(n: int) -> npt.NDArray[np.float32]:
    """Return the matrix (s, n) that averages n pixels to s <= 16, each by the part of it that falls in."""
    s = min(_SIDE, n)
    edges = np.arange(s + 1) * (n / s)
    covered = np.minimum(edges[1:, None], np.arange(1, n + 1)) - np.maximum(edges[:-1, None], np.arange(n))
    return np.asarray(np.maximum(covered, 0) * (s / n), np.float32)


def _near_pairs(view: _View) -> _Pairs:
    """Return the pairs of images that are nearer to each other than chance explains."""
    sample = view.points(spread(len(view), _SAMPLE))
    sample = sample[~np.isnan(sample[:, 0])]
    none = _Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    if len(sample) < LEAST_IMAGES // 2:
        return none
    farthest = _FARTHEST_FEATURES if view.rows.ndim == 2 else _FARTHEST_PICTURES
    by_chance = _limits_by_chance(sample, len(view), (_BY_CHANCE, _SURELY / len(view)))
    limit, strict = (min(farthest, each) for each in by_chance)
    if not limit > 0:
        return none
    axes, held = principal_axes(sample[spread(len(sample), _FOR_AXES)], _MORE_AXES)
    if not len(held):
        return none
    seen = view.along(axes)
    told = np.flatnonzero(~np.isnan(seen[:, 0]))
    seen = seen[told]
    one, other = neighbors(seen[:, :_AXES].copy(), float(held[:_AXES][-1]) * limit)
    closer = distances(seen, one, other) < float(held[-1]) * limit
    one, other = one[closer], other[closer]
    near = view.pairs(told[one], told[other])
    near = near.where(near.distance < limit)
    n_found = len(np.union1d(near.one, near.other))
    return near if n_found > _BEYOND_CHANCE * _BY_CHANCE * len(view) else near.where(near.distance < strict)


def _limits_by_chance(points: npt.NDArray[np.float32], n: int, shares: Sequence[float]) -> list[float]:
    """Return the distances within which chance gives these shares of n images a neighbor.

    The number of neighbors grows with a power of the distance, which the quantiles of all distances tell.

    Args:
        points: (m, d) some of the images.
        n: Number of all.
        shares: In (0, 1).
    """
    products = (points @ points.T)[np.tri(len(points), k=-1, dtype=np.bool_)]
    tails = sorted({quantile for tail in _TAILS for quantile in tail})
    at = [round(quantile * (len(products) - 1)) for quantile in tails]
    products = np.partition(-products, at)[at]
    of = dict(zip(tails, np.sqrt(np.maximum(2 + 2 * products, 0)).tolist(), strict=True))
    limits = [[0.0] for _ in shares]
    for low, high in _TAILS:
        near, far = of[low], of[high]
        if 0 < near < far:
            power = math.log(high / low) / math.log(far / near)
            for share, found in zip(shares, limits, strict=True):
                found.append(near * (share / (low * n)) ** (1 / power))
    return [max(found) for found in limits]


def _groups(pairs: _Pairs, n: int) -> IntArray:
    """Return the first image of the group of each, (n,); groups hold a twentieth of all at most."""
    first, largest = _first_connected(pairs, n), max(2, n // _LARGEST_GROUP)
    for _ in range(_STRICTER):
        too_large = np.bincount(first, minlength=n)[first] > largest
        if not too_large.any():
            return first
        inside = too_large[pairs.one]
        pairs = pairs.where(~inside | (pairs.distance < pairs.distance[inside].max() / 2))
        first = _first_connected(pairs, n)
    return np.where(np.bincount(first, minlength=n)[first] > largest, np.arange(n), first)


def _first_connected(pairs: _Pairs, n: int) -> IntArray:
    """Return the first of the images that pairs connect with each, (n,)."""
    edges = coo_array((np.ones(len(pairs.one), np.bool_), (pairs.one, pairs.other)), shape=(n, n))
    _, first, code = np.unique(connected_components(edges, directed=False)[1], return_index=True, return_inverse=True)
    return np.asarray(first[code], np.int64)
