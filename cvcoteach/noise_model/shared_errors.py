"""How far a label counts as evidence beside its image: less where people err where models err."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from cvcoteach._validation import FloatArray, IntArray

SHARED = 0.7
"""Exponent of the posterior where people and models confuse the same classes, as they do in images.

Chosen by calibration on the labels aggre and random2 of CIFAR-10N; 1 takes image and label for independent witnesses.
"""

_INDEPENDENT_UP_TO, _SHARED_FROM = 0.3, 0.5
_LEAST_IMAGES = 30  # of a class: the confusions of fewer are chance
_LEAST_CLASSES = 5  # the six pairs of four classes correlate by chance with anything


def shared_errors(
    labels: IntArray, n_classes: int, beliefs: Iterable[tuple[FloatArray, FloatArray]]
) -> tuple[float, int]:
    """How alike labels and model err: a correlation over the pairs of classes, in [-1, 1], and how many classes.

    For each pair (i, j) of different classes: the share of the images of true class i that are expected to be labelled
    j, against how far the model wavers between the two, Σ c_i·c_j over the images in proportion to Σ c_i. 0 to .3
    where labels were flipped without a look at the image, .4 to .7 for those that people gave to CIFAR-10. Classes
    of fewer than 30 images are left out; NaN where fewer than five are left, or all pairs are alike.

    labels: (n,) given. beliefs: chunk by chunk c = P(true | image) and P(true | image, given), each (m, K).
    """
    mistaken, wavering = np.zeros((n_classes, n_classes)), np.zeros((n_classes, n_classes))
    start = 0
    for before, after in beliefs:
        given = np.eye(n_classes)[labels[start : start + len(after)]]
        mistaken += after.T @ given
        wavering += before.T @ before
        start += len(after)
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


def credit_of(correlation: float, n_classes: int) -> float:
    """The posterior's exponent for a correlation over the pairs of so many classes, from `SHARED` to 1.

    Half a standard error of chance, 1/√(pairs of classes), is added to the correlation: few classes show little, and
    labels count as people's rather than not. Up to .3 the witnesses are independent; from .5 on they
    share their errors; evenly between.
    """
    if math.isnan(correlation):
        return SHARED
    upper = correlation + 0.5 / math.sqrt(n_classes * (n_classes - 1) / 2)
    shared = (upper - _INDEPENDENT_UP_TO) / (_SHARED_FROM - _INDEPENDENT_UP_TO)
    return 1 - (1 - SHARED) * min(1.0, max(0.0, shared))
