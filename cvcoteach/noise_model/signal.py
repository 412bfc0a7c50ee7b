"""Is there a signal: do the out-of-sample probabilities know more about the given labels than their frequencies say?

And if so, is it strong enough to tell wrong labels from images that are difficult for the models?
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cvcoteach._validation import IntArray, counted
from cvcoteach.noise_model.base import Probs, chunks
from cvcoteach.noise_model.top_probs import TopProbs

_FLOOR = 1e-3
_LEAST_SHARE = 0.01
_LEAST_ERRORS = 3.0
_LEAST_IMAGES = 50  # fewer tell an able model from chance, but not a wrong label from a difficult image
_LEAST_CONFIDENCE, _LEAST_EVIDENCE = 0.75, 2.0
_FEW_PER_CLASS, _SURE, _LEAST_AGREEMENT_OF_FEW = 100.0, 0.8, 0.7
_MANY_PER_CLASS, _LEAST_AGREEMENT = 1000.0, 0.3
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
    n_per_class: float
    """Images per class that was given."""
    agreement: float = 1.0
    """How often the most probable class is the given one, chance-corrected (Cohen's kappa), in [-1, 1]."""
    confidence: float = math.nan
    """Mean probability of the most probable true class by the image alone, in [0, 1]; NaN if no mean was fitted."""
    evidence: float = math.nan
    """Standard errors by which a noise transition predicts held-out labels better than calibration alone does."""

    @property
    def above_chance(self) -> bool:
        """Whether it is above chance by three standard errors and by 1 %, over at least 50 images."""
        return self.n_images >= _LEAST_IMAGES and self.standard_errors >= _LEAST_ERRORS and self.share >= _LEAST_SHARE

    @property
    def found(self) -> bool:
        """Whether it is above chance, and tells wrong labels from images that are difficult for the models.

        Weak models explain most disagreement by their own weakness. With fewer than 100 images per class, models count
        as weak that are less than 75 % confident on average, or less than 80 % if their agreement with the labels is
        below .7; with fewer than 1,000, those below 75 % and .3. What they say about noise counts only with evidence of
        two standard errors.
        """
        return self.above_chance and not self._too_weak

    @property
    def reason(self) -> str:
        """What is missing, as a clause; empty where a signal was found."""
        if self.n_images < _LEAST_IMAGES:
            return f"{self.n_images:,} images are fewer than the {_LEAST_IMAGES} that it takes"
        if not self.above_chance:
            return (
                f"the given labels are preferred to chance by {self.share:.1%} of what is possible "
                f"({self.standard_errors:+.1f} standard errors, {self.n_images:,} images)"
            )
        if self._too_weak:
            return (
                f"with {counted(round(self.n_per_class), 'image')} per class, a mean confidence of "
                f"{self.confidence:.0%} and a chance-corrected agreement of {self.agreement:.0%}, "
                "wrong labels cannot be told from images that are difficult for the models"
            )
        return ""

    @property
    def _too_weak(self) -> bool:
        unsure = self.confidence < _LEAST_CONFIDENCE
        if self.n_per_class < _FEW_PER_CLASS:
            weak = unsure or (self.confidence < _SURE and self.agreement < _LEAST_AGREEMENT_OF_FEW)
        else:
            weak = unsure and self.agreement < _LEAST_AGREEMENT and self.n_per_class < _MANY_PER_CLASS
        return weak and self.evidence < _LEAST_EVIDENCE


def signal_of(labels: IntArray, probs: Probs | TopProbs) -> Signal:
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
    labels, some = labels[rows], probs[rows]
    m = len(labels)
    counts = np.bincount(labels, minlength=k)
    frequency, n_per_class = counts / m, n / int(np.count_nonzero(counts))
    gain, above, likeliest = np.empty(m), np.empty(m), np.empty(m, np.int64)
    for part in chunks(m, k):
        logs = np.maximum(some[part], _FLOOR, dtype=np.float64)
        np.log(logs, out=logs)
        chance = logs @ frequency
        gain[part] = logs[np.arange(len(logs)), labels[part]] - chance
        above[part] = logs.max(axis=1) - chance
        likeliest[part] = logs.argmax(axis=1)
    most = float(above.mean())
    mean = float(gain.mean())
    if most < 1e-9 or m < 2:
        return Signal(0.0, 0.0, n, n_per_class, agreement=0.0)
    error = float(gain.std(ddof=1)) / np.sqrt(m)
    expected = float(frequency @ np.bincount(likeliest, minlength=k)) / m
    agreement = (float((likeliest == labels).mean()) - expected) / max(1 - expected, 1e-12)
    return Signal(mean / most, float(mean / max(error, 1e-12)), n, n_per_class, agreement)
