"""Strangers: images that belong to none of the classes, told by their features."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.special import gammainc
from threadpoolctl import threadpool_limits

from cvcoteach._validation import BoolArray, FloatArray, IntArray

Float32Array = npt.NDArray[np.float32]

MARKED = 0.5
"""An image above this probability is marked as a stranger."""

_N_DIRECTIONS, _ROWS_PER_DIRECTION = 128, 20
_N_FITTED = 5_000
_MOST_EXACT = 2_048  # features
_FURTHEST = 2.5  # standard deviations that a single feature may lie from its mean
_LEAST_OF_CLASS = 3
_CHUNK = 4_096  # rows
_BY_CHANCE = 1e-3
_ROUNDING = 1e-9  # by which distances of equal images may differ
_TAIL = np.log(5.0)  # of an exponential distribution, one unit being the distance from its median to its 90 % quantile


def strangers(
    features: npt.NDArray[np.floating], labels: IntArray, typical: BoolArray, groups: IntArray | None = None
) -> FloatArray:
    """Return the probability that each image belongs to none of the classes, (n,), in [0, 1].

    The score is the relative Mahalanobis distance in the leading principal components of the features: the distance to
    the nearest class, less that to all images taken together. A tail that falls exponentially from the median through
    the 90 % quantile, slower than those that we have seen, says how many images should lie beyond each score; what
    lies there in excess are strangers (a local false discovery rate). Where nothing stands out, all are 0. Finds images
    of another kind; a class that is as near to the others as these to each other is not found, nor are strangers that
    make up a tenth of all images. Where a feature is not finite, all are 0.

    Args:
        features: (n, d), any kind of numbers that describe images, the same for all.
        labels: (n,) given, 0..K-1.
        typical: (n,) images whose label is probably right, from which the classes are learned.
        groups: (n,) numbers from 0 on; the images of a group, such as the frames of a video, count as one.

    References:
        Ren et al., A simple fix to Mahalanobis distance for improving near-OOD detection, 2021; Efron, Large-Scale
        Inference, 2010.
    """
    n = len(features)
    counts = np.bincount(labels[typical])
    known = np.flatnonzero(counts >= _LEAST_OF_CLASS)
    rows = np.flatnonzero(typical & np.isin(labels, known))
    n_directions = min(_N_DIRECTIONS, features.shape[1], len(rows) // _ROWS_PER_DIRECTION)
    if not len(known) or n_directions < 2:
        return np.zeros(n)
    with threadpool_limits(1):  # the same to the bit with any number of threads
        rng = np.random.default_rng(0)
        fitted = np.sort(rng.choice(n, min(n, _N_FITTED), replace=False))
        sample = features[fitted].astype(np.float64)
        center, spread = sample.mean(axis=0), _FURTHEST * sample.std(axis=0)
        low, high = center - spread, center + spread
        if not np.isfinite(center).all():
            return np.zeros(n)
        directions = _principal(sample.clip(low, high) - center, n_directions)
        x = np.empty((n, n_directions), np.float32)
        for block in _blocks(n):
            x[block] = (features[block].astype(np.float64).clip(low, high) - center) @ directions
        if not all(np.isfinite(x[block]).all() for block in _blocks(n)):
            return np.zeros(n)
        share = np.ones(n) if groups is None else 1 / np.bincount(groups)[groups]
        return _excess(_relative_distance(x, labels, rows, known), share)


def _blocks(n: int) -> list[slice]:
    """Return slices that cover n rows."""
    return [slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK)]


def _principal(sample: FloatArray, n_directions: int) -> FloatArray:
    """Return the leading principal directions (d, n_directions) of centered rows (m, d)."""
    if sample.shape[1] <= _MOST_EXACT:
        return np.linalg.eigh(np.cov(sample, rowvar=False))[1][:, : -n_directions - 1 : -1]
    from sklearn.utils.extmath import randomized_svd  # its time grows with d, not with its cube

    directions: FloatArray = randomized_svd(sample, n_directions, random_state=0)[2].T
    return directions


def _relative_distance(x: Float32Array, labels: IntArray, typical: IntArray, known: IntArray) -> FloatArray:
    """Return how much further each image (n,) is from the nearest class than from all. It takes blocks of rows."""
    n, d = x.shape
    place = np.searchsorted(known, labels[typical])
    sums, mean = np.zeros((len(known), d)), np.zeros(d)
    for block in _blocks(len(typical)):
        each = np.arange(block.stop - block.start)
        members = csr_array((np.ones(len(each)), (place[block], each)), shape=(len(known), len(each)))
        sums += members @ x[typical[block]].astype(np.float64)
    for block in _blocks(n):
        mean += x[block].sum(axis=0, dtype=np.float64) / n
    means = sums / np.bincount(place, minlength=len(known))[:, None]
    within = _precision(x[typical[block]] - means[place[block]] for block in _blocks(len(typical)))
    overall = _precision(x[block] - mean for block in _blocks(n))
    towards = within @ means.T
    offsets = np.einsum("ij,ji->i", means, towards)
    result = np.empty(n)
    for block in _blocks(n):
        some = x[block].astype(np.float64)
        nearest = (offsets - 2 * (some @ towards)).min(axis=1)  # |x - m|² = x'Ax - 2 x'Am + m'Am
        result[block] = _quadratic(some, within) + nearest - _quadratic(some - mean, overall)
    return result


def _precision(blocks: Iterable[FloatArray]) -> FloatArray:
    """Return the inverse (d, d) of the covariance of rows (m, d), less their mean, by Ledoit and Wolf.

    That is `sklearn.covariance.ledoit_wolf`, which takes the memory of all rows, and only nearly centers those of
    classes, whose mean is 0 but for rounding.

    References:
        Ledoit & Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multiv. Anal. 2004.
    """
    n, fourth, products = 0, 0.0, np.zeros((1, 1))
    for rows in blocks:
        n += len(rows)
        fourth += float((np.einsum("ij,ij->i", rows, rows) ** 2).sum())
        products = products + rows.T @ rows
    covariance, d = products / n, len(products)
    scale = float(np.trace(covariance)) / d
    apart = float((covariance**2).sum()) / d - scale**2
    chance = (fourth / n - float((covariance**2).sum())) / (d * n)
    shrinkage = min(chance, apart) / apart if chance > 0 and apart > 0 else 0.0
    shrunk = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(d)
    return np.asarray(np.linalg.pinv(shrunk, hermitian=True), np.float64)


def _quadratic(x: FloatArray, matrix: FloatArray) -> FloatArray:
    result: FloatArray = np.einsum("ij,ij->i", x @ matrix, x)
    return result


def _excess(score: FloatArray, share: FloatArray) -> FloatArray:
    """Return how much of what is at least as far out the tail does not explain, (n,), in [0, 1], beyond chance.

    share: (n,) what each image counts for.
    """
    median, high = np.quantile(score, [0.5, 0.9])
    if high - median <= _ROUNDING * abs(median):  # most images are copies of each other, or were made by a rule
        return np.zeros(len(score))
    order = np.argsort(-score, kind="stable")
    units = np.maximum((score[order] - median) / (high - median), 0)
    expected = share.sum() / 2 * np.exp(-_TAIL * units)
    beyond = np.cumsum(share[order])
    by_chance = gammainc(beyond, expected)  # P(Poisson(expected) >= beyond)
    excess = np.where((units > 1) & (by_chance < _BY_CHANCE), 1 - expected / beyond, 0)
    result = np.empty(len(score))
    result[order] = np.maximum.accumulate(excess[::-1])[::-1]
    return result
