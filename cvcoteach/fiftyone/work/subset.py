"""LabelIssues of some of the images of a run."""

from __future__ import annotations

from dataclasses import replace

from cvcoteach._validation import BoolArray, IntArray
from cvcoteach.issues.label_issues import LabelIssues

_PER_IMAGE = ("labels", "predicted", "label_quality", "is_label_issue", "suggested", "suggested_prob")


def issues_of_rows(issues: LabelIssues, rows: IntArray | BoolArray) -> LabelIssues:
    """Return the issues of some images, by index (m,) or mask (n,); transition, prior and classes stay those of all."""
    return replace(issues, **{name: getattr(issues, name)[rows] for name in _PER_IMAGE})
