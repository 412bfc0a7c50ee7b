"""Images that are exact copies of each other, by their decoded pixels or their features."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray, IntArray

_CHUNK_BYTES = 16 * 2**20
_SOME = 32
"""Values of each row that are compared first: rows that differ in these are no copies, and most rows do."""


def first_copies(rows: npt.NDArray[Any], which: IntArray | None = None) -> IntArray:
    """Return the position (n,) of the first image with the same content, which is its own where there is none.

    Args:
        rows: (m, …) decoded images or features, in memory or memory-mapped; read once, in pieces.
        which: (n,) the rows that are images of the run, ascending; None: all.
    """
    which = np.arange(len(rows)) if which is None else which
    alike = _alike(rows, which)
    _, place, code = np.unique(_hashes(rows, which[alike]), return_index=True, return_inverse=True)
    first = np.arange(len(which))
    first[alike] = alike[place[code]]
    repeated = np.flatnonzero(first != np.arange(len(which)))
    step = max(1, _CHUNK_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(repeated), step):
        part = repeated[start : start + step]
        same = rows[which[part]] == rows[which[first[part]]]
        different = part[~same.reshape(len(part), -1).all(axis=1)]
        first[different] = different  # of equal hash only
    return first


def contradictions(labels: IntArray, first: IntArray) -> BoolArray:
    """Return which images (n,) have a copy with another label. first: as `first_copies` returns it."""
    lowest, highest = labels.copy(), labels.copy()
    np.minimum.at(lowest, first, labels)
    np.maximum.at(highest, first, labels)
    return (lowest < highest)[first]


def _alike(rows: npt.NDArray[Any], which: IntArray) -> IntArray:
    """Return the places (m,) in `which` of rows that may have a copy: those that agree in a few values."""
    if not (rows.size and rows.flags.c_contiguous):
        return np.arange(len(which))
    values = rows.reshape(len(rows), -1)
    some = values[:, :: values.shape[1] // _SOME | 1]  # an odd step meets other columns in each line of an image
    hashes = _hashes(some, which)
    order = np.argsort(hashes)
    same = hashes[order[1:]] == hashes[order[:-1]]
    alike = np.zeros(len(which), np.bool_)
    alike[order[1:][same]] = alike[order[:-1][same]] = True
    return np.flatnonzero(alike)


def _hashes(rows: npt.NDArray[Any], of: IntArray) -> npt.NDArray[np.uint64]:
    """Return a hash (m,) of each of the rows `of` (m,): equal rows, equal hashes."""
    width = max(1, math.prod(rows.shape[1:]) * rows.dtype.itemsize)
    factors = np.random.default_rng(0).integers(2**63, size=-(-width // 8), dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(of), np.uint64)
    step = max(1, _CHUNK_BYTES // width)
    for start in range(0, len(of), step):
        block = np.ascontiguousarray(rows[of[start : start + step]])
        data = block.reshape(len(block), -1).view(np.uint8)
        if data.shape[1] % 8:
            data = np.pad(data, ((0, 0), (0, -data.shape[1] % 8)))
        hashes[start : start + step] = (data.view(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
    return hashes


def first_of_same(units: IntArray) -> IntArray:
    """Return the position (n,) of the first of those that have the same number in `units` (n,)."""
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    return first[unit]
