"""LabelIssues of some of the images of a run."""

from __future__ import annotations

import numpy as np

from cvcoteach._validation import BoolArray, IntArray
from cvcoteach.issues.label_issues import LabelIssues


def issues_of_rows(issues: LabelIssues, rows: IntArray | BoolArray) -> LabelIssues:
    """Return the issues of some images, by index (m,) or mask (n,); transition, prior and classes stay those of all."""
    return issues.subset(np.arange(len(issues.labels))[rows])
