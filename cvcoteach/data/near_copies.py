"""Images that show the same picture as another: re-encoded, scaled, a little cropped or moved, or frames of a burst.

Both are compared as pictures of 16×16 pixels from which brightness and contrast are taken out, or as features. What
counts as near is learned from the images: so near that chance would give hardly any image such a neighbor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cvcoteach._memory import scratch
from cvcoteach._validation import BoolArray, FloatArray, IntArray
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
_AXES, _SHRUNK = 12, 0.6
"""Principal axes in which neighbors are searched, and the part of a distance that they hold at most.

Most of a small change is in the details, which these axes lack: 190 of 192 pairs of a search along all axes are found.
"""
_MORE_AXES = 48
"""Axes along which neighbors along the first ones are compared, where these are many, or the images are."""
_NEIGHBORS = 8
"""Nearest images that are compared with each; of more copies some lead to the others."""
_LARGEST_GROUP = 20
"""A group holds at most the images divided by this."""
_STRICTER = 4
"""Times that the distance is halved for a group that is too large."""
_BLOCK, _WIDTH = 512, 4096
"""Images that are compared at a time, and with how many: so many distances fit into a processor's cache."""
_CHUNK_BYTES = 16 * 2**20
_IN_STRIPS = 1 << 16
"""Images up to which neighbors are searched in strips, whose time grows with the square of their number."""
_SETS = 4
"""Times that more images are divided among landmarks: near copies mostly have the same nearest one."""


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
        if rows.ndim == 2:
            some = rows[which[spread(len(which), _SAMPLE)]].astype(np.float32)
            self.center = some.mean(axis=0)
            self.least = 1e-3 * float(np.median(np.sqrt(((some - self.center) ** 2).mean(axis=1))))

    def __len__(self) -> int:
        return len(self.which)

    def points(self, of: IntArray) -> npt.NDArray[np.float32]:
        """Return the images `of` (m,) as points, (m, d); of a flat one not a number."""
        rows = self.rows[self.which[of]]
        values = rows.astype(np.float32) if rows.ndim == 2 else _pictures(rows)
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
        """Return a stretch of images along some axes, of features without a copy of them less their center."""
        first, last = self.which[part[0]], self.which[part[-1]]
        if self.rows.dtype != np.float32 or self.rows.ndim != 2 or last - first != len(part) - 1:
            return self.points(part) @ axes
        rows, center = self.rows[first : last + 1], np.asarray(self.center)
        seen = rows @ np.column_stack([axes, center])
        squared = np.einsum("ij,ij->i", rows, rows) - 2 * seen[:, -1] + float(center @ center)
        length = np.sqrt(np.maximum(squared, 0))
        length[length <= self.least * math.sqrt(rows.shape[1])] = np.nan
        return (seen[:, :-1] - center @ axes) / length[:, None]

    def pairs(self, one: IntArray, other: IntArray) -> _Pairs:
        """Return pairs of images (m,), (m,) with how far they are from each other."""
        images, place = np.unique(np.concatenate([one, other]), return_inverse=True)
        points = np.empty((0, 0), np.float16)  # half of the memory, and a distance needs no more
        for start in range(0, len(images), self.chunk):
            part = self.points(images[start : start + self.chunk])
            if not start:
                points = scratch((len(images), part.shape[1]), np.float16)
            points[start : start + len(part)] = part
        distance = np.empty(len(one))
        at, to = place[: len(one)], place[len(one) :]
        for start in range(0, len(one), _BLOCK):
            block = slice(start, start + _BLOCK)
            distance[block] = np.linalg.norm(points[at[block]].astype(np.float32) - points[to[block]], axis=1)
        return _Pairs(one, other, distance)


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
    some = sample[spread(len(sample), _FOR_AXES)]
    some = some - some.mean(axis=0)
    spreads, axes = np.linalg.svd(some, full_matrices=False)[1:]
    held = math.sqrt(float((spreads[:_AXES] ** 2).sum() / max((spreads**2).sum(), 1e-12)))
    few, many = axes[:_AXES].T, axes[:_MORE_AXES].T  # the widest first
    in_strips = len(view) <= _IN_STRIPS
    seen = view.along(few if in_strips else many)
    told = np.flatnonzero(~np.isnan(seen[:, 0]))
    seen = seen[told]
    if in_strips:
        one, other = _neighbors(seen, min(_SHRUNK, held) * limit)
        if len(one) > len(told):  # most are told apart by more axes, without a look at the whole
            one, other = _closer(view.along(many)[told], one, other, limit)
    else:
        held = math.sqrt(float((spreads[:_MORE_AXES] ** 2).sum() / max((spreads**2).sum(), 1e-12)))
        one, other = _neighbors_by_landmarks(seen, held * limit)
    near = view.pairs(told[one], told[other])
    near = near.where(near.distance < limit)
    n_found = len(np.union1d(near.one, near.other))
    return near if n_found > _BEYOND_CHANCE * _BY_CHANCE * len(view) else near.where(near.distance < strict)


def _closer(points: npt.NDArray[np.float32], one: IntArray, other: IntArray, limit: float) -> tuple[IntArray, IntArray]:
    """Return the pairs (m,), (m,) of points (n, d) that are nearer to each other than a limit."""
    near = np.empty(len(one), np.bool_)
    for start in range(0, len(one), _WIDTH):
        part = slice(start, start + _WIDTH)
        apart = points[one[part]] - points[other[part]]
        near[part] = np.einsum("ij,ij->i", apart, apart) < limit**2
    return one[near], other[near]


