"""The noise of one split of a dataset, as a multiple of that of another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import minimize_scalar

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import TINY, NoiseModel, Probs, chunks
from cvcoteach.noise_model.sparse_transition import dense

_UNIFORM = 0.1
"""Share of uniform noise among the wrong labels: what another split lacks may happen here."""
_LEAST_RATE, _MOST_RATE = 0.002, 0.95
"""Bounds of the share of wrong labels of a class."""
_BOUNDS = (-6.0, 4.0)
"""Of the logarithm of the factor."""
_SPREAD = 2.0
"""Standard deviation of that logarithm before any label is seen."""
_VALUES = 4_000_000
_ROWS = 20_000


@dataclass(frozen=True, eq=False)
class ScaledNoiseModel:
    """Another split's model of what the images show, with its transition scaled to other labels."""

    base: NoiseModel
    """Of the split that models learned from."""
    factor: float
    """How many times as many labels are wrong here."""

    @cached_property
    def _transition(self) -> FloatArray:
        return _scaled(dense(self.base.transition()), self.factor)

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """Return P(true = k | image, given label), (m, K), rows sum to 1."""
        result = self.base.before_label(probs) * self._transition[:, labels].T
        totals = result.sum(axis=1, keepdims=True)
        return np.asarray(np.where(totals > TINY, result / np.maximum(totals, TINY), self.base.before_label(probs)))

    def before_label(self, probs: Probs) -> FloatArray:
        """Return P(true = k | image), (m, K), rows sum to 1."""
        return self.base.before_label(probs)

    def transition(self) -> FloatArray:
        """Return T[i, j] = P(given = j | true = i), (K, K), rows sum to 1."""
        return self._transition

    def prior(self) -> FloatArray:
        """Return P(true = k), (K,), of the other split."""
        return self.base.prior()

    def describe(self) -> str:
        """Return what was fitted."""
        return f"{self.base.describe()}, its noise times {self.factor:.2g}"


def fit_scaled(base: NoiseModel, labels: IntArray, probs: Probs) -> ScaledNoiseModel:
    """Return the model that explains other labels by a multiple of the noise, the most probable one.

    One number is fitted, so that a hundred labels tell it: with a transition of their own, a few hundred labels of test
    were explained far worse than by the noise of train (digits of scikit-learn with 60 to 500 test images, Gaussian
    classes with 500 to 4,000).

    Args:
        base: Of the split that the models of the probabilities learned from.
        labels: (n,) given, 0..K-1; at most 20,000 are looked at.
        probs: (n, K) by these models.
    """
    n, k = probs.shape
    rows = slice(None, None, max(1, -(-n // _ROWS), -(-n * k // _VALUES)))
    labels, probs = labels[rows], probs[rows].clip(0, 1)
    shown = np.concatenate([base.before_label(probs[part]) for part in chunks(*probs.shape)])
    transition = dense(base.transition())

    def cost(log_factor: float) -> float:
        explained = np.einsum("ik,ki->i", shown, _scaled(transition, float(np.exp(log_factor)))[:, labels])
        return float(-np.log(np.maximum(explained, TINY)).sum() + (log_factor / _SPREAD) ** 2 / 2)

    found = minimize_scalar(cost, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-3})
    return ScaledNoiseModel(base, float(np.exp(found.x)))


def _scaled(transition: FloatArray, factor: float) -> FloatArray:
    """Return T with so many times as many wrong labels in each class, a tenth of which go anywhere."""
    k = len(transition)
    elsewhere = 1 - np.eye(k)
    off = transition * elsewhere
    rate = off.sum(axis=1)
    pattern = np.where(rate[:, None] > TINY, off / np.maximum(rate, TINY)[:, None], elsewhere / (k - 1))
    pattern = (1 - _UNIFORM) * pattern + _UNIFORM * elsewhere / (k - 1)
    rate = np.maximum((1 - _UNIFORM) * rate + _UNIFORM * rate.mean(), _LEAST_RATE)
    wrong = np.minimum(rate * factor, _MOST_RATE)
    return np.eye(k) * (1 - wrong) + pattern * wrong[:, None]
