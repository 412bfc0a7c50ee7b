"""Estimate precision and recall of the flags, and the noise rate, with intervals, from the posterior alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray
from cvcoteach.issues.label_issues import LabelIssues

WIDE = 0.3
"""An interval wider than this is called vague."""

LEAST_NOISE = 0.03
"""Where fewer labels are expected to be wrong, the posterior takes the model's own errors for label errors."""

# --- Constants of the intervals, fitted to simulations; refit them after any change of the noise model ---
# Deviations of the posterior's log-odds from calibrated ones, downwards and upwards, as seen on simulated noise (30
# sets of Gaussian classes, 60 on CIFAR-10 features, none of those that examples/benchmarks/intervals.py reports).
# People's wrong labels follow the image and look right more often: the unflagged's upward one is random2's and aggre's
_FLAGGED, _UNFLAGGED, _SLOPE = (0.4, 0.8), (0.6, 0.9), 0.1
_FLOOR = 0.02  # added for little noise, where the posterior's own floor of wrong labels gains weight
# --- End of the constants of the intervals ---

_UNSEEN = 0.1
"""Deviation, upwards only, of the wrong labels from those that the posterior sees, as a share of them: labels that all
models find plausible. On digits with 3 to 40 % wrong labels they are 0 to 14 % more."""

_HIDDEN = 0.002
"""Deviation, upwards only, of the share of wrong labels from what the posterior says, however little that is: where
hardly any label is wrong, it takes up to half of the wrong ones for right."""

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
    """Precision and recall of the flags; None where they cannot be known, and `note` says why."""

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
    """Estimate precision and recall from the posterior, with intervals that allow for errors of the posterior.

    Expected precision is the mean probability of being wrong among the flagged; expected recall is their sum over that
    of all images. The intervals allow for a posterior that is off: the log-odds of the flagged may be shifted (more
    upwards: among well separated classes nearly all flagged are wrong), those of the others likewise, and both be
    stretched, by normal errors as large as were seen in simulations and on human labels; and for sampling error.

    Both are None where there is no signal, and where less than 3 % of the labels are expected to be wrong.

    Args:
        issues: What is known about the labels.
        level: How often the intervals shall contain the truth, in (0, 1).

    Raises:
        InputError: For a level outside (0, 1), or anything but label issues.
    """
    check_level(level)
    if not isinstance(issues, LabelIssues):
        raise InputError(f"issues is a {type(issues).__name__}; it takes LabelIssues, as label_issues returns them.")
    n_flagged = issues.n_issues
    if not issues.has_signal:
        return Readout(None, None, n_flagged, 0, f"{issues.note} Only reviews can tell how good flags are.".lstrip())
    if not n_flagged:
        return Readout(None, None, 0, 0, "No label is flagged, so there is no precision or recall.")
    if issues.noise_ratio < LEAST_NOISE:
        note = (
            f"About {issues.noise_ratio:.1%} of the labels look wrong, too few to tell them from the model's own "
            "errors; reviews can."
        )
        return Readout(None, None, n_flagged, 0, note)
    rng = np.random.default_rng(0)
    slope = np.exp(rng.normal(0, _SLOPE, _DRAWS))
    flagged, unflagged = (
        _drawn_totals(issues.wrong[issues.is_label_issue == flag], _drawn_shift(rng, deviations, issues), slope, rng)
        for flag, deviations in ((True, _FLAGGED), (False, _UNFLAGGED))
    )
    tail = (1 - level) / 2
    wrong = issues.wrong[issues.is_label_issue].sum()
    precision = np.quantile(flagged / n_flagged, (tail, 1 - tail))
    recalls = flagged / np.maximum(flagged + unflagged, 1e-9)
    unseen = 1 + np.maximum(rng.normal(0, _UNSEEN, _DRAWS), 0)  # of these there need not be any
    recall = np.quantile(recalls / unseen, tail), np.quantile(recalls, 1 - tail)
    return Readout(
        interval_around(wrong / n_flagged, precision, level),
        interval_around(wrong / issues.wrong.sum(), recall, level),
        n_flagged,
        0,
        "",
    )


