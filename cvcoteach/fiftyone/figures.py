"""The numbers at the head of the panel: how much is wrong, how good the flags are, what has been reviewed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cvcoteach._checks import BoolArray, FloatArray
from cvcoteach.fiftyone.browse import Reviews
from cvcoteach.fiftyone.fields import UNREVIEWED
from cvcoteach.fiftyone.runs import FindLabelIssuesResults

_Z90 = 1.645
_MISCALIBRATION = 0.1
"""Standard deviation, before any review, of how far the mean posterior is from the share that is truly wrong."""


@dataclass(frozen=True)
class Share:
    """An estimated share with a 90 % interval, all in [0, 1]."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As people read it: 81 % (74-87 %)."""
        return f"{self.value:.0%} ({self.low:.0%}\u2013{self.high:.0%})"


@dataclass(frozen=True)
class Headline:
    """A run at a glance."""

    n_samples: int
    n_issues: int
    noise_ratio: float | None
    """Expected share of wrong labels; None where the scores only rank."""
    precision: Share | None
    """Share of the flagged that are wrong."""
    recall: Share | None
    """Share of the wrong that are flagged."""
    counts: Mapping[str, int]
    """Samples of each review status."""
    n_left: int
    """Flagged samples nobody has reviewed."""

    @property
    def n_reviewed(self) -> int:
        """Samples somebody has reviewed."""
        return sum(count for status, count in self.counts.items() if status != UNREVIEWED)


def headline(results: FindLabelIssuesResults, done: Reviews) -> Headline:
    """The figures of a run, with what reviews have told so far."""
    issues = results.issues
    left = issues.is_label_issue & ~done.reviewed
    noise_ratio = precision = recall = None
    if issues.fits:
        wrong = np.where(done.reviewed, done.was_wrong, issues.wrong)
        noise_ratio = float(wrong.mean())
        precision, recall = quality_of_flags(issues.is_label_issue, issues.wrong, done.reviewed, done.was_wrong)
    return Headline(len(issues.labels), issues.n_issues, noise_ratio, precision, recall, done.counts, int(left.sum()))


def quality_of_flags(
    flagged: BoolArray, wrong: FloatArray, reviewed: BoolArray, was_wrong: BoolArray
) -> tuple[Share | None, Share | None]:
    """Precision and recall of the flags; None where nothing is flagged.

    flagged, reviewed, was_wrong: (n,); wrong: (n,) posterior probability that the label is wrong.

    Reviewed labels are known. The others count with their posterior, shifted by how far the posterior was off on the
    reviewed of the same side of the flag, that shift shrunk towards 0 by a normal prior. The interval holds the
    chance of each label and the uncertainty of the shift; it closes as the reviews cover the set.
    """
    if not flagged.any():
        return None, None
    hits, hits_variance = _count_wrong(wrong[flagged], reviewed[flagged], was_wrong[flagged])
    missed, missed_variance = _count_wrong(wrong[~flagged], reviewed[~flagged], was_wrong[~flagged])
    n = int(flagged.sum())
    precision = _share(hits / n, hits_variance / n**2)
    total = hits + missed
    if total <= 0:
        return precision, None
    # delta method on hits / (hits + missed)
    variance = (missed**2 * hits_variance + hits**2 * missed_variance) / total**4
    return precision, _share(hits / total, variance)


def _count_wrong(wrong: FloatArray, reviewed: BoolArray, was_wrong: BoolArray) -> tuple[float, float]:
    """Expected number of wrong labels and its variance."""
    m, u = int(reviewed.sum()), int((~reviewed).sum())
    chance = wrong * (1 - wrong)
    spread = float(chance.mean()) if len(wrong) else 0.0
    # a set whose mean posterior is near 0 or 1 cannot be far off on that side
    prior = (_MISCALIBRATION * min(1.0, 4 * float(np.mean(wrong * (1 - wrong))) + 0.1)) ** 2 if len(wrong) else 0.0
    weight = m / max(spread, 0.01)
    shift = float((was_wrong[reviewed] - wrong[reviewed]).sum()) / max(spread, 0.01) / (1 / max(prior, 1e-9) + weight)
    shift_variance = 1 / (1 / max(prior, 1e-9) + weight)
    rest = float(np.clip(wrong[~reviewed] + shift, 0, 1).sum())
    return float(was_wrong[reviewed].sum()) + rest, float(chance[~reviewed].sum()) + u**2 * shift_variance


def _share(value: float, variance: float) -> Share:
    half = _Z90 * float(np.sqrt(variance))
    return Share(value, max(0.0, value - half), min(1.0, value + half))
