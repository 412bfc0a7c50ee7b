"""Pairs of points that are near each other, among up to millions of points in a dozen dimensions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.data.halves import singles

_BLOCK, _WIDTH = 512, 4096
"""Points that are compared at a time, and with how many: so many distances fit into a processor's cache."""
_CELLS_AT_A_TIME = 1 << 16
"""Distances from landmarks at a time, which are gone through several times."""
_KEPT = 8
"""Nearest points that are kept of each where many are near; of more some lead to the others."""
_LANDMARKS = 1.5
"""Times √n that are landmarks of n points."""
_GUEST_OF = 5
"""Cells that a point is a guest of where these are many."""
_AROUND = 16
"""Landmarks around another one."""
_CROSSING, _CROSSING_OF_MANY = 3.0, 2.2
"""Standard deviations of a step in a random direction that may lead across the border of two landmarks' cells."""
_MANY = 1 << 16
"""Points from which fewer guests are compared."""


def principal_axes(points: npt.NDArray[np.float32], most: int) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """Return the axes (d, a) along which points (m, d) differ most, the widest first, and the part of them they hold.

    a is at most `most`. The second value (a,) is, for each axis, the part of the usual distance of two points that
    this axis and those before it hold.
    """
    centered = points - points.mean(axis=0)
    # the smaller of the two matrices of products has the same values
    products = centered @ centered.T if len(points) < points.shape[1] else centered.T @ centered
    widest = (max(0, len(products) - most), len(products) - 1)
    values, vectors = eigh(products, subset_by_index=widest)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > 1e-6 * values.max(initial=0)
    values, vectors = values[kept], vectors[:, kept]
    if len(points) < points.shape[1]:
        vectors = centered.T @ vectors / np.sqrt(values)
    return vectors, np.sqrt(np.cumsum(values, dtype=np.float64) / max(float((centered**2).sum()), 1e-12)).clip(0, 1)


def neighbors(points: npt.NDArray[np.float32], reach: float) -> tuple[IntArray, IntArray]:
    """Return pairs (m,), (m,) of points (n, d) within reach of each other, most of them, each once.

    Of up to 4,096 points all are compared. Of more some are landmarks, and each point is compared with those of its
    nearest landmark's cell and with guests: points that are near the border of their own cell with this one. Of two
    points in two cells, one is within half of the reach of the border; in many dimensions hardly a step of that length
    leads straight across it, so that fewer are guests there. The time grows with n^1.5. Of many neighbors some of the
    nearest are returned.
    """
    n = len(points)
    if n <= _WIDTH:
        return _compared(points, np.zeros(n, np.int64), np.empty(0, np.int64), np.zeros(1, np.int64), reach)
    chosen = np.random.default_rng(0).choice(n, int(_LANDMARKS * math.isqrt(n)), replace=False)
    crossing = (_CROSSING if n <= _MANY else _CROSSING_OF_MANY) / math.sqrt(points.shape[1])
    home, guests, hosts = _cells(points, points[chosen], min(1, crossing) * reach / 2)
    order = np.argsort(points[:, 0])
    order = order[np.argsort(home[order], kind="stable")]
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    guests = place[guests[np.argsort(hosts, kind="stable")]]
    ends = np.cumsum(np.bincount(hosts, minlength=len(chosen)))
    one, other = _compared(points[order], home[order], guests, ends, reach)
    return order[one], order[other]


def distances(points: npt.NDArray[Any], one: IntArray, other: IntArray) -> FloatArray:
    """Return how far points (n, d) of pairs (m,), (m,) are from each other, (m,)."""
    found = np.empty(len(one))
    for start in range(0, len(one), _BLOCK):
        part = slice(start, start + _BLOCK)
        step = singles(points[one[part]]) - singles(points[other[part]])
        found[part] = np.sqrt(np.einsum("ij,ij->i", step, step))
    return found


