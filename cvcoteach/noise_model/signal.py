"""Is there a signal: do the out-of-sample probabilities know more about the given labels than their frequencies say?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvcoteach._validation import IntArray
from cvcoteach.noise_model.base import Probs

_FLOOR = 1e-3
_LEAST_SHARE = 0.01
_LEAST_ERRORS = 3.0
_LEAST_IMAGES = 50  # fewer tell an able model from chance, but not a wrong label from a difficult image
_VALUES = 4_000_000
_ROWS = 200_000


@dataclass(frozen=True)
class Signal:
    """How much the probabilities know about the given labels."""

    share: float
    """How far the given labels are preferred to chance, relative to how far each row's favourite class is, in [-1, 1]:
    0 is chance, 1 perfect agreement (as Cohen's kappa, for probabilities)."""
    standard_errors: float
    """By how many standard errors that is above 0."""
    n_images: int
    """Number of images."""

    @property
    def found(self) -> bool:
        """Whether it is above chance by three standard errors and by 1 %, over at least 50 images."""
        return self.n_images >= _LEAST_IMAGES and self.standard_errors >= _LEAST_ERRORS and self.share >= _LEAST_SHARE


def signal_of(labels: IntArray, probs: Probs) -> Signal:
    """Compare each label's log-probability with that of a label drawn from all given ones.

    Shuffled labels, features of pure noise and identical rows have an expected difference of 0 (or slightly less: a
    held-out label is missing from its training part). Miscalibrated probabilities of an able model stay well above
    0, since probabilities below .001 count as .001.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample; large arrays are sampled at regular steps.

    Returns:
        The signal.
    """
    n, k = probs.shape
    rows = slice(None, None, max(1, -(-n // _ROWS), -(-n * k // _VALUES)))
    labels, probs = labels[rows], probs[rows]
    m = len(labels)
    frequency = np.bincount(labels, minlength=k) / m
    logs = np.log(np.maximum(probs, _FLOOR, dtype=np.float64))
    chance = logs @ frequency
    gain = logs[np.arange(m), labels] - chance
    most = float((logs.max(axis=1) - chance).mean())
    mean = float(gain.mean())
    if most < 1e-9 or m < 2:
        return Signal(0.0, 0.0, n)
    error = float(gain.std(ddof=1)) / np.sqrt(m)
    return Signal(mean / most, mean / max(error, 1e-12), n)