def expected_noise_rate(
    issues: LabelIssues,
    *,
    rows: IntArray | None = None,
    known: BoolArray | None = None,
    was_wrong: BoolArray | None = None,
    level: float = 0.9,
) -> Interval | None:
    """Estimate the share of wrong labels from the posterior, with an interval that allows for errors of the posterior.

    The interval allows for what that of `expected_precision_recall` does. Where less than 3 % of the labels are
    expected to be wrong it begins at 0: the posterior says as much of clean labels. Copies together count once, as in
    `LabelIssues.noise_ratio`. None without a signal.

    Args:
        issues: What is known about n labels.
        rows: (m,) the images whose labels are meant, such as a split's; None: all.
        known: (n,) labels that a person judged; None: none.
        was_wrong: (n,) whether these were wrong; others are not looked at.
        level: How often the interval shall contain the truth, in (0, 1).

    Raises:
        InputError: For a level outside (0, 1).
    """
    check_level(level)
    if not issues.has_signal or not len(issues.labels):
        return None
    among = np.ones(len(issues.labels), np.bool_)
    if rows is not None:
        among[:] = False
        among[rows] = True
    of_copies = issues.copy_weights
    weights: FloatArray = among * (np.ones(len(among)) if of_copies is None else of_copies)
    n = float(weights.sum())
    seen = np.zeros(len(among), np.bool_) if known is None or was_wrong is None else known
    certain = float(weights[was_wrong & seen].sum()) if was_wrong is not None else 0.0
    rng = np.random.default_rng(0)
    slope = np.exp(rng.normal(0, _SLOPE, _DRAWS))
    totals = certain + weights[~seen].sum() * np.maximum(rng.normal(0, _HIDDEN, _DRAWS), 0)
    for flag, (down, up) in ((True, _FLAGGED), (False, _UNFLAGGED)):
        part = (issues.is_label_issue == flag) & ~seen & among
        error = rng.standard_normal(_DRAWS)
        if part.any():
            unseen = np.exp(np.maximum(rng.normal(0, _UNSEEN, _DRAWS), 0))
            shift = error * np.where(error < 0, down, up)
            totals += _drawn_totals(issues.wrong[part], shift, slope, rng, weights[part]) * unseen
    tail = (1 - level) / 2
    low, high = np.quantile(np.minimum(totals, n) / n, (tail, 1 - tail))
    estimate = ((issues.wrong * weights)[~seen].sum() + certain) / n
    if estimate < LEAST_NOISE:
        low = certain / n
    return interval_around(estimate, (low, high), level)


def _drawn_shift(rng: np.random.Generator, deviations: tuple[float, float], issues: LabelIssues) -> FloatArray:
    """Draw shifts of log-odds, (draws,): normal, with one deviation downwards and one upwards."""
    error = rng.standard_normal(_DRAWS)
    down, up = np.hypot(deviations, _FLOOR / issues.noise_ratio)
    return error * np.where(error < 0, down, up)


def _drawn_totals(
    wrong: FloatArray,
    shift: FloatArray,
    slope: FloatArray,
    rng: np.random.Generator,
    weights: FloatArray | None = None,
) -> FloatArray:
    """Draw numbers of wrong labels, (draws,), after shifting and stretching the log-odds of `wrong` (n,).

    weights: (n,) what each counts for, at most 1; None: 1.
    """
    counted = np.ones(len(wrong)) if weights is None else weights
    odds = np.clip(wrong, 1e-9, 1 - 1e-9)
    odds = np.log(odds / (1 - odds))
    counts, edges = np.histogram(odds, _BINS, weights=counted)
    middle = np.histogram(odds, edges, weights=odds * counted)[0] / np.where(counts > 0, counts, 1)
    rate = 1 / (1 + np.exp(-(middle * slope[:, None] + shift[:, None])))
    spread = np.sqrt(np.maximum((rate * (1 - rate)) @ counts, 0))
    return np.clip(rate @ counts + spread * rng.standard_normal(len(shift)), 0, counted.sum())


def interval_around(estimate: float, ends: Iterable[float], level: float) -> Interval:
    """Return the interval, with an estimate outside it moved to the nearer end."""
    low, high = map(float, ends)
    return Interval(float(np.clip(estimate, low, high)), low, high, level)


def check_level(level: float) -> None:
    """Raise InputError for a level outside (0, 1)."""
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it is how often the interval shall contain the truth, between 0 and 1.")
