"""Which samples to look at: the work queue, and the samples behind every cell, bar and class of the panel."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import fiftyone as fo
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from cvcoteach._validation import BoolArray, InputError, IntArray, near
from cvcoteach.fiftyone.store.annotators import annotator_field
from cvcoteach.fiftyone.store.fields import ACCEPTED, EXCLUDED, UNREVIEWED, object_ids
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work.kinds import contradiction, copies_of
from cvcoteach.fiftyone.work.reviews import Reviews as Reviews
from cvcoteach.fiftyone.work.reviews import reviews as reviews
from cvcoteach.fiftyone.work.unseen import is_mark
from cvcoteach.issues.label_issues import LabelIssues, pairs_counted

QUALITY_BINS = 20
AHEAD = 12
"""Samples that a page knows in advance, so as to open the next one without asking."""


@lru_cache(maxsize=8)
def _worst_first(issues: LabelIssues) -> IntArray:
    """Return all images (n,) from the most doubtful label on; sorted once, not at every key press."""
    return issues.worst_first(flagged_only=False)


@lru_cache(maxsize=8)
def _ranks(issues: LabelIssues) -> IntArray:
    """Return the place (n,) of each image in that order."""
    places = np.empty(len(issues.labels), np.int64)
    places[_worst_first(issues)] = np.arange(len(places))
    return places


def is_reviewed(dataset: Any, results: FindLabelIssuesResults, sample_id: str) -> bool:
    """Return whether a person has decided about one sample."""
    review = results.fields.review
    (here,) = object_ids([sample_id])
    sample = dataset._sample_collection.find_one({"_id": here}, {review: 1})
    return sample is not None and sample.get(review) not in (None, UNREVIEWED)


def queue(results: FindLabelIssuesResults, done: Reviews) -> IntArray:
    """Return the rows of what nobody has reviewed: contradictions, flagged or not, then the flagged, worst first."""
    worst, issues = _worst_first(results.issues), results.issues
    return worst[done.open(issues.is_label_issue | contradiction(issues))[worst]]


def accepted(results: FindLabelIssuesResults, done: Reviews) -> IntArray:
    """Return the rows of the accepted suggestions, the least probable first: those to look at a second time."""
    rows = np.flatnonzero(done.status == ACCEPTED)
    return rows[np.argsort(results.issues.suggested_prob[rows], kind="stable")]


def following(
    results: FindLabelIssuesResults, done: Reviews, sample_id: str | None, view: Any = None, *, again: bool = False
) -> str | None:
    """Return the sample to review after `sample_id`: the next in worst-first order, else the worst left, else None.

    A view that names its samples in order, such as those of the panel, is followed in its own order, with what is not
    flagged too.

    view: look only there, since the App opens no sample outside its view. again: `sample_id` had been reviewed before,
    so that what follows it in the view is looked at again as well.
    """
    return next(iter(ahead(results, done, sample_id, view, again=again)), None)


def ahead(
    results: FindLabelIssuesResults, done: Reviews, sample_id: str | None, view: Any = None, *, again: bool = False
) -> list[str]:
    """Return the samples to review after `sample_id`, at most AHEAD: what `following` will say, one after another.

    That is so as long as nobody else reviews any of them; where it begins anew, from the worst on.
    """
    later, others = _to_come(results, done, sample_id, view, again=again)
    rows = later if len(later) else others
    return [one.decode() for one in results.ids[rows[:AHEAD]]]


def _to_come(
    results: FindLabelIssuesResults, done: Reviews, sample_id: str | None, view: Any, *, again: bool
) -> tuple[IntArray, IntArray]:
    """Return the rows to review after a sample, in order, and those to go on with where there are none."""
    here = int(results.rows([sample_id])[0]) if sample_id is not None else -1
    ordered = _in_order(results, view)
    if ordered is not None:
        if done.removed is not None:
            ordered = ordered[~done.removed[ordered] | (ordered == here)]
        place = np.flatnonzero(ordered == here) if here >= 0 else ordered[:0]
        after = ordered[place[0] + 1 :] if len(place) else ordered
        if not again:
            return after[~done.reviewed[after]], ordered[~done.reviewed[ordered] & (ordered != here)]
        n = int(np.cumprod(done.reviewed[after]).sum())  # looked at again, up to the first that nobody has reviewed
        return np.concatenate([after[:n], after[n:][~done.reviewed[after[n:]]]]), ordered[:0]
    rows = queue(results, done)
    if view is not None:
        there = results.rows(unreviewed_flagged_ids(view, results, contradictions=True))
        rows = rows[np.isin(rows, there)]
    if here < 0:
        return rows, rows
    place = _ranks(results.issues)
    return rows[place[rows] > place[here]], rows[rows != here]


def _in_order(results: FindLabelIssuesResults, view: Any) -> IntArray | None:
    """Return the rows of a view that names its samples in order and shows all of them; None for any other view."""
    ids = None if view is None else listed(view)
    if ids is None:
        return None
    rows = results.rows(ids)
    return rows[rows >= 0]


def listed(view: Any) -> list[str] | None:
    """Return the samples of a view that names them in order, as those of the panel do; None for any other view."""
    stages = [stage for stage in view._stages if not isinstance(stage, fo.ExcludeFields) and not is_mark(stage)]
    if len(stages) != 1 or not isinstance(stages[0], fo.Select) or not stages[0].ordered:
        return None
    return list(stages[0].sample_ids)


def pairs(results: FindLabelIssuesResults, done: Reviews, most: int = 50) -> list[tuple[str, str, int]]:
    """Return given and suggested class and how many labels are left to review, of the pairs with most of these."""
    issues, left_ = results.issues, done.left(results)
    pair, counts = np.unique(issues.labels[left_] * issues.n_classes + issues.suggested[left_], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    names, (rows, columns) = issues.class_names, np.divmod(pair[order], issues.n_classes)
    found = zip(rows.tolist(), columns.tolist(), counts[order].tolist(), strict=True)
    return [(names[row], names[column], count) for row, column, count in found]


def annotators(dataset: Any, results: FindLabelIssuesResults) -> tuple[str | None, dict[str, int]]:
    """Return the field that says who gave each label, and how many of each one's labels are left to review.

    The field is an attribute of the label or of the sample, with one of the usual names; None where there is none.
    """
    field = annotator_field(dataset, results.config.label_field)
    return field, {} if field is None else _left_by(dataset, results, field)


def groups(dataset: Any, results: FindLabelIssuesResults, most: int = 50) -> tuple[str | None, dict[str, int]]:
    """Return the field of the groups of the run, None for none, and how many labels are left of those with most."""
    field = groups_field(dataset, results)
    return field, {} if field is None else dict(list(_left_by(dataset, results, field).items())[:most])


def groups_field(dataset: Any, results: FindLabelIssuesResults) -> str | None:
    """Return the field of the groups that the run kept in one fold; None where there is none, or it is gone."""
    field = (results.config.settings or {}).get("group_field")
    return field if isinstance(field, str) and field in dataset.get_field_schema() else None


def splits(results: FindLabelIssuesResults, done: Reviews) -> dict[str, int]:
    """Return how many labels are left to review of each split; nothing where there are no splits."""
    if results.issues.splits is None:
        return {}
    names, counts = np.unique(results.issues.splits[done.left(results)], return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _left_by(dataset: Any, results: FindLabelIssuesResults, field: str) -> dict[str, int]:
    """Count what is left to review by the value of a field, as text, the most frequent first."""
    fields = results.fields
    left_ = {fields.is_issue: True, fields.review: UNREVIEWED, field: {"$ne": None}}
    stages = [{"$match": left_}, {"$group": {"_id": f"${field}", "n": {"$sum": 1}}}, {"$sort": {"n": -1, "_id": 1}}]
    return {str(row["_id"]): row["n"] for row in dataset._sample_collection.aggregate(stages)}


def of_pair(results: FindLabelIssuesResults, done: Reviews, given: str, suggested: str) -> BoolArray:
    """Return what (n,) is left to review of one pair of classes."""
    issues = results.issues
    at = (issues.labels == _number(results, given)) & (issues.suggested == _number(results, suggested))
    return done.left(results) & at


def of_annotator(dataset: Any, results: FindLabelIssuesResults, name: str) -> BoolArray:
    """Return which labels (n,) one annotator gave. Raises InputError where the labels do not say who gave them."""
    field, _ = annotators(dataset, results)
    if field is None:
        raise InputError("the labels say nothing of who gave them.")
    return _mask(results, {field: name})


def of_group(dataset: Any, results: FindLabelIssuesResults, name: str) -> BoolArray:
    """Return which samples (n,) are of a group, named as `groups` does. Raises InputError for a run without groups."""
    field, _ = groups(dataset, results)
    if field is None:
        raise InputError(f"the run {results.key!r} knows of no groups.")
    return _mask(results, {"$expr": {"$eq": [{"$toString": f"${field}"}, name]}})


def of_split(results: FindLabelIssuesResults, name: str) -> BoolArray:
    """Return which samples (n,) are of a split. Raises InputError for one that the run does not know."""
    known = results.issues.splits
    if known is None or name not in known:
        raise InputError(f"the run {results.key!r} has no split {name!r}.")
    return np.asarray(known == name)


def told_by(dataset: Any, results: FindLabelIssuesResults, sample_id: str) -> dict[str, str]:
    """Return what the sample itself says, name -> value: who labelled it, and its group."""
    fields = [annotator_field(dataset, results.config.label_field), groups_field(dataset, results)]
    wanted = [field for field in fields if field is not None]
    if not wanted:
        return {}
    values = dataset.select(sample_id).values(wanted)
    return {
        field.rsplit(".", 1)[-1].replace("_", " "): str(value[0])
        for field, value in zip(wanted, values, strict=True)
        if value and value[0] is not None
    }


def labels_of_copies(results: FindLabelIssuesResults, row: int) -> list[str]:
    """Return the other classes that copies of an image, exact or near ones, have by now; excluded copies have none."""
    copies = copies_of(results.issues, row)
    fields, label_field = results.fields, results.config.label_field
    query = {"_id": {"$in": object_ids([one.decode() for one in results.ids[copies]])}}
    wanted = {f"{label_field}.label": 1, fields.review: 1}
    found = list(results.samples._dataset._sample_collection.find(query, wanted))
    labels = {
        str(one["_id"]): (one.get(label_field) or {}).get("label")
        for one in found
        if one.get(fields.review) != EXCLUDED
    }
    own = labels.pop(results.ids[row].decode(), None)
    return sorted({label for label in labels.values() if label not in (own, None)})


def _mask(results: FindLabelIssuesResults, query: dict[str, Any]) -> BoolArray:
    """Return which samples (n,) of the run a query finds."""
    samples = results.samples._dataset._sample_collection.find(query, {"_id": 1})
    rows = results.rows([str(sample["_id"]) for sample in samples])
    mask = np.zeros(len(results.ids), np.bool_)
    mask[rows[rows >= 0]] = True
    return mask


def confused(results: FindLabelIssuesResults) -> npt.NDArray[np.int64] | csr_array:
    """Count flagged labels by given class (row) and suggested class (column), (K, K), as `pairs_counted`."""
    return _confused(results.issues)


@lru_cache(maxsize=8)
def _confused(issues: LabelIssues) -> npt.NDArray[np.int64] | csr_array:
    """Count once, not whenever the panel is shown."""
    flagged = issues.is_label_issue
    return pairs_counted(issues.labels[flagged], issues.suggested[flagged], issues.n_classes)


def quality_histogram(results: FindLabelIssuesResults) -> tuple[IntArray, IntArray]:
    """Count flagged and other labels in each of QUALITY_BINS equal steps of quality from 0 to 1, (bins,) each."""
    return _quality_histogram(results.issues)


@lru_cache(maxsize=8)
def _quality_histogram(issues: LabelIssues) -> tuple[IntArray, IntArray]:
    """Count once, not whenever the panel is shown."""
    step = np.minimum((issues.label_quality * QUALITY_BINS).astype(np.int64), QUALITY_BINS - 1)
    flagged = np.bincount(step[issues.is_label_issue], minlength=QUALITY_BINS)
    others = np.bincount(step[~issues.is_label_issue], minlength=QUALITY_BINS)
    return flagged, others


def cell(results: FindLabelIssuesResults, given: str, suggested: str) -> Any:
    """Return the view of flagged samples of one cell of the matrix, worst first."""
    issues = results.issues
    at = (issues.labels == _number(results, given)) & (issues.suggested == _number(results, suggested))
    return worst_first(results, issues.is_label_issue & at)


def quality_bin(results: FindLabelIssuesResults, number: int) -> Any:
    """Return the view of all samples of one bar of the histogram, worst first."""
    if not 0 <= number < QUALITY_BINS:
        raise InputError(f"the bar is {number}; there are {QUALITY_BINS}, counted from 0.")
    step = np.minimum((results.issues.label_quality * QUALITY_BINS).astype(np.int64), QUALITY_BINS - 1)
    return worst_first(results, step == number)


def given_class(results: FindLabelIssuesResults, name: str) -> Any:
    """Return the view of flagged samples that were given one class, worst first."""
    return worst_first(results, results.issues.is_label_issue & (results.issues.labels == _number(results, name)))


def left(results: FindLabelIssuesResults, done: Reviews) -> Any:
    """Return the view of the work queue, worst first."""
    return select(results, queue(results, done))


def flagged(results: FindLabelIssuesResults) -> Any:
    """Return the view of all flagged samples, worst first."""
    return worst_first(results, results.issues.is_label_issue)


def unreviewed_flagged_ids(samples: Any, results: FindLabelIssuesResults, *, contradictions: bool = False) -> list[str]:
    """Return the flagged samples of a dataset or view, with `contradictions` these too, that nobody has reviewed."""
    fields, here = results.fields, fo.ViewField
    wanted = here(fields.is_issue)
    if contradictions and contradiction(results.issues).any():
        wanted = wanted | here(fields.of("contradiction"))
    return list(samples.match(wanted & (here(fields.review) == UNREVIEWED)).values("id"))


def worst_first(results: FindLabelIssuesResults, rows: BoolArray) -> Any:
    """Return the view of some samples (n,) of a run, worst first."""
    worst = _worst_first(results.issues)
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
