"""The Richardson-Lucy member: takes the probabilities literally, p = c·T, and deconvolves them by EM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import FLOOR, TINY, Probs, confident_transition, shrunk

Float32Array = npt.NDArray[np.float32]

N_STEPS = 10
"""Multiplicative steps from the prior towards c: early stopping is the regulariser."""

_N_ESTIMATES = 5
_UNIFORM, _UNINFORMATIVE = 30.0, 20.0  # images


@dataclass(frozen=True, eq=False)
class RichardsonLucyModel:
    """P(given | image) = p = c·T; c by a few multiplicative steps from the prior.

    References:
        Richardson, J. Opt. Soc. Am. 1972; Lucy, Astron. J. 1974; Dawid & Skene, Appl. Stat. 1979 (EM of T).
    """

    mixing: FloatArray
    """(K, K) T[i, j] = P(given = j | true = i)."""
    share: FloatArray
    """(K,) P(true = i)."""

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """Return P(true | image, given), (m, K)."""
        return _joint_posterior(_columns(probs), labels, self.mixing, self.share).T.astype(np.float64)

    def before_label(self, probs: Probs) -> FloatArray:
        """Return P(true | image), (m, K)."""
        c = deconvolved(_columns(probs), self.mixing, self.share).T.astype(np.float64)
        return c / c.sum(axis=1, keepdims=True)

    def transition(self) -> FloatArray:
        """Return T[i, j] = P(given = j | true = i), (K, K)."""
        return self.mixing

    def prior(self) -> FloatArray:
        """Return P(true = k), (K,)."""
        return self.share

    def describe(self) -> str:
        """Return what was fitted."""
        return f"Richardson-Lucy deconvolution in {N_STEPS} steps"


def fit_richardson_lucy(labels: IntArray, probs: Probs, weight: FloatArray) -> RichardsonLucyModel:
    """Fit T by EM: deconvolve with T, count the posterior of the given labels for the next T, five times.

    It starts at the confident joint. Thirty images of each class count as evidence of uniform noise, and twenty as
    evidence that labels are drawn from all classes: 60 images per class say less about T than 2,000 do.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.
        weight: (n,) how many images each row stands for.

    Returns:
        The fitted model.
    """
    k = probs.shape[1]
    columns = _columns(probs)
    places = np.zeros((k, len(labels)), columns.dtype)
    places[labels, np.arange(len(labels))] = weight
    counts = confident_transition(labels, probs, weight) * (weight.sum() / k)
    share: FloatArray = np.full(k, 1 / k)
    mixing = _regularised(counts)
    for _ in range(_N_ESTIMATES):
        counts = (_joint_posterior(columns, labels, mixing, share) @ places.T).astype(np.float64)
        share = counts.sum(axis=1) / counts.sum()
        mixing = _regularised(counts)
    return RichardsonLucyModel(mixing, np.maximum(share, TINY))


def _joint_posterior(columns: Float32Array, labels: IntArray, mixing: FloatArray, share: FloatArray) -> Float32Array:
    """Return (K, n), columns sum to 1."""
    joint = deconvolved(columns, mixing, share)
    joint *= mixing.astype(joint.dtype)[:, labels]
    joint /= np.maximum(joint.sum(axis=0), np.finfo(joint.dtype).tiny)
    return joint


def _regularised(counts: FloatArray) -> FloatArray:
    """Return T (K, K) from counts of true and given class (K, K), shrunk towards uniform noise and random labels."""
    total = np.maximum(counts.sum(axis=1), TINY)
    mixing = shrunk(counts / total[:, None], total, _UNIFORM)
    return (mixing * total[:, None] + _UNINFORMATIVE / len(counts)) / (total[:, None] + _UNINFORMATIVE)


def deconvolved(columns: Float32Array, mixing: FloatArray, share: FloatArray) -> Float32Array:
    """Return c such that c·T comes nearer to the probabilities at every step.

    Args:
        columns: (K, n) probabilities, columns sum to 1.
        mixing: (K, K) T.
        share: (K,) the prior, where c starts.

    Returns:
        (K, n), columns sum to 1.
    """
    transition = mixing.astype(np.float32)
    c = np.repeat(share.astype(np.float32)[:, None], columns.shape[1], axis=1)
    ratio = np.empty_like(c)
    step = np.empty_like(c)
    for _ in range(N_STEPS):
        np.matmul(transition.T, c, out=ratio)
        np.divide(columns, ratio, out=ratio)
        np.matmul(transition, ratio, out=step)
        c *= step
    return c


def _columns(probs: Probs) -> Float32Array:
    """Return (K, n), above 0, columns sum to 1."""
    columns = np.maximum(probs.T, FLOOR, dtype=np.float32)
    columns /= columns.sum(axis=0)
    return columns
