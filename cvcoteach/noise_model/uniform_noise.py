"""Uniform noise: the probabilities are believed, and every label is as likely to be wrong as any other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import FLOOR, TINY, Probs

_N_ESTIMATES = 20
_START = 0.1


@dataclass(frozen=True, eq=False)
class UniformNoiseModel:
    """c = p, and one rate of wrong labels for all classes: as much as a handful of wrong labels can teach.

    It ranks the labels as their self-confidence p(given) does: no pair of classes is more suspect than another.
    """

    rate: float
    """P(given is wrong), in [0, 1]."""
    share: FloatArray
    """(K,) P(true = i)."""

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """Return P(true | image, given), (m, K)."""
        result = self.before_label(probs)
        each = np.arange(len(labels))
        own = result[each, labels] * (1 - self.rate)
        result *= self.rate / max(1, result.shape[1] - 1)
        result[each, labels] = own
        result /= np.maximum(result.sum(axis=1, keepdims=True), TINY)
        return result

    def before_label(self, probs: Probs) -> FloatArray:
        """Return P(true | image), (m, K): the probabilities."""
        result = np.maximum(probs, FLOOR, dtype=np.float64)
        result /= result.sum(axis=1, keepdims=True)
        return result

    def transition(self) -> FloatArray:
        """Return T[i, j] = P(given = j | true = i), (K, K)."""
        k = len(self.share)
        result = np.full((k, k), self.rate / max(1, k - 1))
        np.fill_diagonal(result, 1 - self.rate)
        return result

    def prior(self) -> FloatArray:
        """Return P(true = k), (K,)."""
        return self.share

    def describe(self) -> str:
        """Return what was fitted."""
        return "uniform noise"


def fit_uniform_noise(labels: IntArray, probs: Probs, weight: FloatArray) -> UniformNoiseModel:
    """Estimate the rate by twenty steps of EM.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.
        weight: (n,) how many images each row stands for.

    Returns:
        The fitted model.
    """
    n, k = probs.shape
    part = weight / weight.sum()
    columns = np.maximum(probs, FLOOR, dtype=np.float64)
    columns /= columns.sum(axis=1, keepdims=True)
    own = columns[np.arange(n), labels]
    others = (1 - own) / max(1, k - 1)
    rate = _START
    for _ in range(_N_ESTIMATES):
        wrong = rate * others
        rate = float(part @ (wrong / np.maximum((1 - rate) * own + wrong, TINY)))
    return UniformNoiseModel(rate, part @ columns)
