"""What people have decided about the samples of a run: read once, then only what was modified since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray
from cvcoteach.fiftyone.store.fields import EXCLUDED, STATUSES, UNREVIEWED, now
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work.staleness import n_removed

OVERLAP = timedelta(seconds=10)
"""Samples are looked at again for so long after they were modified: clocks of two computers differ."""
_MOST_KNOWN = 8
"""Runs whose reviews are remembered."""

_known_removed: dict[tuple[Any, str], tuple[Any, BoolArray | None]] = {}
"""By dataset and run: when a sample was last deleted, and which of the run's are gone."""


@dataclass(frozen=True, eq=False)
class Reviews:
    """The decisions that people have made so far about the samples of a run."""

    status: npt.NDArray[np.object_]
    """(n,) the review status, in the order of the run."""
    was_wrong: BoolArray
    """(n,) whether the reviewed label turned out wrong: another class now, or excluded. False where unreviewed."""
    removed: BoolArray | None = None
    """(n,) whether the sample was deleted; None where all exist."""

    @cached_property
    def reviewed(self) -> BoolArray:
        """(n,) whether a person has looked at it."""
        return np.asarray(self.status != UNREVIEWED)

    def left(self, results: FindLabelIssuesResults) -> BoolArray:
        """Return which samples (n,) are flagged, exist, and are not reviewed."""
        return self.open(results.issues.is_label_issue)

    def open(self, rows: BoolArray) -> BoolArray:
        """Return which of some samples (n,) exist and are not reviewed."""
        rows = rows & ~self.reviewed
        return rows if self.removed is None else rows & ~self.removed

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Samples per review status."""
        found = Counter(self.status[self.reviewed].tolist())
        found[UNREVIEWED] = len(self.status) - found.total()
        return {status: found[status] for status in STATUSES}


@dataclass(frozen=True, eq=False)
class _Read:
    """Reviews as this process has read them."""

    until: datetime
    """What was modified before is in them."""
    deleted: Any
    """When a sample was last deleted by then."""
    reviews: Reviews


_known: dict[tuple[Any, ...], _Read] = {}
"""By dataset and run."""


def reviews(dataset: Any, results: FindLabelIssuesResults) -> Reviews:
    """Read the reviews of a run: all of them once, and after a deletion; then what was modified since the last look.

    As long as nobody reviews anything it is the same object, so that what was computed of it can be kept.
    """
    key = (dataset._doc.id, results.config.run_id, results.key, results.config.label_field)
    looked, deleted, known = now(), dataset._doc.last_deletion_at, _known.pop(key, None)
    review = results.fields.review
    if known is None or known.deleted != deleted or known.until > looked:
        query: dict[str, Any] = {review: {"$in": [status for status in STATUSES if status != UNREVIEWED]}}
        status = np.full(len(results.ids), UNREVIEWED, dtype=object)
        was_wrong = np.zeros(len(status), np.bool_)
    else:
        query = {"last_modified_at": {"$gte": known.until}}
        status, was_wrong = known.reviews.status.copy(), known.reviews.was_wrong.copy()
    _read(dataset, results, query, status, was_wrong)
    found = Reviews(status, was_wrong, _removed(dataset, results))
    if known is not None and _alike(known.reviews, found):
        found = known.reviews
    _known[key] = _Read(looked - OVERLAP, deleted, found)
    while len(_known) > _MOST_KNOWN:
        del _known[next(iter(_known))]
    return found


def _alike(one: Reviews, other: Reviews) -> bool:
    return (
        one.removed is other.removed
        and np.array_equal(one.was_wrong, other.was_wrong)
        and np.array_equal(one.status, other.status)
    )


def _read(
    dataset: Any,
    results: FindLabelIssuesResults,
    query: Mapping[str, Any],
    status: npt.NDArray[np.object_],
    was_wrong: BoolArray,
) -> None:
    """Put the reviews of the samples that a query finds into `status` and `was_wrong`, (n,) each."""
    review, label_field = results.fields.review, results.config.label_field
    samples = list(dataset._sample_collection.find(query, {review: 1, f"{label_field}.label": 1}))
    if not samples:
        return
    rows = results.rows([str(sample["_id"]) for sample in samples])
    labels = [(sample.get(label_field) or {}).get("label") for sample in samples]
    decided = np.array([sample.get(review) or UNREVIEWED for sample in samples], dtype=object)
    names = np.array(results.issues.class_names, dtype=object)
    other = np.array(labels, dtype=object) != names[results.issues.labels[rows]]
    ours = rows >= 0
    status[rows[ours]] = decided[ours]
    was_wrong[rows[ours]] = ((decided == EXCLUDED) | other & (decided != UNREVIEWED))[ours]


def _removed(dataset: Any, results: FindLabelIssuesResults) -> BoolArray | None:
    """Return which samples (n,) were deleted, None for none; looked up again only after a deletion."""
    key, deleted = (dataset._doc.id, results.config.run_id), dataset._doc.last_deletion_at
    if key not in _known_removed or _known_removed[key][0] != deleted:
        removed = None
        if n_removed(dataset, results):
            there = [str(sample["_id"]) for sample in dataset._sample_collection.find({}, {"_id": 1})]
            removed = ~np.isin(results.ids, np.array(there, dtype=results.ids.dtype))
        _known_removed[key] = deleted, removed
    return _known_removed[key][1]
