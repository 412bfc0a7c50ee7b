"""Classes that overlap: the models cannot tell whose label an image has, so neither label is an error."""

from __future__ import annotations

import numpy as np

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import FLOOR, Probs, chunks

SEPARABLE = 0.62
"""Area under the ROC curve from which on labels of two classes count as told apart; 1/2 is chance."""

BETTER_THAN_CHANCE, LEAST_AREA = 4.0, 0.52
"""Standard errors above chance from which on they do as well, if the area is at least .52: where people take cats for
dogs and dogs for cats in two of five images, even perfect models come to an area of .6, and real ones to .53 to .57."""

_FEW_PAIRS = 1000
"""Classes up to which there is a number for each pair of them."""
_IN_PAIR = 0.3
_SHARED = 0.25
_LEAST_LABELS = 10
_BELOW_CHANCE = 2.0  # standard errors


def overlapping_pairs(labels: IntArray, probs: Probs) -> IntArray:
    """Find pairs of classes whose labels the probabilities cannot tell apart.

    Two conditions: at least a quarter of the labels of either class lies where the probabilities favor these two (their
    sum is .3 or more, and the other is the strongest competitor), and over all images given either, log(p_i / p_j)
    orders the labels hardly better than chance: the area under the ROC curve, plus its standard error, is below .62,
    and less than four standard errors above 1/2 or below .52. The second holds for a class that was split at random,
    not for classes that wrong labels mix: some images of either are then easy to tell. Two classes alone cannot
    overlap; whether they can be told apart at all is `Signal.found`.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.

    Returns:
        (m, 2) class numbers, ascending within each row and from row to row.
    """
    k = probs.shape[1]
    counts = np.bincount(labels, minlength=k)
    if k < 3:
        return np.empty((0, 2), np.int64)
    pair, count = _competitors(labels, probs)
    given, other = np.divmod(pair, k)
    many = count >= np.maximum(_SHARED * counts[given], 1)
    both = np.isin(given * k + other, (other * k + given)[many])
    found = [
        (i, j)
        for i, j in zip(given[many & both].tolist(), other[many & both].tolist(), strict=True)
        if i < j and min(counts[i], counts[j]) >= _LEAST_LABELS and not _told_apart(labels, probs, i, j)
    ]
    return np.array(found, np.int64).reshape(-1, 2)


def overlap_groups(pairs: IntArray, n_classes: int) -> IntArray:
    """Return a group for each class, (K,): the lowest class that it overlaps with, directly or through others."""
    group = np.arange(n_classes)
    for i, j in pairs.tolist():
        group[group == max(group[i], group[j])] = min(group[i], group[j])
    return group


def count_as_one(posterior: FloatArray, labels: IntArray, group: IntArray) -> None:
    """Give each label the probability of all classes of its group, and the others of the group none, in place.

    Args:
        posterior: (m, K).
        labels: (m,) given.
        group: (K,) as `overlap_groups` returns it.
    """
    shared = np.bincount(group, minlength=len(group))[group] > 1
    rows = np.flatnonzero(shared[labels])
    if not len(rows):
        return
    own = group == group[labels[rows]][:, None]
    some = posterior[rows]
    total = np.where(own, some, 0).sum(axis=1)
    some[own] = 0
    some[np.arange(len(rows)), labels[rows]] = total
    posterior[rows] = some


def _competitors(labels: IntArray, probs: Probs) -> tuple[IntArray, IntArray]:
    """Return given · K + competitor, ascending, and how many images have that pair: the most probable other class.

    Images count that have a strong one.
    """
    n, k = probs.shape
    found: list[IntArray] = []
    few = k <= _FEW_PAIRS
    counts, waiting = np.zeros(k * k if few else 0, np.int64), 0
    for rows in chunks(n, k):
        chunk = np.array(probs[rows])
        each, given = np.arange(len(chunk)), labels[rows]
        own = chunk[each, given]
        chunk[each, given] = -1
        other = chunk.argmax(axis=1)
        strong = own + chunk[each, other] >= _IN_PAIR
        found.append(given[strong] * k + other[strong])
        waiting += len(found[-1])
        if few and (waiting >= len(counts) or rows.stop == n):
            counts += np.bincount(np.concatenate(found), minlength=len(counts))
            found, waiting = [], 0
    if not few:
        return np.unique(np.concatenate(found), return_counts=True)
    pairs = np.flatnonzero(counts)
    return pairs, counts[pairs]


def _told_apart(labels: IntArray, probs: Probs, i: int, j: int) -> bool:
    ones, others = (_log_odds(labels, probs, given, (i, j)) for given in (i, j))
    n, m = len(ones), len(others)
    area, error = area_above(ones, others), np.sqrt((n + m + 1) / (12 * n * m))
    better = area >= max(0.5 + BETTER_THAN_CHANCE * error, LEAST_AREA)
    return bool(better or area + error >= SEPARABLE or area + _BELOW_CHANCE * error < 0.5)  # below chance is knowledge


def _log_odds(labels: IntArray, probs: Probs, given: int, pair: tuple[int, int]) -> FloatArray:
    """Return log(p_i / p_j) of the images labeled `given`, (m,), in pieces: the rows of a class may be many."""
    found = []
    for part in chunks(len(labels), 2):
        rows = part.start + np.flatnonzero(labels[part] == given)
        one, other = (np.log(np.maximum(probs[rows, k], FLOOR, dtype=np.float64)) for k in pair)
        found.append(one - other)
    return np.concatenate(found)


def area_above(ones: FloatArray, others: FloatArray) -> float:
    """Return the probability that one is above another, ties counted half (Mann-Whitney); `others` become sorted.

    That is the area under the ROC curve.
    """
    others.sort()
    below = 0
    for part in chunks(len(ones), 2):
        for side in ("left", "right"):
            below += int(np.searchsorted(others, ones[part], side).sum())
    return below / 2 / (len(ones) * len(others))
