"""Samples to be judged without our suggestion: random checks alone, or a share of the review queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cvcoteach._validation import InputError, IntArray
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.browse import Reviews
from cvcoteach.fiftyone.work.figures import spot_checks
from cvcoteach.fiftyone.work.unseen import marked

SHARES = (0.0, 0.05, 0.1, 0.2)
"""Shares of the queue that a person may choose to see blind."""


def due(results: FindLabelIssuesResults, done: Reviews) -> IntArray:
    """Return the rows of the random checks nobody has done, in their order; none where nothing is flagged."""
    checks = spot_checks(results.issues)
    if checks is None:
        return np.zeros(0, np.int64)
    return checks.indices[done.open(np.ones(len(results.ids), np.bool_))[checks.indices]]


@dataclass(frozen=True, eq=False)
class Queue:
    """Samples to review, some of them without our suggestion."""

    rows: IntArray
    """(m,) in the order to look at them."""
    unseen: IntArray
    """(b,) those of them that are shown without it."""


def queue(results: FindLabelIssuesResults, done: Reviews, share: float) -> Queue:
    """Return the review queue, random checks spread over it evenly.

    share: of the samples shown that are random checks, as far as there are so many, in [0, 1). Raises InputError for
    another one.
    """
    if not 0 <= share < 1:
        raise InputError(f"the blind share is {share:g}; it lies between 0 and 1.")
    rows = browse.queue(results, done)
    drawn = due(results, done) if share and len(rows) else rows[:0]
    if not len(drawn):
        return Queue(rows, np.zeros(0, np.int64))
    drawn = drawn[: max(round(share * len(rows) / (1 - share)), 1)]
    rest = rows[~np.isin(rows, drawn)]
    places = np.linspace(0, len(rest), len(drawn), endpoint=False).astype(np.int64)
    return Queue(np.insert(rest, places, drawn), drawn)


def view(results: FindLabelIssuesResults, shown: Queue) -> Any:
    """Return the view of a queue, without anything that a run says where some are to be judged unseen."""
    found = browse.select(results, shown.rows)
    if not len(shown.unseen):
        return found
    dataset = results.samples._dataset
    schema = dataset.get_field_schema()
    ours = [name for key in {*runs.keys(dataset), results.key} for name in Fields(key).all]  # others suggest, too
    hidden = sorted(name for name in ours if name in schema and name != results.fields.review)
    ids = [sample_id.decode() for sample_id in results.ids[shown.unseen]]
    return marked(found, ids).exclude_fields(hidden)
