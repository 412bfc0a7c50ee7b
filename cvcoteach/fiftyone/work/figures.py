"""The figures at the top of the panel: how much is wrong, how good the flags are, what has been reviewed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from cvcoteach._validation import BoolArray
from cvcoteach.fiftyone.store.fields import UNREVIEWED
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work.browse import Reviews
from cvcoteach.fiftyone.work.subset import issues_of_rows
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.precision_recall import Interval, Readout, expected_precision_recall
from cvcoteach.issues.reviews import ReviewSample, measured_precision_recall, review_sample

SPOT_CHECKS = 1_000
"""Samples drawn at random, in an order of which every first part is a random sample too."""

LEAST_CHECKS = 10
"""Random checks needed before they say anything."""


@dataclass(frozen=True)
class Headline:
    """A run at a glance."""

    n_samples: int
    n_issues: int
    noise_ratio: float | None
    """Expected share of wrong labels, reviews included; None where the scores only rank."""
    expected: Readout
    """Precision and recall by the posterior, with reviewed labels known."""
    at_first: Readout
    """The same before any review."""
    checked: Readout | None
    """The same from random checks, which trust no model; None before LEAST_CHECKS."""
    n_checked: int
    """How many random checks are done."""
    counts: Mapping[str, int]
    """Samples of each review status."""
    n_left: int
    """Flagged samples nobody has reviewed."""
    n_found_wrong: int = 0
    """Reviewed labels that turned out wrong."""
    checked_wrong: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Of the random checks done: how many were flagged, how many of these wrong, how many not flagged, and wrong."""

    @property
    def n_reviewed(self) -> int:
        """Samples somebody has reviewed."""
        return sum(count for status, count in self.counts.items() if status != UNREVIEWED)


def headline(results: FindLabelIssuesResults, done: Reviews) -> Headline:
    """Compute the figures of a run, with what reviews have shown so far."""
    return _headline(results.issues, done)


@lru_cache(maxsize=8)
def _headline(issues: LabelIssues, done: Reviews) -> Headline:
    """Compute them once for the same reviews, not at every look at the panel."""
    noise_ratio = None
    if issues.has_signal:  # rounded as the summary of a run is, so that all pages say the same
        right = np.where(done.reviewed, ~done.was_wrong, issues.label_quality)
        noise_ratio = round(replace(issues, label_quality=right).noise_ratio, 4)
    checks = spot_checks(issues) if done.reviewed.any() else None  # drawing them takes long where there are many labels
    n_checked = _done_in_order(checks, done)
    checked = None
    if checks is not None and n_checked >= LEAST_CHECKS:
        checked = measured_precision_recall(issues, checks, done.was_wrong[checks.indices[:n_checked]])
    at_first = _at_first(issues)
    expected = with_reviews(issues, done.reviewed, done.was_wrong) if done.reviewed.any() else at_first
    return Headline(
        n_samples=len(issues.labels),
        n_issues=issues.n_issues,
        noise_ratio=noise_ratio,
        expected=expected,
        at_first=at_first,
        checked=checked,
        n_checked=n_checked,
        counts=done.counts,
        n_left=int(done.open(issues.is_label_issue).sum()),
        n_found_wrong=int(done.was_wrong.sum()),
        checked_wrong=_checked(issues, checks, done, n_checked),
    )


def _checked(
    issues: LabelIssues, checks: ReviewSample | None, done: Reviews, n_checked: int
) -> tuple[int, int, int, int]:
    if checks is None:
        return 0, 0, 0, 0
    rows = checks.indices[:n_checked]
    flags, wrong = issues.is_label_issue[rows], done.was_wrong[rows]
    return int(flags.sum()), int((flags & wrong).sum()), int((~flags).sum()), int((~flags & wrong).sum())


@lru_cache(maxsize=8)
def _at_first(issues: LabelIssues) -> Readout:
    """Return precision and recall before any review; computed once, not at every look at the panel."""
    return expected_precision_recall(issues)


def with_reviews(issues: LabelIssues, reviewed: BoolArray, was_wrong: BoolArray) -> Readout:
    """Compute expected precision and recall where reviewed labels are known and the posterior speaks for the others.

    reviewed, was_wrong: (n,). What is reviewed counts as found; the interval of the rest keeps its width but not its
    weight, so that the whole closes as the reviews cover the flags, in whatever order they are made.
    """
    if not reviewed.any():
        return expected_precision_recall(issues)
    flagged = issues.is_label_issue
    hits, misses = int(was_wrong[flagged].sum()), int(was_wrong[~flagged].sum())
    n, n_rest = int(flagged.sum()), int((flagged & ~reviewed).sum())
    rest = expected_precision_recall(issues_of_rows(issues, ~reviewed)) if n_rest else None
    if n == 0:
        return expected_precision_recall(issues)
    if rest is not None and rest.precision is None:
        return replace(rest, n_flagged=n, n_reviewed=int(reviewed.sum()))
    level = 0.9
    wrong = rest.precision if rest is not None and rest.precision is not None else Interval(0, 0, 0, level)
    middle, low, high = ((hits + n_rest * share) / n for share in _ends(wrong))
    precision = Interval(middle, low, high, level)
    missed = _missed(issues, reviewed, rest, n_rest * wrong.estimate)
    recall = None
    found = hits + n_rest * wrong.estimate
    if missed is not None and found + misses + missed[0] > 0:
        estimate, few, many = (found / (found + misses + number) if found else 0.0 for number in missed)
        recall = Interval(estimate, min(many, estimate), max(few, estimate), level)
    return Readout(precision, recall, n, int(reviewed.sum()), rest.note if rest is not None else "")


@lru_cache(maxsize=8)
def spot_checks(issues: LabelIssues) -> ReviewSample | None:
    """Draw the samples for random checks, in the order to look at them; None where nothing is flagged."""
    if not issues.n_issues:
        return None
    return review_sample(issues, min(SPOT_CHECKS, len(issues.labels)))


def _missed(
    issues: LabelIssues, reviewed: BoolArray, rest: Readout | None, found: float
) -> tuple[float, float, float] | None:
    """Estimate wrong labels among the unreviewed unflagged: expected, at least, at most; None where unknown."""
    expected = float(issues.wrong[~issues.is_label_issue & ~reviewed].sum())
    if rest is None or rest.recall is None or found == 0:
        # nothing flagged is left to measure the posterior by: take its expectation, from nothing to twice as much
        return (expected, 0.0, 2 * expected) if issues.has_signal else None
    few, many = (found * (1 / max(share, 1e-6) - 1) for share in (rest.recall.high, rest.recall.low))
    return expected, few, many


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _done_in_order(checks: ReviewSample | None, done: Reviews) -> int:
    """Count the random checks done without a gap: only a first part of them is a random sample."""
    if checks is None:
        return 0
    reviewed = done.reviewed[checks.indices]
    return int(np.argmin(reviewed)) if not reviewed.all() else len(reviewed)
