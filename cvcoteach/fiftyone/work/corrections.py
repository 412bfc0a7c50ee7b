"""Corrections: accept, keep, set, exclude, undo. The only code that writes to a label field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import bson
import fiftyone as fo
import numpy as np
import pandas as pd
from bson import ObjectId

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store import audit as record
from cvcoteach.fiftyone.store import fields as fo_fields
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.audit import UNDO, Document, name_of
from cvcoteach.fiftyone.store.fields import ACCEPTED, EXCLUDED, KEPT, SET, UNREVIEWED
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work.actions import (
    CARRIED,
    CHANGED_ELSEWHERE,
    Action,
    audit_of,
    change_of,
    chunks,
    read_samples,
)
from cvcoteach.fiftyone.work.actions import settle as settle
from cvcoteach.fiftyone.work.edits import catch_up, edited

NOT_IN_RUN = "not part of the run"
RELABELLED = "relabelled since the run"
DELETED = "deleted in the meantime"
WITHOUT_SUGGESTION = "flagged without another label to suggest"
_DONE = {"accept": "accepted", "keep": "kept", "set": "set", "exclude": "excluded", UNDO: "taken back"}


@dataclass(frozen=True)
class Correction:
    """The outcome of an action."""

    what: str
    """"accept", "keep", "set", "exclude" or "undo"."""
    ids: tuple[str, ...]
    """The samples it corrected."""
    left_alone: Mapping[str, int] = field(default_factory=dict)
    """How many samples it left alone, by reason."""

    @property
    def conflicts(self) -> int:
        """Samples left alone: corrected by someone else at the same moment, or their label was changed elsewhere."""
        return self.left_alone.get(CHANGED_ELSEWHERE, 0)

    @property
    def message(self) -> str:
        """The outcome in one sentence, for people."""
        noun = "correction" if self.what == UNDO else "label"
        done = f"{len(self.ids):,} {noun}{'s' * (len(self.ids) != 1)} {_DONE[self.what]}"
        return "; ".join([done, *(f"{n:,} left alone: {why}" for why, n in self.left_alone.items())]) + "."


Decide = Callable[[Document], "tuple[Document | None, str] | str"]
"""A sample as the database has it -> its label from now on and its review status; or why it is left alone."""


def accept_suggestions(
    dataset: Any, ids: Sequence[str], brain_key: str | None = None, *, who: str | None = None, press: str | None = None
) -> Correction:
    """Give the samples the labels that the run suggests. Attributes and tags of the labels stay.

    A label that somebody else has changed since the run is left alone: the suggestion was not made for it.

    press: 24 hex digits chosen by the caller; the same ones again return what was done, and do nothing.
    """
    results = runs.load(dataset, brain_key)
    fields, label_field = results.fields, results.config.label_field
    given = dict(zip(ids, results.given(ids), strict=True))

    def decide(sample: Document) -> tuple[Document | None, str] | str:
        label, suggested = sample.get(label_field), name_of(sample[fields.suggested])
        now = name_of(label)
        if sample[fields.review] == UNREVIEWED:
            if now != given[str(sample["_id"])]:
                return RELABELLED
            if now == suggested and sample.get(fields.is_issue):
                return WITHOUT_SUGGESTION
        return _with_class(label, suggested), ACCEPTED

    return _correct(Action(dataset, results, "accept", who, press=press), ids, decide, edits_stay=True)


def keep_labels(
    dataset: Any, ids: Sequence[str], brain_key: str | None = None, *, who: str | None = None, press: str | None = None
) -> Correction:
    """Record that the labels are right as they are."""
    results = runs.load(dataset, brain_key)
    return _correct(Action(dataset, results, "keep", who, press=press), ids, _unchanged(results, KEPT))


def exclude_samples(
    dataset: Any, ids: Sequence[str], brain_key: str | None = None, *, who: str | None = None, press: str | None = None
) -> Correction:
    """Record that the samples are unusable: no class fits. They stay in the dataset; exports leave them out."""
    results = runs.load(dataset, brain_key)
    return _correct(Action(dataset, results, "exclude", who, press=press), ids, _unchanged(results, EXCLUDED))


def set_label(
    dataset: Any, ids: Sequence[str], label: str, brain_key: str | None = None, *, who: str | None = None
) -> Correction:
    """Give the samples the class `label`, a known or a new one. Attributes and tags of the labels stay."""
    name = label.strip() if isinstance(label, str) else ""
    if not name:
        raise InputError(f"the label is {label!r}; it takes the name of a class.")
    results = runs.load(dataset, brain_key)
    label_field = results.config.label_field
    doing = Action(dataset, results, "set", who)
    return _correct(doing, ids, lambda sample: (_with_class(sample.get(label_field), name), SET))


def undo_corrections(
    dataset: Any,
    ids: Sequence[str] | None = None,
    brain_key: str | None = None,
    *,
    who: str | None = None,
    press: str | None = None,
) -> Correction:
    """Take back the last action, or the last correction of each of the samples `ids`: labels are as before, exactly.

    A label that was changed elsewhere since is left alone, and so is a sample that was deleted; an action of nothing
    else is skipped. Undoing again takes back the action before.

    Raises InputError where there is nothing to take back.
    """
    results = runs.load(dataset, brain_key)
    audit = audit_of(dataset, results)
    catch_up(dataset, results)
    doing = Action(dataset, results, UNDO, who, press=press)
    if before := doing.done_before():
        return Correction(UNDO, before)
    if ids is not None:
        done = _take_back(doing, fo_fields.object_ids(ids), None)
        if done is None:
            raise InputError("these samples have no correction to take back.")
        if not done.ids:
            raise InputError(_why_not_undone(done.left_alone))
        return done
    skipped: Counter[str] = Counter()
    for action in audit.undoable():
        done = _take_back(Action(dataset, results, UNDO, who), audit.samples_of(action), action)
        if done is None:
            continue
        skipped.update(done.left_alone)
        if done.ids:
            return replace(done, left_alone=skipped)
    if not skipped and _corrected_elsewhere(dataset, results):
        raise InputError(
            "there is no correction to take back: those on the samples were made in the dataset that this one was "
            "cloned or imported from, and can be taken back there."
        )
    raise InputError(_why_not_undone(skipped) if skipped else "there is no correction to take back.")


def history(dataset: Any, brain_key: str | None = None) -> pd.DataFrame:
    """Return every correction of the dataset, or of one run, in order: when, who, sample, old and new label and status.

    Columns: `audit.COLUMNS`. Corrections by deleted runs are there too.
    """
    return record.frame(dataset, runs.load(dataset, brain_key).config.run_id if brain_key else None)


def _correct(doing: Action, ids: Sequence[str], decide: Decide, *, edits_stay: bool = False) -> Correction:
    """Carry out what `decide` says of each sample. edits_stay: leave alone what was last edited by other means."""
    dataset, results, what = doing.dataset, doing.results, doing.what
    if not len(ids):
        raise InputError("no samples are chosen; select some, or open one.")
    if what in ("accept", "set"):
        _check_writable(dataset, results)
    fields, label_field = results.fields, results.config.label_field
    wanted = fo_fields.object_ids(ids)
    catch_up(dataset, results)  # an edit by other means is on record before what is done about it
    if before := doing.done_before():
        return Correction(what, before)
    names = ("filepath", label_field, fields.review, fields.suggested, fields.is_issue)
    for chunk in chunks(wanted):
        # in this order: a correction made after the lengths are read takes our link's place, one made before is written
        lengths = doing.audit.lengths(chunk)
        settle(dataset, results)
        changes, n_seen = [], 0
        by_others = edited(dataset, results, chunk) if edits_stay else set()
        judged = {chunk[i] for i in np.flatnonzero(results.rows(list(map(str, chunk))) >= 0)}
        for sample in read_samples(dataset, list(judged), names):
            if sample.get(fields.review) is None or sample.get(fields.suggested) is None:
                continue
            n_seen += 1
            decided = RELABELLED if sample["_id"] in by_others else decide(sample)
            if isinstance(decided, str):
                doing.leave(decided)
            else:
                changes.append(change_of(sample, results, *decided))
        doing.leave(NOT_IN_RUN, len(chunk) - n_seen)
        doing.carry_out(changes, lengths)
    done = Correction(what, tuple(doing.ids), doing.left_alone)
    if not done.ids and not done.conflicts:
        raise InputError(_why_nothing(done, len(wanted), results))
    return done


def _take_back(doing: Action, ids: Sequence[ObjectId], action: Document | None) -> Correction | None:
    """Take back what stands of the samples' corrections (of `action` only, if given); return None if nothing stands."""
    dataset, results = doing.dataset, doing.results
    label_field, found = results.config.label_field, False
    for chunk in chunks(ids):
        lengths = doing.audit.lengths(chunk)
        settle(dataset, results)
        tops = doing.audit.effective(list(lengths))
        by_others = [sample_id for sample_id, link in tops.items() if link.get("noticed")]
        for sample_id in by_others:
            del tops[sample_id]
        if action is not None:
            tops = {sample_id: link for sample_id, link in tops.items() if link["action"] == action["_id"]}
        found = found or bool(tops or by_others)
        doing.leave(CHANGED_ELSEWHERE, len(by_others))
        names = ("filepath", label_field, results.fields.review, results.fields.suggested)
        changes, n_seen = [], 0
        for sample in read_samples(dataset, list(tops), names):
            n_seen += 1
            link = tops[sample["_id"]]
            if _same(sample.get(label_field), link["new"]) and sample.get(results.fields.suggested) is not None:
                changes.append(change_of(sample, results, link["old"], link["old_review"], undoes=link["n"]))
        if any(change.new != change.old for change in changes):
            _check_writable(dataset, results)
        doing.leave(DELETED, len(tops) - n_seen)
        doing.leave(CHANGED_ELSEWHERE, n_seen - len(changes))
        doing.carry_out(changes, lengths)
    if action is not None:
        doing.took_back(action)
    return Correction(UNDO, tuple(doing.ids), doing.left_alone) if found else None


