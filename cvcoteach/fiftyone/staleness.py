"""What has changed in a dataset since a run: samples added, removed, relabelled elsewhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from cvcoteach.fiftyone.fields import UNREVIEWED
from cvcoteach.fiftyone.runs import FindLabelIssuesResults


def changes_since(dataset: Any, results: FindLabelIssuesResults) -> list[str]:
    """What the run does not know, a sentence each; nothing where it is up to date. One query.

    A sample is relabelled where nobody has reviewed it and its label is not the one that the run judged. Added are the
    samples that came after the run; what a run of a view left out is not counted.
    """
    label_field, review = results.config.label_field, results.fields.review
    then = datetime.fromisoformat(results.info["as_of"])
    ids, labels, reviews, created = [], [], [], []
    wanted = {f"{label_field}.label": 1, review: 1, "created_at": 1}
    for sample in dataset._sample_collection.find({}, wanted):
        ids.append(str(sample["_id"]))
        labels.append((sample.get(label_field) or {}).get("label"))
        reviews.append(sample.get(review))
        created.append(sample.get("created_at"))
    rows = results.rows(ids)
    n_added = sum(row < 0 and when is not None and when > then for row, when in zip(rows, created, strict=True))
    n_removed = len(results.ids) - int((rows >= 0).sum())
    names = results.issues.class_names
    given = [names[k] for k in results.issues.labels[np.maximum(rows, 0)]]
    n_relabelled = sum(
        row >= 0 and status == UNREVIEWED and now != then_given
        for row, status, now, then_given in zip(rows, reviews, labels, given, strict=True)
    )
    return [
        f"Since the run {n:,} sample{' was' if n == 1 else 's were'} {what}."
        for n, what in (
            (n_added, "added; the run knows nothing of them"),
            (n_removed, "removed"),
            (n_relabelled, "relabelled elsewhere; its suggestions are not for them"),
        )
        if n
    ]
