"""Suggestions accepted in bulk: which, and how many of them are expected to be mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.splits import held_out
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import browse


def probable_rows(samples: Any, results: FindLabelIssuesResults, least: float) -> IntArray:
    """Return the rows of flagged, unreviewed samples of a dataset or view whose suggestion is probable enough.

    least: probability that the suggestion is right, in [0, 1]. Raises InputError where the run knows no probabilities.
    """
    issues = results.issues
    if not issues.has_signal:
        raise InputError(f"the scores of the run {results.key!r} only rank: nobody knows how many would be mistakes.")
    if not 0 <= least <= 1:
        raise InputError(f"the least probability is {least:g}; it lies between 0 and 1.")
    rows = results.rows(browse.unreviewed_flagged_ids(samples, results))
    rows = rows[rows >= 0]
    out = held_out(issues.splits)
    rows = rows if out is None else rows[~out[rows]]  # these change by review alone
    return rows[(issues.suggested_prob[rows] >= least) & (issues.suggested[rows] != issues.labels[rows])]


def expected_mistakes(results: FindLabelIssuesResults, rows: IntArray) -> tuple[float, float, float]:
    """Return how many of the suggestions are expected to be wrong, at least and at most (90 %).

    By the posterior, each suggestion being right with its own probability.
    """
    wrong = 1 - np.clip(results.issues.suggested_prob[rows], 0, 1)
    expected, spread = float(wrong.sum()), 1.645 * float(np.sqrt((wrong * (1 - wrong)).sum()))
    return expected, max(0.0, expected - spread), min(float(len(rows)), expected + spread)


def in_words(results: FindLabelIssuesResults, rows: IntArray) -> str:
    """Say how many labels would be changed, and how many of these wrongly."""
    n = len(rows)
    expected, low, high = expected_mistakes(results, rows)
    labels = f"{n:,} label{'s' * (n != 1)}"
    return (
        f"{labels} would get the suggested class; about {expected:,.0f} of these suggestions "
        f"({np.floor(low):,.0f} to {np.ceil(high):,.0f}) are expected to be mistakes."
    )
