"""Find what has changed in a dataset since a run: samples added, removed, relabelled elsewhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bson import ObjectId

from cvcoteach.fiftyone.store.fields import STATUSES, UNREVIEWED, now
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults

_SOME = 20
"""Samples of a run that tell when all of them came; hardly all of these are deleted."""


def as_it_is(dataset: Any) -> dict[str, Any]:
    """Return what a run that begins now will be compared with; call it before the labels are read."""
    return {"as_of": now().isoformat(), "n_in_dataset": dataset._sample_collection.estimated_document_count()}


def changes_since(dataset: Any, results: FindLabelIssuesResults) -> list[str]:
    """Return what the run does not cover, one sentence each; nothing where it is up to date.

    Samples count as added if they came after the run began, so what a run of a view left out does not count. A sample
    counts as relabelled if its label is not the one that the run judged and nobody has reviewed it. The database does
    the counting, and only samples modified since the run are read, so that a form may ask at every key stroke.
    """
    n_added = dataset._sample_collection.count_documents(_later(dataset, results))
    changes = (
        (n_added, "added and not checked"),
        (n_removed(dataset, results), "removed"),
        (_n_relabelled(dataset, results), "relabelled elsewhere, after the suggestions were made"),
    )
    return [f"Since the run, {n:,} sample{' was' if n == 1 else 's were'} {what}." for n, what in changes if n > 0]


def n_removed(dataset: Any, results: FindLabelIssuesResults) -> int:
    """Count the samples of the run that were deleted, in the database; that takes long only where some may be."""
    samples, judged = dataset._sample_collection, {results.fields.review: {"$in": list(STATUSES)}}
    as_many = results.info.get("n_in_dataset") == samples.estimated_document_count()
    newer = {"created_at": {"$gt": datetime.fromisoformat(results.info["as_of"])}}  # all those of a clone or an import
    if as_many and samples.find_one(newer, {"_id": 1}) is None:
        return 0
    copies = samples.count_documents({**_later(dataset, results), **judged})  # made since, with the run's fields
    return len(results.ids) - samples.count_documents(judged) + copies


def _later(dataset: Any, results: FindLabelIssuesResults) -> dict[str, Any]:
    """Return the query for samples made after those of the run, which a clone or an import dates anew, all alike."""
    as_of = datetime.fromisoformat(results.info["as_of"])
    some = [ObjectId(sample_id.decode()) for sample_id in results.ids[:_SOME]]
    there = dataset._sample_collection.find({"_id": {"$in": some}}, {"created_at": 1})
    return {"created_at": {"$gt": max([as_of, *(sample["created_at"] for sample in there)])}}


def _n_relabelled(dataset: Any, results: FindLabelIssuesResults) -> int:
    label_field, review = results.config.label_field, results.fields.review
    query = {"last_modified_at": {"$gt": datetime.fromisoformat(results.info["saved_at"])}, review: UNREVIEWED}
    ids, labels = [], []
    for sample in dataset._sample_collection.find(query, {f"{label_field}.label": 1}):
        ids.append(str(sample["_id"]))
        labels.append((sample.get(label_field) or {}).get("label"))
    return sum(given is not None and given != now for given, now in zip(results.given(ids), labels, strict=True))
