"""Who gave the labels: the attribute that says so, and how right each one's labels are expected to be."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import numpy as np

from cvcoteach.fiftyone.store.fields import Ids
from cvcoteach.issues.label_issues import LabelIssues

NAMES = ("annotator", "annotated_by", "annotator_id", "labeler", "labeled_by", "rater", "worker", "worker_id")
"""Usual names of the attribute that says who gave a label."""
MOST = 500
"""Annotators that are kept with a run, the least reliable ones."""


def annotator_field(dataset: Any, label_field: str) -> str | None:
    """Return the field that says who gave each label, an attribute of the label or of the sample; None for none."""
    schema = dataset.get_field_schema(flat=True)
    places = [f"{where}{name}" for where in (f"{label_field}.", "") for name in NAMES]
    return next((place for place in places if isinstance(schema.get(place), fo.StringField)), None)


def annotators_of(samples: Any, label_field: str, ids: Ids, issues: LabelIssues) -> list[dict[str, Any]]:
    """Return a record per annotator, the least reliable first: annotator, n_labels, n_flagged, quality.

    quality: expected share of right labels, in [0, 1], None without a signal. Nothing where nobody says who gave the
    labels. ids: (n,) of the labels.
    """
    field = annotator_field(samples._dataset, label_field)
    if field is None:
        return []
    by_id = dict(zip(*samples.values(["id", field]), strict=True))
    named = [by_id.get(sample_id.decode()) for sample_id in ids]
    rows = np.flatnonzero([name is not None for name in named])
    names, who = np.unique(np.array([named[row] for row in rows], dtype=str), return_inverse=True)
    n_labels = np.bincount(who, minlength=len(names))
    flagged = np.bincount(who, issues.is_label_issue[rows], minlength=len(names)).astype(np.int64)
    quality = np.bincount(who, issues.label_quality[rows], minlength=len(names)) / np.maximum(n_labels, 1)
    order = np.argsort(quality if issues.has_signal else -flagged / np.maximum(n_labels, 1), kind="stable")[:MOST]
    return [
        {
            "annotator": str(names[i]),
            "n_labels": int(n_labels[i]),
            "n_flagged": int(flagged[i]),
            "quality": round(float(quality[i]), 4) if issues.has_signal else None,
        }
        for i in order
    ]