def _corrected_elsewhere(dataset: Any, results: FindLabelIssuesResults) -> bool:
    """Return whether samples carry corrections that are not on record of this dataset."""
    suggested = results.fields.suggested
    samples = dataset._sample_collection.find({f"{suggested}.{CARRIED}": {"$ne": None}}, {f"{suggested}.{CARRIED}": 1})
    carried = [sample[suggested][CARRIED] for sample in samples]
    return audit_of(dataset, results).n_known(carried) < len(carried)


def _why_not_undone(left_alone: Mapping[str, int]) -> str:
    return f"nothing was undone ({'; '.join(f'{n:,} {why}' for why, n in left_alone.items())})."


def _why_nothing(done: Correction, n: int, results: FindLabelIssuesResults) -> str:
    if done.left_alone.keys() == {NOT_IN_RUN}:
        return f"none of the {n:,} samples is part of the run {results.key!r}."
    reasons = "; ".join(f"{many:,} {why}" for why, many in done.left_alone.items())
    return f"no label was {_DONE[done.what]} ({reasons})."


def _check_writable(dataset: Any, results: FindLabelIssuesResults) -> None:
    label_field = results.config.label_field
    if dataset.get_field(label_field).read_only:
        raise InputError(f"the field {label_field!r} is read-only; its labels can be kept or excluded, not changed.")


def _unchanged(results: FindLabelIssuesResults, status: str) -> Decide:
    label_field = results.config.label_field
    return lambda sample: (sample.get(label_field), status)


def _same(one: Document | None, other: Document | None) -> bool:
    """Return whether two labels are the same to the last attribute; a confidence of NaN equals itself.

    FiftyOne leaves out attributes that are None where it saves a whole sample, so that these do not count.
    """
    return bson.encode({"label": _set_attributes(one)}) == bson.encode({"label": _set_attributes(other)})


def _set_attributes(label: Document | None) -> Document | None:
    return None if label is None else {name: label[name] for name in sorted(label) if label[name] is not None}


def _with_class(label: Document | None, name: str) -> Document:
    """Return the label with another class, without confidence and logits, which were about the old one."""
    if label is None:
        return dict(fo.Classification(label=name).to_dict())
    if label.get("label") == name:
        return label
    changed = {**label, "label": name}
    for about_the_old in ("confidence", "logits"):
        if changed.get(about_the_old) is not None:
            changed[about_the_old] = None
    return changed
