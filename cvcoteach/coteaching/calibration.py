"""How far to trust a classifier, without images of known class: held-out images, weighted by the posterior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from cvcoteach._validation import FloatArray, IntArray, PredProbs

LEAST_HELD_OUT, MOST_HELD_OUT = 50, 1000
"""Fewer images say nothing about a classifier, and more say hardly more."""
_SHARE = 20  # one image in so many
_BINS = 15
_TINY = 1e-12
_Z = 1.645  # a normal interval of 90 %
_COLDEST, _HOTTEST = 0.05, 20.0


def calibration_rows(labels: IntArray, usable: IntArray, seed: int) -> IntArray:
    """Return the images that are not trained on: one in twenty of each label, 1,000 at most; none if below 50.

    Args:
        labels: (n,) whole numbers from 0 on.
        usable: (m,) the images that may be held out, ascending.
        seed: Decides which.

    Returns:
        Some of `usable`, ascending.
    """
    n = min(MOST_HELD_OUT, len(labels) // _SHARE, len(usable) // 2)
    if n < LEAST_HELD_OUT:
        return np.arange(0)
    shuffled = np.random.default_rng(seed).permutation(usable)
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # evenly over the sorted labels: of each class its share
    return np.sort(by_label[np.linspace(0, len(by_label) - 1, n).round().astype(np.int64)])


@dataclass(frozen=True)
class Calibration:
    """What held-out images say about a classifier. An estimate: their classes are known by the posterior only."""

    temperature: float
    """What log-probabilities are divided by, above 0."""
    n_images: int
    """Held-out images."""
    accuracy: float
    """Expected share of right predictions, in [0, 1]."""
    low: float
    """Lower end of its 90 % interval."""
    high: float
    """Upper end."""
    ece: float
    """Expected calibration error of the tempered probabilities, in [0, 1]; see `expected_calibration_error`."""
    ece_before: float
    """That of the probabilities as they were."""


def calibrate(probs: PredProbs, posterior: PredProbs) -> Calibration:
    """Return the temperature with which probabilities (n, K) fit the posterior (n, K) best, and what they are worth.

    The interval is that of a mean over n images, each right with the probability that the posterior gives the
    predicted class: it allows for the sample and for what the posterior does not know, not for a posterior that errs.

    Args:
        probs: (n, K) of a classifier that was not trained on these images.
        posterior: (n, K) probability of each true class, rows sum to 1.
    """
    logs = np.log(np.maximum(probs.astype(np.float64), _TINY))

    def loss(log_temperature: float) -> float:
        return -float((posterior * np.log(np.maximum(_tempered(logs, log_temperature), _TINY))).sum(axis=1).mean())

    best = minimize_scalar(loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    right = posterior[np.arange(len(probs)), probs.argmax(axis=1)].astype(np.float64)
    mean = float(right.mean())
    half = _Z * float(np.sqrt(mean * (1 - mean) / len(right)))
    return Calibration(
        temperature=float(np.exp(best.x)),
        n_images=len(probs),
        accuracy=mean,
        low=max(0.0, mean - half),
        high=min(1.0, mean + half),
        ece=expected_calibration_error(_tempered(logs, best.x), right),
        ece_before=expected_calibration_error(probs, right),
    )


def _tempered(logs: FloatArray, log_temperature: float) -> FloatArray:
    result: FloatArray = softmax(logs / np.exp(log_temperature), axis=1)
    return result


def expected_calibration_error(probs: PredProbs | FloatArray, right: FloatArray) -> float:
    """Return the mean distance of confidence and accuracy over fifteen bins of equal width, weighted by their size.

    Args:
        probs: (n, K).
        right: (n,) probability that the most probable class is the true one: 0 or 1 where that is known.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    confidence = probs.max(axis=1).astype(np.float64)
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, confidence - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
