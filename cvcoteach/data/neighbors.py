"""Pairs of points that are near each other, among up to millions of points in a dozen dimensions."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray, IntArray

_BLOCK, _WIDTH = 512, 4096
"""Points that are compared at a time, and with how many: so many distances fit into a processor's cache."""
_KEPT = 8
"""Nearest points that are kept of each where many are near; of more some lead to the others."""
_LANDMARKS = 2
"""Times √n that are landmarks of n points."""
_NEAREST, _NEAREST_OF_MANY = 8, 6
"""Nearest landmarks of a point that are looked at; of two near copies, one is nearly always the other's nearest."""
_MANY = 1 << 16
"""Points from which fewer landmarks are looked at."""


def principal_axes(points: npt.NDArray[np.float32], most: int) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """Return the axes (d, a) along which points (m, d) differ most, the widest first, and the part of them they hold.

    a is at most `most`. The second value (a,) is, for each axis, the part of the usual distance of two points that
    this axis and those before it hold.
    """
    centered = points - points.mean(axis=0)
    # the smaller of the two matrices of products has the same values
    values, vectors = np.linalg.eigh(centered @ centered.T if len(points) < points.shape[1] else centered.T @ centered)
    values, vectors = values[: -most - 1 : -1], vectors[:, : -most - 1 : -1]
    kept = values > 1e-6 * values.max(initial=0)
    values, vectors = values[kept], vectors[:, kept]
    if len(points) < points.shape[1]:
        vectors = centered.T @ vectors / np.sqrt(values)
    return vectors, np.sqrt(np.cumsum(values, dtype=np.float64) / max(float((centered**2).sum()), 1e-12)).clip(0, 1)


def neighbors(points: npt.NDArray[np.float32], reach: float) -> tuple[IntArray, IntArray]:
    """Return pairs (m,), (m,) of points (n, d) within reach of each other, most of them, each once.

    Of up to 4,096 points all are compared. Of more some are landmarks, and each point is compared with those whose
    nearest landmarks contain its own nearest one: near points are hardly ever told apart by that, and the time grows
    with n^1.5. Of many neighbors some of the nearest are returned.
    """
    n = len(points)
    if n <= _WIDTH:
        return _compared(points, np.zeros(n, np.int64), np.empty(0, np.int64), np.zeros(1, np.int64), reach)
    chosen = np.random.default_rng(0).choice(n, _LANDMARKS * math.isqrt(n), replace=False)
    nearest = _nearest_landmarks(points, points[chosen], _NEAREST if n <= _MANY else _NEAREST_OF_MANY)
    order = np.lexsort((points[:, 0], nearest[0]))
    further = nearest[1:, order].ravel()
    guests = np.argsort(further, kind="stable") % n
    ends = np.cumsum(np.bincount(further, minlength=len(chosen)))
    one, other = _compared(points[order], nearest[0, order], guests, ends, reach)
    return order[one], order[other]


def distances(points: npt.NDArray[Any], one: IntArray, other: IntArray) -> FloatArray:
    """Return how far points (n, d) of pairs (m,), (m,) are from each other, (m,)."""
    found = np.empty(len(one))
    for start in range(0, len(one), _BLOCK):
        part = slice(start, start + _BLOCK)
        found[part] = np.linalg.norm(points[one[part]].astype(np.float32) - points[other[part]], axis=1)
    return found


def _nearest_landmarks(
    points: npt.NDArray[np.float32], landmarks: npt.NDArray[np.float32], n_nearest: int
) -> npt.NDArray[np.signedinteger]:
    """Return the nearest landmarks (k, d) of each point (n, d), nearest first, (n_nearest, n)."""
    half = (landmarks**2).sum(axis=1) / 2
    nearest = np.empty((n_nearest, len(points)), np.int16 if len(landmarks) < 1 << 15 else np.int32)  # sorts faster
    for start in range(0, len(points), _BLOCK):
        nearness = points[start : start + _BLOCK] @ landmarks.T - half
        row = np.arange(len(nearness))
        for rank in range(n_nearest):
            nearest[rank, start : start + _BLOCK] = at = nearness.argmax(axis=1)
            nearness[row, at] = -np.inf
    return nearest


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
            others = right[members].T
            for at in range(low, high, _BLOCK):
                row, column = _within(left[at : min(at + _BLOCK, high)] @ others, reach**2)
                one, other = at + row, members[column]
                once = (one < other) | (column >= high - low)
                one, other = one[once], other[once]
                pairs.append(np.minimum(one, other) * n + np.maximum(one, other))
    found = np.sort(np.concatenate(pairs))
    one, other = np.divmod(found[np.diff(found, prepend=-1) > 0], max(1, n))
    return one, other


def _within(squared: npt.NDArray[np.float32], limit: float) -> tuple[IntArray, IntArray]:
    """Return the places (m,), (m,) of values (a, b) below a limit; in rows of many such about the least."""
    near = squared < limit
    found = np.flatnonzero(near)
    if len(found) > _KEPT * len(near) // 2 and near.shape[1] > _KEPT:
        near &= squared <= np.partition(squared, _KEPT, axis=1)[:, _KEPT, None]
        found = np.flatnonzero(near)
    row, column = np.divmod(found, near.shape[1])
    return row, column
