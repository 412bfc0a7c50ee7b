"""Label leakage: probabilities of a class that its own labels contradict must not teach the noise model."""

from __future__ import annotations

import numpy as np

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import Probs, one_hot

_FULL, _NONE = 0.25, 0.5
_IMAGES = 5.0


def leakage(labels: IntArray, probs: Probs) -> FloatArray:
    """Measure how far each class's labels have leaked, with a reversed sign, into the probabilities of that class.

    Where cross-validation spreads the images *given* a class unevenly over the folds (files sorted by label, no
    stratification), the model that judges most of them has seen few of them, so that being given the class lowers an
    image's probability of it. Take the rows most confident of the class, as many as a third of its labels: the share
    of them that has the label is then far below their mean probability. With honest probabilities it is rarely below
    half of it.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.

    Returns:
        (K,) in [0, 1]: 0 where at least half of the predicted labels are found, 1 where a quarter or fewer are. Five
        extra images count as evidence against leakage.
    """
    result = np.zeros(probs.shape[1])
    for k, column in enumerate(probs.T):
        mine = labels == k
        top = np.argsort(-column, kind="stable")[: max(1, int(mine.sum()) // 3)]
        found = (mine[top].sum() + _IMAGES) / (column[top].sum(dtype=np.float64) + _IMAGES)
        result[k] = np.clip((_NONE - found) / (_NONE - _FULL), 0, 1)
    return result


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
