"""For few classes: calibrated probabilities of the true class, passed through a free noise transition."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from cvcoteach._validation import FloatArray, IntArray

Probs = npt.NDArray[np.floating]

_FLOOR = 1e-6  # of a probability: nobody's 1e-30 is meant as 1e-30, and its logarithm would outweigh all others
_TINY = 1e-300
_LIKELIER = 1e-4  # nats an image; less is no reason to prefer a start
_NAMING = 4.0
_LOGIT_SCALE = 3.0  # of T, for L-BFGS: rare confusions have small gradients
_RIDGES = (20.0, 100.0, 500.0)


@dataclass(frozen=True, eq=False)
class AffineModel:
    """P(given | image) = Σ c_i(image)·T[i, given], c = softmax(weights·f + bias).

    f: the log-probabilities and their squares. The noise adaptation layer of Goldberger & Ben-Reuven (ICLR 2017), on
    top of probabilities instead of a network.
    """

    weights: FloatArray
    """(K, 2K)."""
    bias: FloatArray
    """(K,)."""
    mixing: FloatArray
    """(K, K) P(given = j | hidden class i)."""
    share: FloatArray
    """(K,) of the images in each hidden class."""
    strength: float
    """Weight of the ridge that draws c towards the probabilities as given, in images."""
    gain: float
    """Held-out log-likelihood of the given labels over that of the best model without noise, nats an image."""

    @cached_property
    def names(self) -> FloatArray:
        """(K, K) P(hidden class i is the class named k): nearly the unit matrix unless most labels are wrong."""
        return soft_names(self.mixing)

    @property
    def temperature(self) -> float:
        """What the log-probabilities are divided by, in the mean over the classes."""
        k = len(self.bias)
        return float(k / np.trace(self.weights[:, :k]))

    def prior(self) -> FloatArray:
        """P(true = k), (K,), sums to 1."""
        return self.share @ self.names

    def transition(self) -> FloatArray:
        """T[i, j] = P(given = j | true = i), (K, K), rows sum to 1."""
        joint = (self.names * self.share[:, None]).T @ self.mixing
        return joint / joint.sum(axis=1, keepdims=True)

    def before_label(self, probs: Probs) -> FloatArray:
        """P(true | image), (m, K), of some rows."""
        return (self.names.T @ self._hidden(probs)).T

    def _hidden(self, probs: Probs) -> FloatArray:
        return _softmax(self.weights @ _features(probs) + self.bias[:, None])

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """P(true | image, given), (m, K), of some rows."""
        hidden = self._hidden(probs)
        hidden *= self.mixing[:, labels]
        hidden /= hidden.sum(axis=0)
        return (self.names.T @ hidden).T


def fit_affine(labels: IntArray, probs: Probs, weight: FloatArray) -> tuple[AffineModel, FloatArray, FloatArray]:
    """Maximum likelihood of the given labels, and how likely held-out labels are, with noise and without.

    labels: (n,) given, ascending; probs: (n, K); weight: (n,) how many images a row stands for.
    The log-likelihoods are those of rows 1, 3, 5, …, by models that did not see them; without noise: T = 1.

    L-BFGS on weights, bias and the logits of T, from two starts: the confident joint, and k-means clusters of the
    log-probabilities, which find a class even where few of its labels are right. 40 steps each on every other row; the
    likelier goes on, with the ridge towards c = p that predicts the rest best; then 80 steps on all rows.
    Stops earlier where a step gains less than 1e-9 of the likelihood.
    """
    k = probs.shape[1]
    with threadpool_limits(1, user_api="blas"):  # these products are too small to share: threads cost 50 times as much
        x = _features(probs)
        seen = _Likelihood(x[:, ::2].copy(), labels[::2], weight[::2], k)
        unseen = _Likelihood(x[:, 1::2].copy(), labels[1::2], weight[1::2], k)
        starts = (confident_transition(labels, probs), _cluster_transition(labels, x[:k]))
        best, other = (seen.maximise(seen.start(start), _RIDGES[0], steps=40) for start in starts)
        if seen.mean(other) > seen.mean(best) + _LIKELIER:
            best = other
        candidates = [best, *(seen.maximise(best, ridge, steps=40) for ridge in _RIDGES[1:])]
        chosen = int(np.argmax([unseen.mean(params) for params in candidates]))
        no_noise = seen.maximise(seen.start(None), _RIDGES[chosen], steps=40)
        everything = _Likelihood(x, labels, weight, k)
        weights, bias, mixing = everything.unpack(everything.maximise(candidates[chosen], _RIDGES[chosen], steps=80))
        share = _softmax(weights @ x + bias[:, None]) @ everything.weight
        model = AffineModel(weights, bias, mixing, share, _RIDGES[chosen], 0.0)
        return model, unseen.values(candidates[chosen]), unseen.values(no_noise)


class _Likelihood:
    """Mean log-likelihood of given labels as a function of one parameter vector, with its gradient."""

    def __init__(self, x: FloatArray, labels: IntArray, weight: FloatArray, n_classes: int) -> None:
        """x: (2K, n) features; labels: (n,) ascending; weight: (n,)."""
        self.x, self.labels, self.k = x, labels, n_classes
        self.x_rows = np.ascontiguousarray(x.T)
        self.total = weight.sum()
        self.weight = weight / self.total
        self.present, self.first = np.unique(labels, return_index=True)
        self.identity = np.eye(n_classes, len(x))
        # one image's worth, half of it on the diagonal: keeps T defined where a class never occurs
        self.prior = (np.eye(n_classes) + 1 / n_classes) / 2 / self.total

    def start(self, transition: FloatArray | None) -> FloatArray:
        """Parameters of c = p with that transition; None stands for no noise and stays so."""
        logits = np.empty(0) if transition is None else np.log(np.maximum(transition, 1e-4)).ravel() / _LOGIT_SCALE
        return np.concatenate([self.identity.ravel(), np.zeros(self.k), logits])

    def unpack(self, params: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Weights (K, 2K), bias (K,), T (K, K)."""
        k, size = self.k, self.identity.size
        logits = params[size + k :].reshape(-1, k)
        mixing = _softmax(_LOGIT_SCALE * logits.T).T if len(logits) else np.eye(k)
        return params[:size].reshape(k, -1), params[size : size + k], mixing

    def values(self, params: FloatArray) -> FloatArray:
        """Log-likelihood of each row, (n,)."""
        weights, bias, mixing = self.unpack(params)
        joint = _softmax(weights @ self.x + bias[:, None]) * mixing[:, self.labels]
        return np.log(np.maximum(joint.sum(axis=0), _TINY))

    def mean(self, params: FloatArray) -> float:
        """Mean log-likelihood, nats an image."""
        return float(self.values(params) @ self.weight)

    def maximise(self, params: FloatArray, ridge: float, steps: int) -> FloatArray:
        """Parameters after at most `steps` of L-BFGS."""
        options = {"maxiter": steps, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-7}
        result = minimize(self._loss, params, args=(ridge,), jac=True, method="L-BFGS-B", options=options)
        return np.asarray(result.x)

    def _loss(self, params: FloatArray, ridge: float) -> tuple[float, FloatArray]:
        weights, bias, mixing = self.unpack(params)
        c = _softmax(weights @ self.x + bias[:, None])
        joint = mixing[:, self.labels]
        joint *= c
        likelihood = np.maximum(joint.sum(axis=0), _TINY)
        joint /= likelihood
        c -= joint  # the gradient of a mixture: what the softmax says less what the label says
        c *= self.weight
        away = weights - self.identity
        pull = ridge / self.total / self.k
        loss = -np.log(likelihood) @ self.weight + pull * (away**2).sum()
        gradient = [(c @ self.x_rows + 2 * pull * away).ravel(), c.sum(axis=1)]
        if len(params) > weights.size + self.k:
            joint *= self.weight
            counts = self.prior.copy()
            counts[:, self.present] += np.add.reduceat(joint, self.first, axis=1)
            loss -= (self.prior * np.log(np.maximum(mixing, _TINY))).sum()
            gradient.append(_LOGIT_SCALE * (counts.sum(axis=1, keepdims=True) * mixing - counts).ravel())
        return float(loss), np.concatenate(gradient)


