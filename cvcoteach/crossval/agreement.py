"""The theory of agreement with a fold model that reproduces the noise (INCV, Chen et al. 2019, theorem 1)."""

from __future__ import annotations

import numpy as np

from cvcoteach._validation import InputError, IntArray, near

PATTERNS = ("symmetric", "asymmetric")


def concentration(pattern: str | float, n_classes: int) -> float:
    """Return how far wrong labels of a class gather in few other classes: the sum of their squared shares.

    1/(K-1) for "symmetric" noise, 1 for "asymmetric" (all go to one class); a number is taken as it is.
    """
    if isinstance(pattern, str):
        if pattern not in PATTERNS:
            raise InputError(f"pattern is {pattern!r}; {near(pattern, PATTERNS)}")
        return 1.0 if pattern == "asymmetric" else 1 / (n_classes - 1)
    return float(pattern)


def agreement(noise_rate: float, n_classes: int, pattern: str | float = "symmetric") -> float:
    """P(f(x) = given label) of a fold model f whose confusion matrix equals the transition.

    (1-ε)² + ε²·h, where h is the `concentration` of the pattern.
    """
    return (1 - noise_rate) ** 2 + noise_rate**2 * concentration(pattern, n_classes)


def label_precision(noise_rate: float, n_classes: int, pattern: str | float = "symmetric") -> float:
    """LP: clean share of the images on which model and label agree, (1-ε)² / agreement, in [0, 1]."""
    return (1 - noise_rate) ** 2 / agreement(noise_rate, n_classes, pattern)


def label_recall(noise_rate: float) -> float:
    """LR: share of the clean images on which model and label agree, 1-ε."""
    return 1 - noise_rate


def noise_rate_from_agreement(agreement: float, n_classes: int, pattern: str | float = "symmetric") -> float:
    """ε̂: the smaller root of (1-ε)² + ε²·h = agreement; where there is none, the ε of least agreement.

    Biased low where the model is regularised, since that agrees more than the theory says: a start
    for the iteration, not a statement about the data.

    Raises InputError if agreement lies outside [0, 1].
    """
    if not 0 <= agreement <= 1:
        raise InputError(f"agreement is {agreement}; it is a share, between 0 and 1.")
    h = concentration(pattern, n_classes)
    root = np.sqrt(max(0.0, 1 - (1 + h) * (1 - agreement)))
    return float((1 - root) / (1 + h))


def observed_concentration(labels: IntArray, predictions: IntArray, n_classes: int) -> float:
    """The pattern seen where labels (n,) and out-of-sample predictions (n,) differ: h in [1/(K-1), 1].

    Model and label err independently, so a disagreement of true class i is seen as often in row i (the model
    erred) as in the row of the class it went to: even pure pair noise spreads over two cells of a row and
    shows a concentration of ½. That range, from 1/(K-1) to ½, is mapped back linearly onto [1/(K-1), 1].
    """
    least = 1 / (n_classes - 1)
    if n_classes == 2:
        return 1.0
    differ = np.flatnonzero(labels != predictions)
    cells, counts = np.unique(labels[differ] * n_classes + predictions[differ], return_counts=True)
    rows = cells // n_classes
    totals = np.bincount(rows, counts, minlength=n_classes)
    pairs = totals * (totals - 1)
    if pairs.sum() == 0:
        return least
    # P(two disagreements of a row fall in the same cell), without the bias of squaring small counts
    seen = np.bincount(rows, counts * (counts - 1), minlength=n_classes) / np.maximum(pairs, 1)
    mean = float((seen * totals).sum() / totals.sum())
    if least >= 0.5:  # K = 3: symmetric noise fills both cells, and the two patterns look alike
        return least
    return float(np.clip(least + (mean - least) / (0.5 - least) * (1 - least), least, 1))
