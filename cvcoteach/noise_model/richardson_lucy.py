"""For probabilities that are calibrated to the given labels already: p = c·T, undone by geometry alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from cvcoteach._validation import FloatArray, IntArray

Probs = npt.NDArray[np.floating]

_FLOOR = 1e-6
_TINY = 1e-300
_ANCHORS = 0.03
_STEPS = (3, 10, 30)
_MAX_STEPS = 100
_CONVERGED = 1e-5


@dataclass(frozen=True, eq=False)
class DeconvolvedModel:
    """P(given | image) = p = c·T, where T spans the smallest simplex around the probabilities."""

    mixing: FloatArray
    """(K, K) T[i, j] = P(given = j | true = i)."""
    share: FloatArray
    """(K,) P(true = i)."""
    strength: float
    """Multiplicative steps from the prior towards c: early stopping is the regulariser."""
    gain: float
    """Held-out log-likelihood of the given labels over that of the best model without noise, nats an image."""

    temperature = 1.0

    def prior(self) -> FloatArray:
        """P(true = k), (K,), sums to 1."""
        return self.share

    def transition(self) -> FloatArray:
        """T[i, j] = P(given = j | true = i), (K, K), rows sum to 1."""
        return self.mixing

    def before_label(self, probs: Probs) -> FloatArray:
        """P(true | image), (m, K), of some rows."""
        return _deconvolved(_columns(probs), self.mixing, self.share, round(self.strength)).T

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """P(true | image, given), (m, K), of some rows."""
        joint = _deconvolved(_columns(probs), self.mixing, self.share, round(self.strength))
        joint *= self.mixing[:, labels]
        joint /= np.maximum(joint.sum(axis=0), _TINY)
        return joint.T


def fit_deconvolved(labels: IntArray, probs: Probs, weight: FloatArray) -> tuple[DeconvolvedModel, FloatArray]:
    """The smallest simplex that holds the probabilities, and how likely held-out labels are.

    labels: (n,) given; probs: (n, K); weight: (n,) how many images a row stands for.
    The log-likelihoods are those of rows 1, 3, 5, …, by a model that did not see them.

    T starts inside: its row i is the mean of the 3 % of rows that are surest of class i. Multiplicative updates of T
    and c (Lee & Seung, Nature 1999: maximum likelihood of p ≈ c·T) widen it until it explains p; they stop where one
    gains less than 1e-5 nats an image, after 100 at the latest. Then c takes steps from the prior (Richardson 1972,
    Lucy 1974): 3, 10 or 30, whichever predicts the held-out labels best.
    """
    with threadpool_limits(1, user_api="blas"):
        columns = _columns(probs)
        mixing, shares = _enclosing_simplex(columns[:, ::2], weight[::2])
        held_out = []
        for steps in _STEPS:
            c = _deconvolved(columns[:, 1::2], mixing, shares, steps)
            held_out.append(np.log(np.maximum((c * mixing[:, labels[1::2]]).sum(axis=0), _TINY)))
        chosen = int(np.argmax([values @ weight[1::2] for values in held_out]))
        mixing, shares = _enclosing_simplex(columns, weight)
    return DeconvolvedModel(mixing, shares, _STEPS[chosen], 0.0), held_out[chosen]


def _enclosing_simplex(columns: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """T (K, K) and the shares of the classes (K,), from probabilities (K, n)."""
    k, n = columns.shape
    n_anchors = max(1, round(_ANCHORS * n))
    mixing = np.stack([columns[:, np.argsort(-row, kind="stable")[:n_anchors]].mean(axis=1) for row in columns])
    c = _deconvolved(columns, mixing, np.full(k, 1 / k), 20)
    last = -np.inf
    for _ in range(_MAX_STEPS):
        explained = mixing.T @ c
        value = float((columns * np.log(explained)).sum(axis=0) @ weight / weight.sum())
        if value < last + _CONVERGED:
            break
        last = value
        ratio = columns / explained
        mixing = mixing * ((c * weight) @ ratio.T)
        mixing /= mixing.sum(axis=1, keepdims=True)
        c *= mixing @ (columns / (mixing.T @ c))
    return mixing, c @ weight / weight.sum()


def _deconvolved(columns: FloatArray, mixing: FloatArray, shares: FloatArray, steps: int) -> FloatArray:
    """c (K, n), columns sum to 1, with c·T nearer to the probabilities (K, n) at every step."""
    c = np.repeat(shares[:, None], columns.shape[1], axis=1)
    ratio = np.empty_like(c)
    for _ in range(steps):
        np.matmul(mixing.T, c, out=ratio)
        np.divide(columns, ratio, out=ratio)
        c *= mixing @ ratio
    return c


def _columns(probs: Probs) -> FloatArray:
    """(K, n), above 0, columns sum to 1."""
    columns = np.maximum(probs.T.astype(np.float64), _FLOOR)
    columns /= columns.sum(axis=0)
    return columns
