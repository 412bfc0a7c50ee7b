"""Labels changed by other means, such as FiftyOne's own Annotate tab: noticed, put on record, counted as reviewed.

Nothing of it is written to a label, and no undo takes it back: it was not done here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from bson import ObjectId

from cvcoteach.fiftyone.store.audit import EDIT, Change, Document, name_of
from cvcoteach.fiftyone.store.fields import ACCEPTED, SET, STATUSES, UNREVIEWED, now
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import actions
from cvcoteach.fiftyone.work.actions import CARRIED, Action
from cvcoteach.fiftyone.work.reviews import OVERLAP

UNKNOWN = "unknown"
"""Who made an edit: FiftyOne does not record it."""

_looked_at: dict[tuple[ObjectId, str], datetime] = {}
"""By dataset and run, until when this process has looked."""


def catch_up(dataset: Any, results: FindLabelIssuesResults) -> None:
    """Write what a killed process left unwritten, and put on record what was edited by other means."""
    actions.settle(dataset, results)
    notice(dataset, results)


def notice(dataset: Any, results: FindLabelIssuesResults) -> int:
    """Record labels that were given another class by other means since the last look, as set; return how many.

    Only samples modified since are read. A label that was taken away is no new label, and stays unreviewed.
    """
    fields, label_field = results.fields, results.config.label_field
    key = (dataset._doc.id, results.config.run_id)
    since = _looked_at.get(key) or datetime.fromisoformat(results.info["saved_at"])
    query = {"last_modified_at": {"$gte": since}, fields.review: {"$in": list(STATUSES)}}
    wanted = (f"{label_field}.label", fields.review, f"{fields.suggested}.label")
    looked = now()
    samples = list(dataset._sample_collection.find(query, dict.fromkeys(wanted, 1)))
    n = _record(dataset, results, _suspects(samples, results)) if samples else 0
    _looked_at[key] = max(since, looked - OVERLAP)
    return n


def _suspects(samples: list[Document], results: FindLabelIssuesResults) -> list[ObjectId]:
    """Return the samples whose label is not plainly the one that their review says."""
    fields, label_field = results.fields, results.config.label_field
    found = []
    given = results.given([str(sample["_id"]) for sample in samples])
    for sample, judged in zip(samples, given, strict=True):
        status, label = sample[fields.review], name_of(sample.get(label_field))
        plain = {UNREVIEWED: judged, ACCEPTED: name_of(sample.get(fields.suggested))}.get(status)
        if label and judged is not None and label != plain:
            found.append(sample["_id"])
    return found


def _record(dataset: Any, results: FindLabelIssuesResults, ids: list[ObjectId]) -> int:
    """Put on record those of the samples whose label is another than that of their last correction."""
    fields, label_field = results.fields, results.config.label_field
    names = ("filepath", label_field, fields.review, f"{fields.suggested}.{CARRIED}", "last_modified_at")
    done = 0
    for chunk in actions.chunks(ids):
        audit = actions.audit_of(dataset, results)
        # in this order, as for any correction: what is on record by now is written before the samples are read, and
        # what comes later takes our link's place
        lengths = audit.lengths(chunk)
        actions.settle(dataset, results)
        standing = audit.effective(list(lengths))
        changes, times = [], []
        for sample in actions.read_samples(dataset, chunk, names):
            link, label = standing.get(sample["_id"]), sample.get(label_field)
            (judged,) = results.given([str(sample["_id"])])
            carried = (sample.get(fields.suggested) or {}).get(CARRIED)
            if link is None and carried is not None and not lengths.get(sample["_id"]):
                continue  # corrected in the dataset that this one was cloned or imported from
            before = link["new"] if link is not None else {**(label or {}), "label": judged}
            if name_of(label) in ("", name_of(before)):
                continue
            change = Change(
                sample["_id"], sample["filepath"], before, label, sample[fields.review], SET, carried, noticed=True
            )
            changes.append(change)
            times.append(sample["last_modified_at"])
        if changes:
            doing = Action(dataset, results, EDIT, UNKNOWN, max(times))
            doing.carry_out(changes, lengths)
            done += len(doing.ids)
    return done


def edited(dataset: Any, results: FindLabelIssuesResults, ids: list[ObjectId]) -> set[ObjectId]:
    """Return the samples whose last word is an edit by other means."""
    standing = actions.audit_of(dataset, results).effective(ids)
    return {sample_id for sample_id, link in standing.items() if link.get("noticed")}


def n_edited(dataset: Any, results: FindLabelIssuesResults) -> int:
    """Count the samples whose last word is an edit by other means."""
    touched = actions.audit_of(dataset, results).edited_samples()
    return int(np.sum([len(edited(dataset, results, chunk)) for chunk in actions.chunks(touched)])) if touched else 0
