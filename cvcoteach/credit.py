"""How far a label counts as evidence beside its image: less where people err where models err."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from cvcoteach._checks import FloatArray, IntArray

SHARED = 0.7
"""Exponent of the posterior where people and models confuse the same classes, as they do in images.

Chosen by calibration on the labels aggre and random2 of CIFAR-10N; 1 takes image and label for independent witnesses.
"""

_NONE, _PLAIN = 0.2, 0.5


def shared_errors(labels: IntArray, probs: npt.NDArray[np.floating], posterior: Iterable[FloatArray]) -> float:
    """How alike labels and model err: a correlation over the pairs of classes, in [-1, 1].

    For each pair (i, j) of different classes: the images of true class i that are expected to be labelled j, against
    how far the model wavers between i and j, Σ p_i·p_j over the images. About 0 where labels were flipped without a
    look at the image, .4 to .8 for those that people gave to CIFAR-10; NaN where all pairs are alike.

    labels: (n,) given; probs: (n, K); posterior: chunks of P(true | image, given) that make up (n, K).
    """
    k = probs.shape[1]
    mistaken = np.zeros((k, k))
    start = 0
    for chunk in posterior:
        given = np.eye(k)[labels[start : start + len(chunk)]]
        mistaken += chunk.T @ given
        start += len(chunk)
    p = probs.astype(np.float64)
    wavering = p.T @ p
    pairs = ~np.eye(k, dtype=np.bool_)
    x, y = mistaken[pairs], wavering[pairs]
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 0 else math.nan


def credit_of(correlation: float, n_classes: int) -> float:
    """The posterior's exponent for such a correlation, from `SHARED` to 1.

    Half a standard error of chance, 1/√(pairs of classes), is added to the correlation: few classes show little, and
    labels count as people's rather than not. Up to .2 the witnesses are independent; from .5 on they
    share their errors; evenly between.
    """
    if math.isnan(correlation):
        return SHARED
    upper = correlation + 0.5 / math.sqrt(n_classes * (n_classes - 1) / 2)
    return 1 - (1 - SHARED) * min(1.0, max(0.0, (upper - _NONE) / (_PLAIN - _NONE)))