def _cells(
    points: npt.NDArray[np.float32], landmarks: npt.NDArray[np.float32], border: float
) -> tuple[npt.NDArray[Any], IntArray, npt.NDArray[Any]]:
    """Return the nearest of landmarks (k, d) of each point (n, d), and which points are near the border of others.

    Returns:
        The nearest landmark, (n,).
        Points (m,) that are nearer than `border` to the border of another landmark's cell, and these landmarks (m,).
        Where these are many, about the nearest.
    """
    kind = np.int16 if len(landmarks) < 1 << 15 else np.int32  # sorts faster
    half = (landmarks**2).sum(axis=1) / 2
    between = np.sqrt(np.maximum(2 * (half[:, None] + half - landmarks @ landmarks.T), 0))
    # how far from a border is the difference of half the squared distances, by that of the landmarks, here a usual one
    width = border * np.partition(between, _AROUND, axis=1)[:, : _AROUND + 1].mean(axis=1)
    left, right = np.column_stack([points, np.ones(len(points), np.float32)]), np.column_stack([-landmarks, half]).T
    home: npt.NDArray[Any] = np.empty(len(points), kind)
    guests: list[IntArray] = [np.empty(0, np.int64)]
    hosts: list[npt.NDArray[Any]] = [np.empty(0, kind)]
    step = max(1, _CELLS_AT_A_TIME // len(landmarks))
    for start in range(0, len(points), step):
        apart = left[start : start + step] @ right
        nearest = apart.argmin(axis=1)
        limit = apart[np.arange(len(apart)), nearest] + width[nearest]
        row, host = _within(apart, limit[:, None], _GUEST_OF, 2 * _KEPT)
        foreign = host != nearest[row]
        home[start : start + step] = nearest
        guests.append(start + row[foreign])
        hosts.append(host[foreign].astype(kind))
    return home, np.concatenate(guests), np.concatenate(hosts).astype(kind, copy=False)


def _compared(
    points: npt.NDArray[np.float32], cells: IntArray, guests: IntArray, guest_ends: IntArray, reach: float
) -> tuple[IntArray, IntArray]:
    """Return the pairs (m,), (m,) within reach of points of one cell, and of these with guests of the cell.

    Of a large cell, 4,096 points at a time are compared with each other, and with four times as many guests at most.

    Args:
        points: (n, d), cell by cell.
        cells: (n,) ascending.
        guests: (g,) points of other cells that are compared with the cell's, cell by cell.
        guest_ends: (k,) where the guests of each cell end.
        reach: The distance.
    """
    n = len(points)
    squares, ones = (points**2).sum(axis=1, keepdims=True), np.ones((n, 1), np.float32)
    left, right = np.hstack([points, squares, ones]), np.hstack([-2 * points, ones, squares])  # left @ right.T
    pairs = [np.empty(0, np.int64)]
    for start, end in pairwise([*np.flatnonzero(np.diff(cells, prepend=-1)).tolist(), n]):
        cell = int(cells[start])
        invited = guests[int(guest_ends[cell - 1]) if cell else 0 : int(guest_ends[cell])]
        for low in range(start, end, _WIDTH):
            high = min(low + _WIDTH, end)
            members = np.concatenate([np.arange(low, high), invited[: 4 * _WIDTH]])
            others = right.take(members, axis=0).T
            for at in range(low, high, _BLOCK):
                row, column = _within(left[at : min(at + _BLOCK, high)] @ others, reach**2, _KEPT, _KEPT // 2)
                one, other = at + row, members[column]
                once = (one < other) | (column >= high - low)
                one, other = one[once], other[once]
                pairs.append(np.minimum(one, other) * n + np.maximum(one, other))
    found = np.sort(np.concatenate(pairs))
    one, other = np.divmod(found[np.diff(found, prepend=-1) > 0], max(1, n))
    return one, other


def _within(
    values: npt.NDArray[np.float32], limit: FloatArray | float, most: int, usual: int
) -> tuple[IntArray, IntArray]:
    """Return the places (m,), (m,) of values (a, b) below a limit, which are spent.

    Where rows have more than `usual` of them, only the least are returned, the first `most` and one.
    """
    near = values < limit
    found = np.flatnonzero(near)
    if len(found) <= usual * len(near) or near.shape[1] <= most:
        row, column = np.divmod(found, near.shape[1])
        return row, column
    rows, columns = np.arange(len(values)), []
    for _ in range(most + 1):  # far less than a sort, or a part of one
        columns.append(values.argmin(axis=1))
        values[rows, columns[-1]] = np.inf
    row, column = np.tile(rows, most + 1), np.concatenate(columns)
    below = near[row, column]
    return row[below], column[below]
