"""Label leakage: probabilities of a class that its own labels contradict must not teach the noise model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import TINY, Probs, one_hot

_FULL, _NONE = 0.25, 0.5
_IMAGES = 5.0
_LIFT = 1.25


def leakage(labels: IntArray, probs: Probs) -> FloatArray:
    """Measure how far each class's labels have leaked, with a reversed sign, into the probabilities of that class.

    Where cross-validation spreads the images *given* a class unevenly over the folds (files sorted by label, no
    stratification), the model that judges most of them has seen few of them, so that being given the class lowers an
    image's probability of it. Take the rows most confident of the class, as many as a third of its labels: the share
    of them that has the label is then far below their mean probability. With honest probabilities it is rarely below
    half of it.

    Where four of five labels are wrong and models that learned from the right ones are sure of themselves, the share is
    as low in every class, but the label is still a quarter more frequent among these rows than among all: that is no
    leakage.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.

    Returns:
        (K,) in [0, 1]: 0 where at least half of the predicted labels are found, 1 where a quarter or fewer are. Five
        extra images count as evidence against leakage.
    """
    k = probs.shape[1]
    found, lift = np.ones(k), np.ones(k)
    for number, column in enumerate(probs.T):
        mine = labels == number
        top = np.argsort(-column, kind="stable")[: max(1, int(mine.sum()) // 3)]
        found[number] = (mine[top].sum() + _IMAGES) / (column[top].sum(dtype=np.float64) + _IMAGES)
        lift[number] = mine[top].mean() / max(mine.mean(), TINY)
    by_noise = _contradicted(np.median(found)) * np.clip((np.median(lift) - 1) / (_LIFT - 1), 0, 1)
    return np.maximum(_contradicted(found) - by_noise, 0)


def _contradicted(found: npt.ArrayLike) -> FloatArray:
    """Return 0 where at least half of the predicted labels are found, 1 where a quarter or fewer are."""
    return np.clip((_NONE - np.asarray(found)) / (_NONE - _FULL), 0, 1)


def label_targets(labels: IntArray, probs: Probs, leaked: FloatArray) -> FloatArray:
    """Return what the noise model learns to predict: the given label, or for leaked classes their probability.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.
        leaked: (K,) as `leakage` returns it.

    Returns:
        (K, n) columns that sum to 1; one-hot where nothing leaked.
    """
    target = one_hot(labels, probs.shape[1])
    columns = probs.T / probs.sum(axis=1, dtype=np.float64)
    for k in np.flatnonzero(leaked):
        softer = target * (1 - columns[k])
        softer[k] = columns[k]
        softer[:, labels == k] = columns[:, labels == k]
        target = (1 - leaked[k]) * target + leaked[k] * softer
    return target
