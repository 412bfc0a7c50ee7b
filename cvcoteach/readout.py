"""How good are the flags? Precision and recall with intervals, from the posterior alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cvcoteach._checks import FloatArray, InputError
from cvcoteach.issues import LabelIssues

WIDE = 0.3
"""An interval wider than this is called vague."""

_SHIFT, _SLOPE = 0.6, 0.25
_DRAWS, _BINS = 2000, 256


@dataclass(frozen=True)
class Interval:
    """A number and how far it can be trusted, all in [0, 1]."""

    estimate: float
    """The best guess, within the interval."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""
    level: float
    """How often such intervals contain the truth, in (0, 1)."""

    @property
    def width(self) -> float:
        """high - low."""
        return self.high - self.low

    def __str__(self) -> str:
        return f"{self.estimate:.0%} ({self.low:.0%}-{self.high:.0%})"


@dataclass(frozen=True)
class Readout:
    """What is known about the flags; None where it cannot be known, and `note` says why."""

    precision: Interval | None
    """Share of the flagged labels that are wrong."""
    recall: Interval | None
    """Share of the wrong labels that are flagged."""
    n_flagged: int
    """Flagged labels."""
    n_reviewed: int
    """Reviews behind the numbers; 0: the posterior alone."""
    note: str
    """Why a number is missing or vague, in sentences; empty where nothing is."""


def expected_precision_recall(issues: LabelIssues, *, level: float = 0.9) -> Readout:
    """Precision and recall as the posterior sees them, with intervals that allow for its being off.

    Expected precision is the mean probability of being wrong among the flagged; expected recall their sum over that of
    all images. Intervals let the posterior be miscalibrated - its log-odds shifted by a normal error of deviation 0.6
    and stretched by a log-normal one of 0.25 - and add the chance of the draw.

    Refused, both None, where the transition model does not fit. Raises InputError for a level outside (0, 1).
    """
    check_level(level)
    n_flagged = issues.n_issues
    if not n_flagged:
        return Readout(None, None, 0, 0, "No label is flagged, so there is no precision or recall.")
    if not issues.fits:
        note = "The posterior does not fit these labels, so it cannot tell how good its flags are; reviews can."
        return Readout(None, None, n_flagged, 0, note)
    rng = np.random.default_rng(0)
    shift = rng.normal(0, _SHIFT, _DRAWS)
    slope = np.exp(rng.normal(0, _SLOPE, _DRAWS))
    flagged, unflagged = (
        _drawn_totals(issues.wrong[issues.is_label_issue == flag], shift, slope, rng) for flag in (True, False)
    )
    tail = (1 - level) / 2
    wrong = issues.wrong[issues.is_label_issue].sum()
    precision = np.quantile(flagged / n_flagged, (tail, 1 - tail))
    recall = np.quantile(flagged / np.maximum(flagged + unflagged, 1e-9), (tail, 1 - tail))
    return Readout(
        interval_around(wrong / n_flagged, precision, level),
        interval_around(wrong / issues.wrong.sum(), recall, level),
        n_flagged,
        0,
        "",
    )


def _drawn_totals(wrong: FloatArray, shift: FloatArray, slope: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(draws,) numbers of wrong labels if the log-odds of the probabilities `wrong` (n,) were shifted and stretched."""
    odds = np.clip(wrong, 1e-9, 1 - 1e-9)
    odds = np.log(odds / (1 - odds))
    counts, edges = np.histogram(odds, _BINS)
    middle = np.histogram(odds, edges, weights=odds)[0] / np.maximum(counts, 1)
    rate = 1 / (1 + np.exp(-(middle * slope[:, None] + shift[:, None])))
    spread = np.sqrt(np.maximum((rate * (1 - rate)) @ counts, 0))
    return np.clip(rate @ counts + spread * rng.standard_normal(len(shift)), 0, len(wrong))


def interval_around(estimate: float, ends: Iterable[float], level: float) -> Interval:
    """The interval, with the estimate moved to its nearer end where it lies outside."""
    low, high = map(float, ends)
    return Interval(float(np.clip(estimate, low, high)), low, high, level)


def check_level(level: float) -> None:
    """Raises InputError for a level outside (0, 1)."""
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it is how often the interval shall contain the truth, between 0 and 1.")
