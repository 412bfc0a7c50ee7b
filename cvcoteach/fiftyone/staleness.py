"""What has changed in a dataset since a run: samples added, removed, relabelled elsewhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cvcoteach.fiftyone.fields import STATUSES, UNREVIEWED
from cvcoteach.fiftyone.runs import FindLabelIssuesResults


def changes_since(dataset: Any, results: FindLabelIssuesResults) -> list[str]:
    """What the run does not know, a sentence each; nothing where it is up to date.

    Added are the samples that came after the run began; what a run of a view left out is not counted. A sample is
    relabelled where its label is not the one that the run judged and nobody has reviewed it. The database counts, and
    only samples that have been modified since the run are read: a form that is resolved at every key stroke may ask.
    """
    samples, review = dataset._sample_collection, results.fields.review
    as_of, saved_at = (datetime.fromisoformat(results.info[name]) for name in ("as_of", "saved_at"))
    later, judged = {"created_at": {"$gt": as_of}}, {review: {"$in": list(STATUSES)}}
    n_there = samples.count_documents(judged) - samples.count_documents(
        {**later, **judged}
    )  # without copies made since
    changes = (
        (samples.count_documents(later), "added; the run knows nothing of them"),
        (len(results.ids) - n_there, "removed"),
        (_relabelled(samples, results, saved_at), "relabelled elsewhere; its suggestions are not for them"),
    )
    return [f"Since the run {n:,} sample{' was' if n == 1 else 's were'} {what}." for n, what in changes if n > 0]


def _relabelled(samples: Any, results: FindLabelIssuesResults, saved_at: datetime) -> int:
    label_field, review = results.config.label_field, results.fields.review
    query = {"last_modified_at": {"$gt": saved_at}, review: UNREVIEWED}
    ids, labels = [], []
    for sample in samples.find(query, {f"{label_field}.label": 1}):
        ids.append(str(sample["_id"]))
        labels.append((sample.get(label_field) or {}).get("label"))
    return sum(given is not None and given != now for given, now in zip(results.given(ids), labels, strict=True))
