"""The affine member: calibrated probabilities of the true class, passed through a free noise transition."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment, minimize

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import FLOOR, TINY, Probs, as_transition, confident_transition, softmax

Float32Array = npt.NDArray[np.float32]

_LIKELIER = 1e-4  # nats per image; a smaller gain is no reason to prefer a start
_NAMING = 4.0
_LOGIT_SCALE = 3.0  # of T, for L-BFGS: rare confusions have small gradients
RIDGE, RIDGE_PER_ROW = 5.0, 1e-3
"""Weight of the ridge that draws c towards the probabilities as they came, in images: five, or .001 of the rows."""

RARE, COMMON, RARE_IMAGES = 0.25, 0.5, 20.0
"""A class given to fewer labels than a quarter of the average gets 20 images that were labeled right and 20 labeled at
random as a prior of its row of T; from half the average on it gets none.

Without them the likelihood uses up the hidden class of a rare one to describe a common one better. (Chosen on draws
10-14 of examples/benchmarks/rare_classes.py.)
"""

_STEPS_TRIED, _STEPS = 40, 80
_TINY32 = np.float32(1e-30)


@dataclass(frozen=True, eq=False)
class AffineModel:
    """P(given | image) = Σ c_i(image)·T[i, given], c = softmax(weights·f + bias).

    f: the log-probabilities and their squares.

    References:
        Goldberger & Ben-Reuven, Training deep neural networks using a noise adaptation layer, ICLR 2017: this is such
        a layer, on top of probabilities instead of a network.
    """

    weights: FloatArray
    """(K, 2K)."""
    bias: FloatArray
    """(K,)."""
    mixing: FloatArray
    """(K, K) P(given = j | hidden class i)."""
    share: FloatArray
    """(K,) of the images in each hidden class."""

    @cached_property
    def names(self) -> FloatArray:
        """(K, K) P(hidden class i is the class named k): nearly the unit matrix unless most labels are wrong."""
        return soft_names(self.mixing)

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """Return P(true | image, given), (m, K)."""
        hidden = self._hidden(probs)
        hidden *= self.mixing[:, labels]
        hidden /= hidden.sum(axis=0)
        return (self.names.T @ hidden).T

    def before_label(self, probs: Probs) -> FloatArray:
        """Return P(true | image), (m, K)."""
        return (self.names.T @ self._hidden(probs)).T

    def transition(self) -> FloatArray:
        """Return T[i, j] = P(given = j | true = i), (K, K)."""
        joint = (self.names * self.share[:, None]).T @ self.mixing
        return joint / joint.sum(axis=1, keepdims=True)

    def prior(self) -> FloatArray:
        """Return P(true = k), (K,)."""
        return self.share @ self.names

    def describe(self) -> str:
        """Return what was fitted."""
        return "affine calibration of all classes"

    def with_mixing(self, mixing: FloatArray) -> AffineModel:
        """Return the same calibration with another P(given | hidden class), (K, K)."""
        return replace(self, mixing=mixing)

    def _hidden(self, probs: Probs) -> FloatArray:
        logits = self.weights @ features(probs) + self.bias[:, None]
        softmax(logits)
        return logits


@dataclass(frozen=True, eq=False)
class AffineFit:
    """The model, and how well held-out targets are predicted, in nats per image."""

    model: AffineModel
    with_noise: FloatArray
    """(m,) log-likelihood by an affine model that was not fitted to them."""
    calibrated: FloatArray
    """(m,) by such a model without noise, T = 1."""
    unchanged: FloatArray
    """(m,) by the probabilities as they came."""
    weight: FloatArray
    """(m,) how many images each of these stands for."""


def fit_affine(probs: Probs, labels: IntArray, targets: FloatArray, weight: FloatArray, half: IntArray) -> AffineFit:
    """Fit calibration and T to the targets by maximum likelihood.

    L-BFGS on weights, bias and the logits of T, from two starts: the confident joint, and k-means clusters of the
    log-probabilities, which find a class even where few of its labels are right. Each takes 40 steps on one half of the
    rows; the likelier one predicts the other half and continues for 80 steps on all rows.

    Args:
        probs: (n, K) out of sample.
        labels: (n,) given.
        targets: (K, n) what to predict, as `label_targets` returns it.
        weight: (n,) how many images each row stands for.
        half: (n,) 0 or 1, the half of the data that each row is in.

    Returns:
        The fit.
    """
    k = probs.shape[1]
    x = features(probs)
    tried, judged = (np.flatnonzero(half == part) for part in (0, 1))
    seen, unseen = (_Likelihood(x[:, rows], targets[:, rows], weight[rows]) for rows in (tried, judged))
    starts = (
        confident_transition(labels[tried], probs[tried], weight[tried]),
        cluster_transition(labels[tried], x[:k, tried]),
    )
    best, other = (seen.maximise(seen.start(start), _STEPS_TRIED) for start in starts)
    if seen.mean(other) > seen.mean(best) + _LIKELIER:
        best = other
    no_noise = seen.maximise(seen.start(None), _STEPS_TRIED)
    with_noise, calibrated = unseen.values(best), unseen.values(no_noise)
    del seen, unseen  # each as large as half of what follows
    everything = _Likelihood(x, targets, weight)
    del x
    weights, bias, mixing = everything.unpack(everything.maximise(best, _STEPS))
    del everything
    hidden = weights @ features(probs) + bias[:, None]
    softmax(hidden)
    share = hidden @ (weight / weight.sum())
    rows = np.maximum(probs[judged].T.astype(np.float64), FLOOR)
    unchanged = (targets[:, judged] * np.log(rows / rows.sum(axis=0))).sum(axis=0)
    return AffineFit(
        AffineModel(weights, bias, mixing, share),
        with_noise,
        calibrated,
        unchanged,
        weight[judged],
    )


class _Likelihood:
    """Mean log-likelihood of the targets as a function of one parameter vector, with its gradient."""

    def __init__(self, x: FloatArray, targets: FloatArray, weight: FloatArray) -> None:
        """x: (2K, n) features; targets: (K, n); weight: (n,)."""
        self.k = len(targets)
        self.x = np.ascontiguousarray(x, np.float32)
        self.x_rows = np.ascontiguousarray(self.x.T)
        self.targets = np.ascontiguousarray(targets, np.float32)
        self.total = float(weight.sum())
        self.pull = max(RIDGE, RIDGE_PER_ROW * len(weight)) / self.total / self.k
        self.weight = weight / self.total
        self.weight32 = self.weight.astype(np.float32)
        self.identity = np.eye(self.k, len(x))
        # one image's worth, half of it on the diagonal: keeps T defined where a class never occurs
        images = 0.5 + RARE_IMAGES * rarity(targets @ weight)
        self.prior = images[:, None] * (np.eye(self.k) + 1 / self.k) / self.total

    def start(self, transition: FloatArray | None) -> FloatArray:
        """Return the parameters of c = p with that transition; None for a model without noise."""
        logits = np.empty(0) if transition is None else np.log(np.maximum(transition, 1e-4)).ravel() / _LOGIT_SCALE
        return np.concatenate([self.identity.ravel(), np.zeros(self.k), logits])

    def unpack(self, params: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return weights (K, 2K), bias (K,) and T (K, K)."""
        k, size = self.k, self.identity.size
        mixing = _LOGIT_SCALE * params[size + k :].reshape(-1, k).T
        if mixing.size:
            softmax(mixing)
            return params[:size].reshape(k, -1), params[size : size + k], mixing.T
        return params[:size].reshape(k, -1), params[size : size + k], np.eye(k)

    def values(self, params: FloatArray) -> FloatArray:
        """Return the log-likelihood of each row, (n,)."""
        weights, bias, mixing = self.unpack(params)
        expected = mixing.T.astype(np.float32) @ self._classes(weights, bias)
        return (self.targets * np.log(np.maximum(expected, _TINY32))).sum(axis=0, dtype=np.float64)

    def mean(self, params: FloatArray) -> float:
        """Return the mean log-likelihood, in nats per image."""
        return float(self.values(params) @ self.weight)

    def maximise(self, params: FloatArray, steps: int) -> FloatArray:
        """Return the parameters after at most `steps` of L-BFGS."""
        options = {"maxiter": steps, "maxcor": 20, "ftol": 1e-8, "gtol": 1e-6}
        result = minimize(self._loss, params, jac=True, method="L-BFGS-B", options=options)
        return np.asarray(result.x)

    def _classes(self, weights: FloatArray, bias: FloatArray) -> Float32Array:
        c: Float32Array = weights.astype(np.float32) @ self.x
        c += bias.astype(np.float32)[:, None]
        softmax(c)
        return c

    def _loss(self, params: FloatArray) -> tuple[float, FloatArray]:
        weights, bias, mixing = self.unpack(params)
        transition = mixing.astype(np.float32)
        c = self._classes(weights, bias)
        expected = np.maximum(transition.T @ c, _TINY32)
        ratio = self.targets / expected
        away = weights - self.identity
        np.log(expected, out=expected)
        expected *= self.targets
        loss = -float(expected.sum(axis=0) @ self.weight) + self.pull * float((away**2).sum())
        ratio *= self.weight32
        error = transition @ ratio  # the gradient of a mixture: what the softmax says less what the label says
        error -= self.weight32
        error *= -c
        gradient = [
            (error @ self.x_rows).astype(np.float64).ravel() + 2 * self.pull * away.ravel(),
            error.sum(axis=1, dtype=np.float64),
        ]
        if len(params) > weights.size + self.k:
            counts = mixing * (c @ ratio.T) + self.prior
            loss -= float((self.prior * np.log(np.maximum(mixing, TINY))).sum())
            gradient.append(_LOGIT_SCALE * (counts.sum(axis=1, keepdims=True) * mixing - counts).ravel())
        return loss, np.concatenate(gradient)