def soft_names(mixing: FloatArray) -> FloatArray:
    """P(hidden class i is the class named k), (K, K), rows and columns sum to 1.

    The likelihood does not change when hidden classes trade names. A name is the likelier the more of its labels are
    right: under a prior T[k, k]^4 a one-to-one naming has weight Π mixing[i, name(i)]^4; Sinkhorn's scaling
    approximates the share of the namings that call i by the name k. (200 scalings, far past convergence.)
    """
    names = np.maximum(mixing, _FLOOR) ** _NAMING
    for _ in range(200):
        names /= names.sum(axis=0)
        names /= names.sum(axis=1, keepdims=True)
    return names


def confident_transition(labels: IntArray, probs: Probs) -> FloatArray:
    """T from the confident joint (Northcutt et al., 2021), columns scaled to the given counts, (K, K)."""
    n, k = probs.shape
    counts = np.bincount(labels, minlength=k)
    own = probs[np.arange(n), labels]
    threshold = np.where(counts > 0, np.bincount(labels, own, minlength=k) / np.maximum(counts, 1), np.inf)
    above = np.where(probs >= threshold, probs, -1)
    confident = above.max(axis=1) >= 0
    cell = above.argmax(axis=1)[confident] * k + labels[confident]
    joint = np.bincount(cell, minlength=k * k).reshape(k, k).astype(np.float64)
    return _as_transition(joint / np.maximum(joint.sum(axis=0), 1) * counts)


def _cluster_transition(labels: IntArray, logs: FloatArray) -> FloatArray:
    """T from k-means of the directions of the centred log-probabilities (K, n), clusters named one to one."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans

    k, n = logs.shape
    points = (logs / np.maximum(np.linalg.norm(logs, axis=0), 1e-12)).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than classes: empty clusters do no harm here
        means = KMeans(min(k, n), n_init=3, random_state=0).fit(points[:: max(1, n // 5000)])
    joint = np.bincount(means.predict(points) * k + labels, minlength=k * k).reshape(k, k) + 0.5
    _, name = linear_sum_assignment(-np.log(joint / joint.sum(axis=1, keepdims=True)))
    named = np.empty_like(joint)
    named[name] = joint
    return _as_transition(named)


def _as_transition(joint: FloatArray) -> FloatArray:
    smoothed = joint + (np.eye(len(joint)) + 1 / len(joint)) / 2
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def _features(probs: Probs) -> FloatArray:
    """(2K, n): log-probabilities, centred for each image, and their squares, scaled to a like size."""
    logs = np.log(np.maximum(probs.T.astype(np.float64), _FLOOR))
    logs -= logs.mean(axis=0)
    return np.concatenate([logs, logs**2 / 10])


def _softmax(logits: FloatArray) -> FloatArray:
    """Over the first axis, in place."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits
