"""For many classes, or probabilities of a clean model: tempered probabilities, passed through a sparse transition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from cvcoteach._checks import FloatArray, IntArray

Probs = npt.NDArray[np.floating]

N_LIKELY = 16
"""Classes that matter in a row: the most probable ones, besides the given."""

_FLOOR = 1e-6
_TINY = 1e-300
_STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
_MAX_ROUNDS = 30
_CONVERGED = 1e-5  # nats an image


@dataclass(frozen=True, eq=False)
class Likely:
    """The classes that matter in each row; the last column is the given label."""

    classes: npt.NDArray[np.int32]
    """(n, m) class numbers."""
    logs: npt.NDArray[np.float32]
    """(n, m) log-probabilities over that of the most probable class; -inf in a column that repeats the given label."""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """(n,) given labels."""
        return self.classes[:, -1]

    def __getitem__(self, rows: slice) -> Likely:
        return Likely(self.classes[rows], self.logs[rows])

    @staticmethod
    def of(labels: IntArray, probs: Probs) -> Likely:
        """The `N_LIKELY` most probable classes of each row of (n, K), and the given one."""
        n, k = probs.shape
        m = min(N_LIKELY, k)
        rows = np.arange(n)[:, None]
        top = np.argpartition(probs, k - m, axis=1)[:, k - m :] if m < k else np.broadcast_to(np.arange(k), (n, k))
        classes = np.concatenate([np.sort(top, axis=1), labels[:, None]], axis=1)
        values = probs[rows, classes].astype(np.float64)
        logs = np.log(np.maximum(values, _FLOOR * values.max(axis=1, keepdims=True)))
        logs -= logs.max(axis=1, keepdims=True)
        logs[:, :-1][classes[:, :-1] == labels[:, None]] = -np.inf
        return Likely(classes.astype(np.int32), logs.astype(np.float32))

    @staticmethod
    def concatenated(parts: Sequence[Likely]) -> Likely:
        """The rows of all parts."""
        return Likely(np.concatenate([p.classes for p in parts]), np.concatenate([p.logs for p in parts]))


@dataclass(frozen=True, eq=False)
class TemperatureModel:
    """P(given | image) = Σ c_k·T[k, given], c ∝ p^(1/temperature); T the counts, smoothed by one rate for all pairs."""

    temperature: float
    """What the log-probabilities are divided by."""
    noise: float
    """ε of the smooth transition (1 - ε)·1 + ε·given frequencies, in [0, 1]."""
    frequency: FloatArray
    """(K,) of the given labels."""
    pairs: IntArray
    """(p,) true·K + given of the pairs that occur, ascending."""
    counts: FloatArray
    """(p,) images expected in each."""
    totals: FloatArray
    """(K,) images expected in each true class."""
    strength: float
    """How many images the smooth transition counts for, in each class."""
    gain: float
    """Held-out log-likelihood of the given labels over that of the best model without noise, nats an image."""

    def transition(self) -> FloatArray:
        """T[i, j] = P(given = j | true = i), (K, K), rows sum to 1."""
        k = len(self.totals)
        result = np.tile(self.strength * self.noise * self.frequency, (k, 1))
        result[np.diag_indices(k)] += self.strength * (1 - self.noise)
        result.ravel()[self.pairs] += self.counts
        result /= self.totals[:, None] + self.strength
        return result

    def prior(self) -> FloatArray:
        """P(true = k), (K,), sums to 1."""
        return self.totals / self.totals.sum()

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """P(true | image, given), (m, K), of some of the fitted rows."""
        likely = Likely.of(labels, probs)
        result = np.zeros(probs.shape)
        found = self.likely_posterior(likely)
        rows = np.arange(len(labels))[:, None]
        result[rows, likely.classes[:, :-1]] = found[:, :-1]
        result[rows[:, 0], labels] = found[:, -1]
        return result

    def likely_posterior(self, likely: Likely) -> FloatArray:
        """P(true | image, given), (m, columns of `likely`), of some of the fitted rows; 0 where repeated."""
        c = _tempered(likely, 1 / self.temperature)
        cell = likely.classes.astype(np.int64) * len(self.totals) + likely.labels[:, None]
        at = np.searchsorted(self.pairs, cell).clip(max=len(self.pairs) - 1)
        counts = np.where(self.pairs[at] == cell, self.counts[at], 0)
        own = np.zeros(c.shape)
        for _ in range(3):  # to the fixed point: what an image says of T must not confirm the image
            own, _ = _posterior(self, likely, c, counts, own)
        return own


def fit_temperature(likely: Likely, n_classes: int) -> TemperatureModel:
    """Maximum likelihood of the given labels: temperature and smooth noise first, then T by EM.

    Each image is judged by a T counted from all others (its own share is taken out), so that the likelihood is a
    held-out one; it chooses how many images the smooth transition counts for. EM stops where a round gains
    less than 1e-5 nats an image, after 30 rounds at the latest.
    """
    n = len(likely.classes)
    frequency = (np.bincount(likely.labels, minlength=n_classes) + 1) / (n + n_classes)
    own_frequency = frequency[likely.labels]

    def smooth(params: FloatArray, noisy: bool) -> float:
        own = _tempered(likely, np.exp(params[0]))[:, -1]
        noise = 1 / (1 + np.exp(-params[1])) if noisy else 0.0
        return float(-np.log(np.maximum((1 - noise) * own + noise * own_frequency, _TINY)).mean())

    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 60}
    with_noise = minimize(smooth, [0.0, -2.0], args=(True,), method="Nelder-Mead", options=options)
    without = minimize(smooth, [0.0, 0.0], args=(False,), method="Nelder-Mead", options=options)
    inverse, noise = np.exp(with_noise.x[0]), 1 / (1 + np.exp(-with_noise.x[1]))

    c = _tempered(likely, inverse)
    cell = likely.classes.astype(np.int64) * n_classes + likely.labels[:, None]
    pairs, at = np.unique(cell, return_inverse=True)
    at = at.reshape(cell.shape)
    best, best_value = None, -np.inf
    for strength in _STRENGTHS:
        counts: FloatArray = np.zeros(len(pairs))
        totals: FloatArray = np.zeros(n_classes)
        own: FloatArray = np.zeros(c.shape)
        value = -np.inf
        for _ in range(_MAX_ROUNDS):
            model = TemperatureModel(1 / inverse, noise, frequency, pairs, counts, totals, strength, 0.0)
            own, likelihood = _posterior(model, likely, c, counts[at], own)
            last, value = value, float(np.log(likelihood).mean())
            if value < last + _CONVERGED:
                break
            counts = np.bincount(at.ravel(), own.ravel(), minlength=len(pairs)).astype(np.float64)
            totals = np.bincount(pairs // n_classes, counts, minlength=n_classes).astype(np.float64)
        if value > best_value:
            best, best_value = model, value
    assert best is not None
    return replace(best, gain=best_value + float(without.fun))


def _tempered(likely: Likely, inverse: float) -> FloatArray:
    c = np.exp(inverse * likely.logs.astype(np.float64))
    c /= c.sum(axis=1, keepdims=True)
    return c


def _posterior(
    model: TemperatureModel, likely: Likely, c: FloatArray, counts: FloatArray, own: FloatArray | float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Posterior like `c` (n, m) and likelihood (n,); own: each image's own share in the counts, taken out."""
    labels = likely.labels
    smooth = np.broadcast_to(model.strength * model.noise * model.frequency[labels][:, None], c.shape).copy()
    smooth[:, -1] += model.strength * (1 - model.noise)
    transition = (np.maximum(counts - own, 0) + smooth) / (
        np.maximum(model.totals[likely.classes] - own, 0) + model.strength
    )
    joint = c * transition
    likelihood = np.maximum(joint.sum(axis=1), _TINY)
    return joint / likelihood[:, None], likelihood
