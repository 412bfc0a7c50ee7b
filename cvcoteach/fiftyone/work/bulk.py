"""What is done to many samples at once: suggestions to accept, mistakes to expect, classes not to be emptied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.splits import held_out
from cvcoteach.fiftyone.store.fields import EXCLUDED, object_ids
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import browse


def probable_rows(samples: Any, results: FindLabelIssuesResults, least: float) -> IntArray:
    """Return the rows of flagged, unreviewed samples of a dataset or view whose suggestion is probable enough.

    Those that probably belong to none of the classes are left out: exclude these first.

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
    wanted = (issues.suggested_prob >= least) & (issues.suggested != issues.labels) & ~issues.is_stranger
    return rows[wanted[rows]]


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


SUGGESTED = object()
"""Stands for the suggested label of each sample."""
AS_IT_IS = object()
"""Stands for the label that it has."""


def emptied(dataset: Any, results: FindLabelIssuesResults, ids: Sequence[str], becomes: Any) -> list[str]:
    """Return the classes that would be left without an image, where there are several samples.

    becomes: their new class, SUGGESTED, or None where they are excluded. A single sample is a person's own decision.
    """
    if len(ids) < 2 or becomes is AS_IT_IS:
        return []
    fields, name = results.fields, f"{results.config.label_field}.label"
    samples, used = dataset._sample_collection, {fields.review: {"$ne": EXCLUDED}}
    counts = {row["_id"]: row["n"] for row in samples.aggregate(
        [{"$match": used}, {"$group": {"_id": f"${name}", "n": {"$sum": 1}}}]
    )}  # fmt: skip
    after = Counter(counts)
    wanted = {"_id": f"${name}", "n": {"$sum": 1}}
    if becomes is SUGGESTED:
        wanted["_id"] = {"now": f"${name}", "new": f"${fields.suggested}.label"}
    for row in samples.aggregate([{"$match": {"_id": {"$in": object_ids(ids)}, **used}}, {"$group": wanted}]):
        now, new = (row["_id"].get("now"), row["_id"].get("new")) if becomes is SUGGESTED else (row["_id"], becomes)
        after[now] -= row["n"]
        if new is not None:
            after[new] += row["n"]
    return sorted(str(class_) for class_ in counts if class_ is not None and after[class_] <= 0)


def emptied_in_words(names: Sequence[str]) -> str:
    """Say which classes would be left without an image."""
    more = f" and {len(names) - 1:,} other{'s' * (len(names) > 2)}" if len(names) > 1 else ""
    return f"the class {names[0]!r}{more} would be left without an image"


def is_empty(dataset: Any, results: FindLabelIssuesResults, name: str) -> bool:
    """Return whether no sample that is not excluded has the class `name`."""
    query = {f"{results.config.label_field}.label": name, results.fields.review: {"$ne": EXCLUDED}}
    return dataset._sample_collection.find_one(query, {"_id": 1}) is None
