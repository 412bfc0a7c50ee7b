"""LabelIssues of some images, and what to suggest where the given label is flagged and yet the most probable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cvcoteach._validation import BoolArray, IntArray, PredProbs
from cvcoteach.issues.label_issues import LabelIssues


def rows_of(issues: LabelIssues, rows: IntArray | BoolArray) -> LabelIssues:
    """The issues of some images, by index or mask; what is about all of them stays."""
    per_image = ("labels", "predicted", "label_quality", "is_label_issue", "suggested", "suggested_prob")
    return replace(issues, **{name: getattr(issues, name)[rows] for name in per_image})


def another_suggested(issues: LabelIssues, pred_probs: PredProbs) -> LabelIssues:
    """Where a flagged label is also the most probable one, the most probable other is suggested.

    pred_probs: (n, K). A flag that suggests what is there already leaves nothing to accept.
    """
    same = np.flatnonzero(issues.is_label_issue & (issues.suggested == issues.labels))
    others = pred_probs[same].astype(np.float64)
    others[np.arange(len(same)), issues.labels[same]] = -1
    best = others.argmax(axis=1)
    suggested, prob = issues.suggested.copy(), issues.suggested_prob.copy()
    suggested[same] = best
    # of what the posterior leaves for the others, the share that the model gives this one
    share = others[np.arange(len(same)), best] / np.maximum(np.clip(others, 0, None).sum(axis=1), 1e-12)
    prob[same] = (1 - issues.label_quality[same]) * share
    return replace(issues, suggested=suggested, suggested_prob=prob)
