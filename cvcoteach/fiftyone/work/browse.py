"""Which samples to look at: the work queue, and the samples behind every cell, bar and class of the panel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from cvcoteach._validation import BoolArray, InputError, IntArray, near
from cvcoteach.fiftyone.store.fields import STATUSES, UNREVIEWED
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work.staleness import n_removed
from cvcoteach.issues.label_issues import pairs_counted

QUALITY_BINS = 20


@dataclass(frozen=True, eq=False)
class Reviews:
    """The decisions that people have made so far about the samples of a run."""

    status: npt.NDArray[np.object_]
    """(n,) the review status, in the order of the run."""
    was_wrong: BoolArray
    """(n,) whether the reviewed label turned out wrong: another class now, or excluded. False where unreviewed."""
    removed: BoolArray | None = None
    """(n,) whether the sample was deleted; None where all exist."""

    @property
    def reviewed(self) -> BoolArray:
        """(n,) whether a person has looked at it."""
        return self.status != UNREVIEWED

    def left(self, results: FindLabelIssuesResults) -> BoolArray:
        """Return which samples (n,) are flagged, exist, and are not reviewed."""
        left = results.issues.is_label_issue & ~self.reviewed
        return left if self.removed is None else left & ~self.removed

    @property
    def counts(self) -> Mapping[str, int]:
        """Samples per review status."""
        found = Counter(self.status.tolist())
        return {status: found[status] for status in STATUSES}


def reviews(dataset: Any, results: FindLabelIssuesResults) -> Reviews:
    """Read the reviews of a run: one query, whose answer is as long as there are reviews."""
    fields, label_field = results.fields, results.config.label_field
    status = np.full(len(results.ids), UNREVIEWED, dtype=object)
    was_wrong = np.zeros(len(status), np.bool_)
    names = results.issues.class_names
    labels = results.issues.labels
    query = {fields.review: {"$in": [status for status in STATUSES if status != UNREVIEWED]}}
    samples = list(dataset._sample_collection.find(query, {fields.review: 1, f"{label_field}.label": 1}))
    rows = results.rows([str(sample["_id"]) for sample in samples])
    for row, sample in zip(rows.tolist(), samples, strict=True):
        if row < 0:
            continue
        status[row] = sample[fields.review]
        label = (sample.get(label_field) or {}).get("label")
        was_wrong[row] = sample[fields.review] == "excluded" or label != names[labels[row]]
    return Reviews(status, was_wrong, _removed(dataset, results))


def _removed(dataset: Any, results: FindLabelIssuesResults) -> BoolArray | None:
    if n_removed(dataset, results) == 0:
        return None
    there = [str(sample["_id"]) for sample in dataset._sample_collection.find({}, {"_id": 1})]
    return ~np.isin(results.ids, np.array(there, dtype=results.ids.dtype))


def queue(results: FindLabelIssuesResults, done: Reviews) -> IntArray:
    """Return the rows of the flagged samples nobody has reviewed, worst first."""
    worst = results.issues.worst_first()
    return worst[done.left(results)[worst]]


def following(results: FindLabelIssuesResults, done: Reviews, sample_id: str | None, view: Any = None) -> str | None:
    """Return the sample to review after `sample_id`: the next in worst-first order, else the worst left, else None.

    view: look only there, since the App opens no sample outside its view.
    """
    rows = queue(results, done)
    if view is not None:
        there = np.array(unreviewed_flagged_ids(view, results), dtype=results.ids.dtype)
        rows = rows[np.isin(results.ids[rows], there)]
    if sample_id is not None and len(rows):
        here = int(results.rows([sample_id])[0])
        if here >= 0:
            place = np.argsort(results.issues.worst_first(flagged_only=False))  # rank of each row
            later = rows[place[rows] > place[here]]
            rows = later if len(later) else rows[rows != here]
    return results.ids[rows[0]].decode() if len(rows) else None


def confused(results: FindLabelIssuesResults) -> npt.NDArray[np.int64] | csr_array:
    """Count flagged labels by given class (row) and suggested class (column), (K, K), as `pairs_counted`."""
    issues = results.issues
    flagged = issues.is_label_issue
    return pairs_counted(issues.labels[flagged], issues.suggested[flagged], issues.n_classes)


def quality_histogram(results: FindLabelIssuesResults) -> tuple[IntArray, IntArray]:
    """Count flagged and other labels in each of QUALITY_BINS equal steps of quality from 0 to 1, (bins,) each."""
    issues = results.issues
    step = np.minimum((issues.label_quality * QUALITY_BINS).astype(np.int64), QUALITY_BINS - 1)
    flagged = np.bincount(step[issues.is_label_issue], minlength=QUALITY_BINS)
    others = np.bincount(step[~issues.is_label_issue], minlength=QUALITY_BINS)
    return flagged, others


def cell(results: FindLabelIssuesResults, given: str, suggested: str) -> Any:
    """Return the view of flagged samples of one cell of the matrix, worst first."""
    issues = results.issues
    at = (issues.labels == _number(results, given)) & (issues.suggested == _number(results, suggested))
    return _view(results, issues.is_label_issue & at)


def quality_bin(results: FindLabelIssuesResults, number: int) -> Any:
    """Return the view of all samples of one bar of the histogram, worst first."""
    if not 0 <= number < QUALITY_BINS:
        raise InputError(f"the bar is {number}; there are {QUALITY_BINS}, counted from 0.")
    step = np.minimum((results.issues.label_quality * QUALITY_BINS).astype(np.int64), QUALITY_BINS - 1)
    return _view(results, step == number)


def given_class(results: FindLabelIssuesResults, name: str) -> Any:
    """Return the view of flagged samples that were given one class, worst first."""
    return _view(results, results.issues.is_label_issue & (results.issues.labels == _number(results, name)))


def left(results: FindLabelIssuesResults, done: Reviews) -> Any:
    """Return the view of the work queue, worst first."""
    return select(results, queue(results, done))


def flagged(results: FindLabelIssuesResults) -> Any:
    """Return the view of all flagged samples, worst first."""
    return _view(results, results.issues.is_label_issue)


def unreviewed_flagged_ids(samples: Any, results: FindLabelIssuesResults) -> list[str]:
    """Return the flagged samples of a dataset or view that nobody has reviewed."""
    fields = results.fields
    wanted = fo.ViewField(fields.is_issue) & (fo.ViewField(fields.review) == UNREVIEWED)
    return list(samples.match(wanted).values("id"))


def _view(results: FindLabelIssuesResults, rows: BoolArray) -> Any:
    worst = results.issues.worst_first(flagged_only=False)
    return select(results, worst[rows[worst]])


def select(results: FindLabelIssuesResults, rows: IntArray) -> Any:
    """Return the view of these rows of a run, in their order."""
    dataset = results.samples._dataset
    if len(rows) == 0:
        return dataset.select([])
    return dataset.select([sample_id.decode() for sample_id in results.ids[rows]], ordered=True)


def _number(results: FindLabelIssuesResults, name: str) -> int:
    try:
        return results.issues.class_names.index(name)
    except ValueError:
        raise InputError(
            f"the run {results.key!r} has no class {name!r}; {near(name, results.issues.class_names)}"
        ) from None