def rarity(counts: FloatArray) -> FloatArray:
    """Return 1 for classes with at most a quarter of the average count, (K,), 0 from half of it on, linear between."""
    return np.clip((COMMON - counts / max(counts.mean(), TINY)) / (COMMON - RARE), 0, 1)


def soft_names(mixing: FloatArray) -> FloatArray:
    """Return P(hidden class i is the class named k), rows and columns sum to 1.

    The likelihood does not change when hidden classes trade names. A name is the likelier the more of its labels are
    right: under a prior T[k, k]^4 a one-to-one naming has weight Π mixing[i, name(i)]^4; Sinkhorn's scaling
    approximates the share of the namings that call i by the name k. (200 scalings, far past convergence.)

    Args:
        mixing: (K, K) P(given = j | hidden class i).

    Returns:
        (K, K).
    """
    names = np.maximum(mixing, FLOOR) ** _NAMING
    for _ in range(200):
        names /= names.sum(axis=0)
        names /= names.sum(axis=1, keepdims=True)
    return names


def cluster_transition(labels: IntArray, logs: FloatArray) -> FloatArray:
    """Estimate T from k-means of the directions of the centred log-probabilities, clusters named one to one.

    Args:
        labels: (n,) given.
        logs: (K, n) log-probabilities, centred per image.

    Returns:
        (K, K) T[i, j] = P(given = j | true = i).
    """
    from sklearn.cluster import KMeans  # takes seconds to import, and the command line's help reaches this module

    k, n = logs.shape
    points = (logs / np.maximum(np.linalg.norm(logs, axis=0), 1e-12)).T.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than classes: empty clusters do no harm here
        clusters = KMeans(min(k, n), n_init=3, random_state=0).fit(points[:: max(1, n // 5000)]).predict(points)
    joint = np.bincount(clusters * k + labels, minlength=k * k).reshape(k, k) + 0.5
    _, name = linear_sum_assignment(-np.log(joint / joint.sum(axis=1, keepdims=True)))
    named = np.empty_like(joint)
    named[name] = joint
    return as_transition(named)


def features(probs: Probs) -> FloatArray:
    """Return (2K, n): log-probabilities, centred per image, and their squares, scaled to a similar size."""
    n, k = probs.shape
    logs = probs.T.astype(np.float64)
    np.maximum(logs, FLOOR, out=logs)
    np.log(logs, out=logs)
    logs -= logs.mean(axis=0)
    both = np.empty((n, 2 * k)).T
    both[:k] = logs
    np.square(logs, out=logs)
    logs /= 10
    both[k:] = logs
    return both
