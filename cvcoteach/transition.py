"""What wrong labels do: the noise transition, and the posterior over true labels that undoes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cvcoteach._checks import FloatArray, InputError, IntArray, PredProbs, as_labels, as_pred_probs, near

TrainedOn = Literal["noisy", "clean"]

_TINY = 1e-12
_CHUNK_VALUES = 1 << 18
_SMOOTHING = 0.05
_ROUNDS = 3
_STEPS = 5


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the given labels and out-of-sample probabilities say about the true labels."""

    label_quality: FloatArray
    """(n,) probability that the given label is right, in [0, 1]."""
    suggested: IntArray
    """(n,) the most probable true class."""
    suggested_prob: FloatArray
    """(n,) its probability, in [0, 1]."""
    transition: FloatArray
    """(K, K) T[i, j] = P(given = j | true = i), rows sum to 1."""
    prior: FloatArray
    """(K,) P(true = i)."""
    temperature: float
    """What the logarithms of the probabilities were divided by, > 0."""
    strength: int
    """Multiplicative steps of deconvolution; 0 for none."""
    fits: bool
    """Whether the transition model predicts held-out given labels; if not, `label_quality` ranks as self-confidence."""
    note: str
    """One sentence: what was chosen, or why it fell back."""
    held_out_gain: float
    """Held-out log-likelihood of the given labels over that of the probabilities alone, nats an image."""
    trained_on: TrainedOn

    @property
    def wrong(self) -> FloatArray:
        """(n,) probability that the given label is wrong, in [0, 1]."""
        return 1 - self.label_quality

    def rows(self, labels: IntArray, pred_probs: npt.NDArray[np.floating]) -> Iterator[tuple[slice, FloatArray]]:
        """The posterior (rows, K) of the same labels and probabilities, chunk by chunk."""
        for rows in _chunks(*pred_probs.shape):
            p = _tempered(pred_probs[rows], self.temperature)
            yield rows, _posterior(p, labels[rows], self.transition, self.prior, self.strength)


def noise_transition(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> FloatArray:
    """T[i, j] = P(given = j | true = i), (K, K), rows sum to 1.

    labels: (n,) given; pred_probs: (n, K) out of sample, of a model trained on the given labels.
    """
    return fit_posterior(labels, pred_probs).transition


def label_posterior(labels: npt.ArrayLike, pred_probs: npt.ArrayLike, *, trained_on: TrainedOn = "noisy") -> PredProbs:
    """P(true = k | image, given label), (n, K) float32, rows sum to 1. Arguments as of `fit_posterior`."""
    probs = np.asarray(pred_probs)
    fitted = fit_posterior(labels, probs, trained_on=trained_on)
    result = np.empty(probs.shape, np.float32)
    for rows, posterior in fitted.rows(np.asarray(labels).astype(np.int64), probs):
        result[rows] = posterior
    return result


def fit_posterior(labels: npt.ArrayLike, pred_probs: npt.ArrayLike, *, trained_on: TrainedOn = "noisy") -> Posterior:
    """Undo the label noise in out-of-sample probabilities (cvcoteach's method, section 4).

    labels: (n,) given, whole numbers 0..K-1. pred_probs: (n, K), each row by a model that did not train on it.
    trained_on: "noisy" if the models saw given labels (plain K-fold), "clean" if only selected, clean ones.

    Raises InputError for labels or probabilities that do not fit.
    """
    if trained_on not in ("noisy", "clean"):
        raise InputError(f"trained_on is {trained_on!r}; {near(str(trained_on), ('noisy', 'clean'))}")
    array = np.asarray(pred_probs)
    if array.ndim != 2:
        raise InputError(f"pred_probs has shape {array.shape}; it takes one row an image, shape (n, K).")
    y, k = as_labels(labels, array.shape[1])
    probs = as_pred_probs(array, (len(y), k))
    transition, prior = _confident_transition(y, probs)
    steps = _STEPS if trained_on == "noisy" else 0
    for _ in range(_ROUNDS):
        joint = np.zeros((k, k))
        for rows in _chunks(*probs.shape):
            j = _posterior(_tempered(probs[rows], 1.0), y[rows], transition, prior, steps)
            np.add.at(joint.T, y[rows], j)
        transition, prior = _normalised(joint)
    quality, best, best_prob = np.empty(len(y)), np.empty(len(y), np.int64), np.empty(len(y))
    for rows in _chunks(*probs.shape):
        j = _posterior(_tempered(probs[rows], 1.0), y[rows], transition, prior, steps)
        quality[rows] = j[np.arange(len(j)), y[rows]]
        best[rows] = j.argmax(axis=1)
        best_prob[rows] = j.max(axis=1)
    return Posterior(quality, best, best_prob, transition, prior, 1.0, steps, True, "", 0.0, trained_on)


def _chunks(n: int, k: int) -> Iterator[slice]:
    size = max(1, _CHUNK_VALUES // k)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _tempered(probs: npt.NDArray[np.floating], temperature: float) -> FloatArray:
    p = np.maximum(probs.astype(np.float64), _TINY)
    if temperature != 1:
        p **= 1 / temperature
    return p / p.sum(axis=1, keepdims=True)


def _confident_transition(labels: IntArray, probs: PredProbs) -> tuple[FloatArray, FloatArray]:
    """T and prior from the confident joint (Northcutt et al. 2021): counts of confident class and given label."""
    n, k = probs.shape
    counts = np.bincount(labels, minlength=k)
    own = probs[np.arange(n), labels].astype(np.float64)
    sums = np.bincount(labels, own, minlength=k)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    joint = np.zeros((k, k))
    for rows in _chunks(n, k):
        p = np.where(probs[rows] >= thresholds, probs[rows], -1)
        confident = p.max(axis=1) >= 0
        np.add.at(joint, (p.argmax(axis=1)[confident], labels[rows][confident]), 1)
    return _normalised(joint + np.eye(k))


def _normalised(joint: FloatArray) -> tuple[FloatArray, FloatArray]:
    """T with smoothed rows and the prior, from the joint counts of true class and given label."""
    k = len(joint)
    counts = joint.sum(axis=1, keepdims=True)
    transition = np.where(counts > 0, joint / np.maximum(counts, _TINY), np.eye(k))
    transition = (1 - _SMOOTHING) * transition + _SMOOTHING / k
    prior = np.maximum(counts[:, 0], _TINY)
    return transition, prior / prior.sum()


def _posterior(p: FloatArray, labels: IntArray, transition: FloatArray, prior: FloatArray, steps: int) -> FloatArray:
    """J(x, k) ∝ c(x, k)·T[k, given], with c = p deconvolved by `steps` multiplicative steps from the prior."""
    c = p
    if steps:
        c = np.broadcast_to(prior, p.shape)
        for _ in range(steps):
            c = c * ((p / (c @ transition)) @ transition.T)
    j = c * transition[:, labels].T
    return j / j.sum(axis=1, keepdims=True)
