"""Do labels and models make the same errors? Then a label says less than an independent witness would."""

from __future__ import annotations

import math

import numpy as np

from cvcoteach._validation import FloatArray, IntArray

SHARED = 0.7
"""Exponent of the posterior where people and models confuse the same classes, as they do in images.

Chosen by calibration on the labels aggre and random2 of CIFAR-10N; 1 takes image and label for independent witnesses.
"""

_INDEPENDENT_UP_TO, _OF_MUCH_NOISE, _SHARED_BEYOND = 0.15, 0.3, 0.2
_LITTLE_LEARNED, _MUCH_LEARNED = 0.1, 0.2
"""Shares of wrong labels between which models come to waver because they learned these labels."""
_BY_CHANCE = 2.0
"""Standard errors of a correlation over the pairs of classes up to which it is chance, of few classes beyond .15."""
_TOO_LITTLE_NOISE, _ENOUGH_NOISE = 0.03, 0.04
_LEAST_IMAGES = 30  # per class: the confusions of fewer are chance
_LEAST_CLASSES = 5  # the six pairs of four classes correlate by chance with anything


def shared_errors(labels: IntArray, before: FloatArray, after: FloatArray, weight: FloatArray) -> tuple[float, int]:
    """Correlate, over the pairs of classes, how often labels and models confuse them.

    For each pair (i, j) of different classes: the share of the images of true class i that are expected to be labelled
    j, against how far the model wavers between the two, Σ c_i·c_j over the images relative to Σ c_i. About 0 where
    labels were flipped without a look at the image, .35 to .7 for the labels that people gave to CIFAR-10.

    Args:
        labels: (n,) given.
        before: (n, K) c = P(true | image).
        after: (n, K) P(true | image, given).
        weight: (n,) how many images each row stands for.

    Returns:
        The correlation, in [-1, 1], and between how many classes: those of fewer than 30 images are left out. NaN where
        fewer than five are left, or all pairs are confused equally.
    """
    k = before.shape[1]
    mistaken = np.stack([np.bincount(labels, column * weight, minlength=k) for column in after.T])
    wavering = (before * weight[:, None]).T @ before
    often = np.flatnonzero(np.minimum(mistaken.sum(axis=0), mistaken.sum(axis=1)) >= _LEAST_IMAGES)
    if len(often) < _LEAST_CLASSES:
        return math.nan, len(often)
    pairs = ~np.eye(len(often), dtype=np.bool_)
    deviations = []
    for joint in (mistaken, wavering):
        shares = (joint / np.maximum(joint.sum(axis=1, keepdims=True), 1))[np.ix_(often, often)][pairs]
        deviations.append(shares - shares.mean())
    x, y = deviations
    size = math.sqrt(float((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else math.nan, len(often)


def exponent_of(correlation: float, noise_rate: float, n_classes: int) -> float:
    """Return the exponent of the posterior's odds: how far the label counts as a witness of its own.

    Up to a correlation of .15, or what chance brings about between so few classes, the witnesses count as independent,
    from .2 more on their errors as shared, with a linear transition. It is .3 in place of .15 from 20 % of wrong labels
    on, since models that learned many of these waver where the labels err. Where less than 3 to 4 % look wrong, most of
    what looks wrong is the model's own confusion, which agrees with itself: nothing is concluded.

    Args:
        correlation: As `shared_errors` returns it; NaN counts as independent.
        noise_rate: Expected share of wrong labels, in [0, 1].
        n_classes: Number of classes that it is of, at least 2.

    Returns:
        From `SHARED` to 1.
    """
    if math.isnan(correlation):
        return 1.0
    learned = np.clip((noise_rate - _LITTLE_LEARNED) / (_MUCH_LEARNED - _LITTLE_LEARNED), 0, 1)
    independent = _INDEPENDENT_UP_TO + (_OF_MUCH_NOISE - _INDEPENDENT_UP_TO) * learned
    independent = max(independent, _BY_CHANCE / math.sqrt(n_classes * (n_classes - 1)))
    alike = np.clip((correlation - independent) / _SHARED_BEYOND, 0, 1)
    enough = np.clip((noise_rate - _TOO_LITTLE_NOISE) / (_ENOUGH_NOISE - _TOO_LITTLE_NOISE), 0, 1)
    return 1 - (1 - SHARED) * float(alike * enough)
