"""Which rows a model is fitted on: the same in any order, and nearly the same when a row is added or removed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import Probs, chunks

N_FITTED = 20_000
"""Rows a model is fitted on, at most."""

_N_DRAWN = 160_000


def fitted_rows(labels: IntArray, probs: Probs) -> tuple[IntArray, FloatArray, IntArray]:
    """Draw at most 20,000 rows, all of a class or as many as a limit common to all classes allows.

    They are drawn by a checksum of each row's probabilities rather than by its position, so that adding a row changes
    the draw by one row. Of more than 160,000 rows, evenly spaced ones are considered.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.

    Returns:
        Rows (m,), how many images each stands for (m,), and the half that each belongs to (m,), 0 or 1.
    """
    n, k = probs.shape
    considered = np.arange(0, n, max(1, -(-n // _N_DRAWN)))
    key = _checksums(probs, considered)
    order = np.lexsort((key, labels[considered]))
    given = labels[considered][order]
    counts = np.bincount(given, minlength=k)
    limit = _limit(counts)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = place < limit
    rows, given = considered[order][kept], given[kept]
    weight = (counts * (n / len(considered)) / np.maximum(np.minimum(counts, limit), 1))[given]
    half = ((key[order][kept] >> np.uint64(7)) & np.uint64(1)).astype(np.int64)
    if min(half.mean(), 1 - half.mean()) < 0.25:  # nearly identical rows
        half = np.arange(len(rows), dtype=np.int64) % 2
    return rows, weight, half


def _checksums(probs: Probs, rows: IntArray) -> npt.NDArray[np.uint64]:
    """Return (m,) numbers that look random, equal for equal probabilities."""
    k = probs.shape[1]
    factors = np.random.default_rng(0).integers(1 << 63, size=k, dtype=np.uint64) | np.uint64(1)
    result = np.empty(len(rows), np.uint64)
    for part in chunks(len(rows), k):
        bits = np.ascontiguousarray(probs[rows[part]], np.float32).view(np.uint32).astype(np.uint64)
        result[part] = (bits * factors).sum(axis=1, dtype=np.uint64)
    result ^= result >> np.uint64(33)
    result *= np.uint64(0xFF51AFD7ED558CCD)
    result ^= result >> np.uint64(33)
    return result


def _limit(counts: IntArray) -> int:
    """Return the most rows per class with which all classes together have at most `N_FITTED`."""
    left = min(N_FITTED, int(counts.sum()))
    for i, count in enumerate(np.sort(counts)):
        limit = left // (len(counts) - i)  # the remainder, shared among the larger classes
        if count > limit:
            return limit
        left -= int(count)
    return int(counts.max())
