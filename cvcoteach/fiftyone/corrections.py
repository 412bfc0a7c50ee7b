"""Corrections: accept, keep, set, exclude, undo. The only code that writes to a label field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import pandas as pd
from bson import ObjectId
from pymongo import UpdateOne

from cvcoteach._checks import InputError
from cvcoteach.fiftyone import fields as fo_fields
from cvcoteach.fiftyone import runs
from cvcoteach.fiftyone.audit import UNDO, Audit, Change, Document, name_of
from cvcoteach.fiftyone.fields import ACCEPTED, EXCLUDED, KEPT, SET
from cvcoteach.fiftyone.runs import FindLabelIssuesResults

_CHUNK = 5_000


@dataclass(frozen=True)
class Correction:
    """What an action did."""

    what: str
    """"accept", "keep", "set", "exclude" or "undo"."""
    ids: tuple[str, ...]
    """The samples it corrected."""
    conflicts: int = 0
    """Samples left alone: corrected by someone else at the same moment, or their label was changed elsewhere."""
    not_in_run: int = 0
    """Samples left alone since the run did not judge them."""

    @property
    def message(self) -> str:
        """One sentence for people."""
        done = {"accept": "accepted", "keep": "kept", "set": "set", "exclude": "excluded", UNDO: "taken back"}[
            self.what
        ]
        noun = "correction" if self.what == UNDO else "label"
        parts = [f"{len(self.ids):,} {noun}{'s' * (len(self.ids) != 1)} {done}"]
        if self.conflicts:
            parts.append(f"{self.conflicts:,} left alone: changed elsewhere meanwhile")
        if self.not_in_run:
            parts.append(f"{self.not_in_run:,} left alone: not part of the run")
        return "; ".join(parts) + "."


Decide = Callable[[Document], tuple[Document | None, str]]
"""A sample as the database has it -> its label from now on, and its review status."""


def accept_suggestions(
    dataset: Any, ids: Sequence[str], brain_key: str | None = None, *, who: str | None = None
) -> Correction:
    """Give the samples the labels that the run suggests. Attributes and tags of the labels stay."""
    results = runs.load(dataset, brain_key)
    fields, label_field = results.fields, results.config.label_field

    def decide(sample: Document) -> tuple[Document | None, str]:
        return _with_class(sample.get(label_field), name_of(sample[fields.suggested])), ACCEPTED

    return _correct(dataset, results, ids, "accept", decide, who)


def keep_labels(
    dataset: Any, ids: Sequence[str], brain_key: str | None = None, *, who: str | None = None
) -> Correction:
    """Record that the given labels are right."""
    results = runs.load(dataset, brain_key)
    return _correct(dataset, results, ids, "keep", _unchanged(results, KEPT), who)


def exclude_samples(
    dataset: Any, ids: Sequence[str], brain_key: str | None = None, *, who: str | None = None
) -> Correction:
    """Record that the samples are of no use: no class fits. They stay in the dataset, exports leave them out."""
    results = runs.load(dataset, brain_key)
    return _correct(dataset, results, ids, "exclude", _unchanged(results, EXCLUDED), who)


def set_label(
    dataset: Any, ids: Sequence[str], label: str, brain_key: str | None = None, *, who: str | None = None
) -> Correction:
    """Give the samples the class `label`, a known or a new one. Attributes and tags of the labels stay."""
    name = label.strip() if isinstance(label, str) else ""
    if not name:
        raise InputError(f"the label is {label!r}; it takes the name of a class.")
    results = runs.load(dataset, brain_key)
    label_field = results.config.label_field
    return _correct(dataset, results, ids, "set", lambda sample: (_with_class(sample.get(label_field), name), SET), who)


def undo_corrections(
    dataset: Any, ids: Sequence[str] | None = None, brain_key: str | None = None, *, who: str | None = None
) -> Correction:
    """Take back the last action, or the last correction of each of the samples `ids`: labels are as before, exactly.

    A label that was changed elsewhere since is left alone. Undoing again takes back the action before.

    Raises InputError where there is nothing to take back.
    """
    results = runs.load(dataset, brain_key)
    audit = _audit(dataset, results)
    settle(dataset, results)
    if ids is not None:
        lengths = audit.lengths(fo_fields.object_ids(ids))
        tops = list(audit.effective(lengths).values())
        if not tops:
            raise InputError("these samples have no correction to take back.")
        return _take_back(dataset, results, audit, tops, lengths, None, who)
    for action in audit.undoable():
        lengths = audit.lengths(audit.samples_of(action))
        tops = [top for top in audit.effective(lengths).values() if top["action"] == action["_id"]]
        if tops:
            return _take_back(dataset, results, audit, tops, lengths, action, who)
    raise InputError("there is no correction to take back.")


def history(dataset: Any, brain_key: str | None = None) -> pd.DataFrame:
    """Every correction by a run, in order: when, who, sample, old -> new label and status; see `audit.COLUMNS`."""
    return _audit(dataset, runs.load(dataset, brain_key)).frame()


def settle(dataset: Any, results: FindLabelIssuesResults) -> int:
    """Write the fields of corrections that are on record, but whose process was killed before it wrote them."""
    audit = _audit(dataset, results)
    written = 0
    for action in audit.unfinished():
        changes = [
            Change(link["sample_id"], link["old"], link["new"], link["old_review"], link["new_review"])
            for link in audit.last_links(action)
        ]
        written += fo_fields.bulk_write(dataset, _updates(results, changes))
        audit.finish(action)
    return written


def _correct(
    dataset: Any, results: FindLabelIssuesResults, ids: Sequence[str], what: str, decide: Decide, who: str | None
) -> Correction:
    if not len(ids):
        raise InputError("no samples are chosen; select some, or open one.")
    fields, label_field = results.fields, results.config.label_field
    audit, wanted = _audit(dataset, results), fo_fields.object_ids(ids)
    # in this order: a correction made after the lengths are read takes our link's place, one made before is written
    lengths = audit.lengths(wanted)
    settle(dataset, results)
    changes = []
    for sample in _read(dataset, wanted, (label_field, fields.review, fields.suggested)):
        if sample.get(fields.review) is None:
            continue
        new, status = decide(sample)
        changes.append(Change(sample["_id"], sample.get(label_field), new, sample[fields.review], status))
    not_in_run = len(set(ids)) - len(changes)
    if not changes:
        raise InputError(f"none of the {len(ids):,} samples is part of the run {results.key!r}.")
    return _carry_out(dataset, results, audit, what, changes, lengths, who, not_in_run=not_in_run)


def _take_back(
    dataset: Any,
    results: FindLabelIssuesResults,
    audit: Audit,
    links: Sequence[Document],
    lengths: Mapping[ObjectId, int],
    action: Document | None,
    who: str | None,
) -> Correction:
    label_field = results.config.label_field
    ids = [link["sample_id"] for link in links]
    now = {sample["_id"]: sample.get(label_field) for sample in _read(dataset, ids, (label_field,))}
    changes = [
        Change(link["sample_id"], link["new"], link["old"], link["new_review"], link["old_review"], link["n"])
        for link in links
        if link["sample_id"] in now and now[link["sample_id"]] == link["new"]
    ]
    changed_elsewhere = len(links) - len(changes)
    if not changes:
        raise InputError(f"{changed_elsewhere:,} labels have been changed elsewhere since, and were left alone.")
    undoes = action["_id"] if action is not None else None
    return _carry_out(dataset, results, audit, UNDO, changes, lengths, who, conflicts=changed_elsewhere, undoes=undoes)


def _carry_out(
    dataset: Any,
    results: FindLabelIssuesResults,
    audit: Audit,
    what: str,
    changes: Sequence[Change],
    lengths: Mapping[ObjectId, int],
    who: str | None,
    *,
    conflicts: int = 0,
    not_in_run: int = 0,
    undoes: ObjectId | None = None,
) -> Correction:
    """Record first, write afterwards: killed in between, `settle` does the writing."""
    action = audit.begin(what, results.key, results.config.label_field, who, undoes)
    added, lost = audit.append(action, changes, lengths)
    fo_fields.bulk_write(dataset, _updates(results, added))
    audit.finish(action)
    return Correction(what, tuple(str(change.sample_id) for change in added), conflicts + len(lost), not_in_run)


def _updates(results: FindLabelIssuesResults, changes: Iterable[Change]) -> Iterator[UpdateOne]:
    """Only where label and status still are what the record says they were: nobody else's change is overwritten."""
    fields, label_field = results.fields, results.config.label_field
    now = datetime.now(UTC).replace(tzinfo=None)
    for change in changes:
        values: Document = {fields.review: change.new_review, "last_modified_at": now}
        if change.new != change.old:
            values[label_field] = change.new
        still = {"_id": change.sample_id, label_field: change.old, fields.review: change.old_review}
        yield UpdateOne(still, {"$set": values})


def _read(dataset: Any, ids: Sequence[ObjectId], names: Sequence[str]) -> Iterator[Document]:
    for start in range(0, len(ids), _CHUNK):
        query = {"_id": {"$in": list(ids[start : start + _CHUNK])}}
        yield from dataset._sample_collection.find(query, dict.fromkeys(names, 1))


def _audit(dataset: Any, results: FindLabelIssuesResults) -> Audit:
    return Audit(dataset, results.config.run_id)


def _unchanged(results: FindLabelIssuesResults, status: str) -> Decide:
    label_field = results.config.label_field
    return lambda sample: (sample.get(label_field), status)


def _with_class(label: Document | None, name: str) -> Document:
    """The label with another class. Its confidence and logits were about the old one."""
    if label is None:
        return dict(fo.Classification(label=name).to_dict())
    if label.get("label") == name:
        return label
    changed = {**label, "label": name}
    for about_the_old in ("confidence", "logits"):
        if changed.get(about_the_old) is not None:
            changed[about_the_old] = None
    return changed