def _neighbors(points: npt.NDArray[np.float32], reach: float) -> tuple[IntArray, IntArray]:
    """Return pairs (m,), (m,) of points (n, d) within reach of each other; of many neighbors some of the nearest.

    Points are compared in blocks, with those of the same strip along the first axis and the next one, as far as they
    lie within reach along the second: a tree takes twenty times as long in so many dimensions.
    """
    strips = np.floor((points[:, 0] - points[:, 0].min(initial=0)) / reach).astype(np.int64)
    order = np.lexsort((points[:, 1], strips))
    points, strips = points[order], strips[order]
    height, squares, one = points[:, 1], (points**2).sum(axis=1, keepdims=True), np.ones((len(points), 1), np.float32)
    left, right = np.hstack([points, squares, one]), np.hstack([-2 * points, one, squares]).T  # left @ right: distances
    ones, others = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    starts = np.flatnonzero(np.diff(strips, prepend=-1))
    for start, end in pairwise([*starts.tolist(), len(points)]):
        after = int(np.searchsorted(strips, strips[start] + 1, "right"))
        for low in range(start, end, _BLOCK):
            high = min(low + _BLOCK, end)
            bottom, top = height[low] - reach, height[high - 1] + reach
            same = (low, start + int(np.searchsorted(height[start:end], top, "right")))
            beside = [end + int(np.searchsorted(height[end:after], at)) for at in (bottom, top)]
            for first, last in (same, beside):
                for at in range(first, last, _WIDTH):
                    near = _within(left[low:high] @ right[:, at : min(at + _WIDTH, last)], reach**2)
                    row, column = low + near[0], at + near[1]
                    once = (row < column) | (at >= end)
                    ones.append(order[row[once]])
                    others.append(order[column[once]])
    return np.concatenate(ones), np.concatenate(others)


def _neighbors_by_landmarks(points: npt.NDArray[np.float32], reach: float) -> tuple[IntArray, IntArray]:
    """Return what `_neighbors` does, most of it, in time that grows with n^1.5.

    √n of the points are landmarks, and points with the same nearest landmark are compared; that four times, with other
    landmarks. Of the points near one landmark, in the order of the first axis, 4,096 at most are compared with each
    other.
    """
    n = len(points)
    rng = np.random.default_rng(0)
    cells = [np.empty(0, np.int64)]
    for _ in range(_SETS):
        landmarks = points[rng.choice(n, math.isqrt(n), replace=False)]
        half = (landmarks**2).sum(axis=1) / 2
        nearest = np.empty(n, np.int32)
        for start in range(0, n, _WIDTH):
            nearest[start : start + _WIDTH] = (points[start : start + _WIDTH] @ landmarks.T - half).argmax(axis=1)
        order = np.lexsort((points[:, 0], nearest))
        bounds = np.flatnonzero(np.diff(nearest[order], prepend=-1, append=len(landmarks)))
        found = [cells[0]]
        for start, end in pairwise(bounds.tolist()):
            for low in range(start, end, _WIDTH):
                some = order[low : min(low + _WIDTH, end)]
                row, column = _close(points[some], reach)
                one, other = some[row], some[column]
                found.append(np.minimum(one, other) * n + np.maximum(one, other))
        cells = [np.unique(np.concatenate(found))]
    one, other = np.divmod(cells[0], n)
    return one, other


def _close(points: npt.NDArray[np.float32], reach: float) -> tuple[IntArray, IntArray]:
    """Return the places (m,), (m,) of points (n, d) within reach of each other, each pair once."""
    squares = (points**2).sum(axis=1)
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(points), _BLOCK):
        block = slice(start, start + _BLOCK)
        row, column = _within(squares[block, None] + squares - 2 * (points[block] @ points.T), reach**2)
        once = start + row < column
        rows.append(start + row[once])
        columns.append(column[once])
    return np.concatenate(rows), np.concatenate(columns)


def _within(squared: npt.NDArray[np.float32], limit: float) -> tuple[IntArray, IntArray]:
    """Return the places (m,), (m,) of values (a, b) below a limit; in rows of many such about the least."""
    near = squared < limit
    found = np.flatnonzero(near)
    if len(found) > _NEIGHBORS * len(near) // 4 and near.shape[1] > _NEIGHBORS:
        near &= squared <= np.partition(squared, _NEIGHBORS, axis=1)[:, _NEIGHBORS, None]
        found = np.flatnonzero(near)
    row, column = np.divmod(found, near.shape[1])
    return row, column


def _limits_by_chance(points: npt.NDArray[np.float32], n: int, shares: Sequence[float]) -> list[float]:
    """Return the distances within which chance gives these shares of n images a neighbor.

    The number of neighbors grows with a power of the distance, which the quantiles of all distances tell.

    Args:
        points: (m, d) some of the images.
        n: Number of all.
        shares: In (0, 1).
    """
    products = points @ points.T
    distances = np.sqrt(np.maximum(2 - 2 * products[np.triu_indices(len(points), 1)], 0))
    limits = [[0.0] for _ in shares]
    for low, high in _TAILS:
        near, far = np.quantile(distances, [low, high])
        if 0 < near < far:
            power = math.log(high / low) / math.log(far / near)
            for share, found in zip(shares, limits, strict=True):
                found.append(float(near) * (share / (low * n)) ** (1 / power))
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
