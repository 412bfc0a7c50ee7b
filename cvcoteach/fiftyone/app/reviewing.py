"""Operators that correct: accept, keep, set, exclude, undo; for a selection, a view, marks in the grid, or by key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.chosen_run import chosen_run
from cvcoteach.fiftyone.app.forms import Form, choose_run, dataset_of, filled
from cvcoteach.fiftyone.app.progress import errors_in_words, in_app, in_words
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import object_ids
from cvcoteach.fiftyone.work import browse, bulk, corrections
from cvcoteach.fiftyone.work.actions import audit_of
from cvcoteach.fiftyone.work.corrections import Correction
from cvcoteach.fiftyone.work.unseen import unseen_in

DOORS = {
    "accept": corrections.accept_suggestions,
    "keep": corrections.keep_labels,
    "exclude": corrections.exclude_samples,
}
"""What a key or a button does to samples."""

OF_VIEW = "flagged samples not yet reviewed in this view"
EMPTY = "empty_classes"
"""The parameter by which somebody allows a class to be left without an image."""

HINT = "a accept \u00b7 k keep \u00b7 e exclude \u00b7 u undo"
"""What the keys do in an open sample."""


class _Review(foo.Operator, ABC):
    """A correction of the chosen samples."""

    name_: str
    label_: str
    icon_: str
    verb: str

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(name=self.name_, label=self.label_, icon=self.icon_, dynamic=True)

    def resolve_input(self, ctx: Any) -> types.Property:
        """Ask for the run, and say how many samples it will be."""
        return filled(self.label_, submit=self.verb)(type(self)._fill)(self, ctx)

    def _fill(self, form: Form, ctx: Any) -> None:
        results = choose_run(form, ctx)
        if results is not None:
            ids, whose = self.chosen(ctx, results)
            self.more_input(form, ctx, results)
            if ids:
                form.note(f"{len(ids):,} {whose}.")
                ask_before_emptying(form, ctx, bulk.emptied(ctx.dataset, results, ids, self.becomes(ctx)))
            else:
                form.refuse("there is no sample to review here: select some, or choose a view with flagged ones.")

    def more_input(self, form: Form, ctx: Any, results: runs.FindLabelIssuesResults) -> None:
        """Ask for what else the correction needs."""

    def chosen(self, ctx: Any, results: runs.FindLabelIssuesResults) -> tuple[list[str], str]:
        """Return the samples to correct, and what to call them."""
        return chosen(ctx, results)

    @abstractmethod
    def becomes(self, ctx: Any) -> Any:
        """Return the samples' new class, as `bulk.emptied` takes it."""

    @abstractmethod
    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Correct the samples `ids`."""

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Correct the samples, and say what was done."""
        results = runs.load(dataset_of(ctx), ctx.params.get("brain_key"))
        ids = self.chosen(ctx, results)[0]
        check_emptied(ctx, bulk.emptied(ctx.dataset, results, ids, self.becomes(ctx)))
        done = self.correct(ctx, ids)
        announce(ctx, done)
        return {"message": done.message, "ids": list(done.ids), "left_alone": dict(done.left_alone)}


class AcceptSuggestions(_Review):
    """Give the samples the labels that the run suggests."""

    name_, label_, icon_, verb = "accept_suggestions", "Accept suggested labels", "check", "Accept"

    def chosen(self, ctx: Any, results: runs.FindLabelIssuesResults) -> tuple[list[str], str]:
        """Return the samples; those of a whole view without what probably belongs to none of the classes."""
        ids, whose = chosen(ctx, results)
        if whose != OF_VIEW:
            return ids, whose
        strangers = results.issues.is_stranger[results.rows(ids)]
        n = int(strangers.sum())
        left = f"; {n:,} that probably belong to no class are left out, to be excluded first" if n else ""
        return [one for one, is_stranger in zip(ids, strangers, strict=True) if not is_stranger], whose + left

    def becomes(self, ctx: Any) -> Any:
        """Return what stands for the suggestions."""
        return bulk.SUGGESTED

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Accept the suggestions for the samples `ids`."""
        return corrections.accept_suggestions(ctx.dataset, ids, ctx.params.get("brain_key"), who=ctx.user_id)


class KeepLabels(_Review):
    """Record that the given labels are right."""

    name_, label_, icon_, verb = "keep_labels", "Keep given labels", "thumb_up", "Keep"

    def becomes(self, ctx: Any) -> Any:
        """Return what stands for the labels as they are."""
        return bulk.AS_IT_IS

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Keep the labels of the samples `ids`."""
        return corrections.keep_labels(ctx.dataset, ids, ctx.params.get("brain_key"), who=ctx.user_id)


class ExcludeSamples(_Review):
    """Record that the samples are unusable."""

    name_, label_, icon_, verb = "exclude_samples", "Exclude samples", "block", "Exclude"

    def becomes(self, ctx: Any) -> Any:
        """Return no class."""

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Exclude the samples `ids`."""
        return corrections.exclude_samples(ctx.dataset, ids, ctx.params.get("brain_key"), who=ctx.user_id)


class SetLabel(_Review):
    """Give the samples a label by name."""

    name_, label_, icon_, verb = "set_label", "Set label", "edit", "Set"

    def becomes(self, ctx: Any) -> Any:
        """Return the label."""
        return str(ctx.params.get("label") or "").strip()

    def more_input(self, form: Form, ctx: Any, results: runs.FindLabelIssuesResults) -> None:
        """Ask for the label."""
        view = types.AutocompleteView()
        for name in results.issues.class_names:
            view.add_choice(name, label=name)
        form.inputs.str("label", label="Label", required=True, view=view)

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Set the label of the samples `ids`."""
        label = ctx.params.get("label")
        return corrections.set_label(ctx.dataset, ids, label, ctx.params.get("brain_key"), who=ctx.user_id)


class UndoCorrections(foo.Operator):
    """Take back the last action, or the last correction of the selected samples."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(name="undo_corrections", label="Undo corrections", icon="undo", dynamic=True)

    @filled("Undo corrections", submit="Undo")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask for the run, and what to undo."""
        if choose_run(form, ctx) is None:
            return
        ids = _to_undo(ctx)
        if ids is not None:
            n = len(ids)
            form.note(f"The last correction of {n:,} selected sample{'s' * (n != 1)}.")
            return
        if ctx.has_custom_view:
            choices = {"last": "the last action", "view": "the last correction of each sample in this view"}
            form.choice("what", choices, "Take back", default="last")
        else:
            form.note("The last action.")

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Undo, and say what was taken back."""
        ids, dataset = _to_undo(ctx), dataset_of(ctx)
        if ids is None and ctx.params.get("what") == "view":
            ids = ctx.view.values("id")
        done = corrections.undo_corrections(dataset, ids, ctx.params.get("brain_key"), who=ctx.user_id)
        announce(ctx, done)
        return {"message": done.message, "ids": list(done.ids), "left_alone": dict(done.left_alone)}


class ApplyMarks(foo.Operator):
    """Accept what was clicked in the grid, keep what was Alt-clicked."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(name="apply_marks", label="Apply marks", icon="done_all", unlisted=True)

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Accept, keep, and say what was done."""
        return {"message": apply_marks(ctx)}


class ReviewAndMoveOn(foo.Operator):
    """Correct the open sample by one key, and open the next worst."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(name="review_and_move_on", label="Review and move on", unlisted=True)

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Do what `what` says ("accept", "keep", "exclude", "undo") to `sample_id`, else to the open sample."""
        what, sample_id = ctx.params.get("what", ""), ctx.params.get("sample_id") or ctx.current_sample
        if not in_app(ctx):
            return review_and_move_on(ctx, what, sample_id)
        try:
            key = chosen_run(ctx)
            if key is None:
                return {}  # a dataset without a run has no such keys
            if what == "hint":
                return {"hint": HINT}
            ctx.params.setdefault("brain_key", key)
            return review_and_move_on(ctx, what, sample_id)
        except Exception as error:  # nobody sees the exception of an operator that no form has started
            ctx.ops.notify(in_words(error), variant="error")
            return {}


def chosen(ctx: Any, results: runs.FindLabelIssuesResults) -> tuple[list[str], str]:
    """Return the samples to correct, and what to call them.

    In this order: those named by the parameter `ids`, those selected, the one open in the modal, and else all flagged
    samples of the view that nobody has reviewed.
    """
    if ctx.params.get("ids") is not None:
        return list(ctx.params["ids"]), "samples"
    if ctx.selected:
        return list(ctx.selected), "selected samples"
    if ctx.current_sample:
        return [ctx.current_sample], "sample, the open one"
    where = ctx.view if ctx.has_custom_view else dataset_of(ctx)
    return browse.unreviewed_flagged_ids(where, results), OF_VIEW


def ask_before_emptying(form: Form, ctx: Any, names: list[str]) -> None:
    """Refuse the form where classes would be left without an image, until somebody says that this is meant."""
    if not names:
        return
    sentence = bulk.emptied_in_words(names)
    form.inputs.bool(EMPTY, label=f"Go on although {sentence}", default=False, required=False)
    if not ctx.params.get(EMPTY):
        form.refuse(f"{sentence}; say that this is meant, or leave some out.", "emptied")


def check_emptied(ctx: Any, names: list[str]) -> None:
    """Raise InputError where classes would be left without an image, and nobody said that this is meant."""
    if names and not ctx.params.get(EMPTY):
        raise InputError(f"{bulk.emptied_in_words(names)}; {EMPTY}=True says that this is meant.")


def _to_undo(ctx: Any) -> list[str] | None:
    """Return the samples named, else those selected; None where there are neither."""
    ids = ctx.params.get("ids")
    return list(ids) if ids is not None else list(ctx.selected) or None


def _last_single(dataset: Any, key: str | None, sample_id: str | None) -> str:
    """Return the sample that an undo in the modal applies to."""
    audit = audit_of(dataset, runs.load(dataset, key))
    here = object_ids([sample_id] if sample_id is not None else [])
    if audit.effective(here):
        return str(here[0])
    for action in audit.undoable():
        ids = audit.samples_of(action)
        if len(ids) == 1 and any(link["action"] == action["_id"] for link in audit.effective(ids).values()):
            return str(ids[0])
    raise InputError(
        "there is no correction of this or another single sample to take back; "
        "in the grid, Undo takes back the last action."
    )


def announce(ctx: Any, done: Correction) -> None:
    """Show what was done, and the samples as they are now."""
    ctx.ops.notify(done.message, variant="warning" if done.left_alone else "success")
    ctx.ops.reload_samples()


def apply_marks(ctx: Any) -> str:
    """Accept the samples that were clicked in the grid, keep the Alt-clicked; return what was done."""
    marks: dict[str, list[str]] = {"default": [], "alt": []}
    for mark in ctx.selected_samples or [{"id": sample_id, "type": "default"} for sample_id in ctx.selected]:
        marks[mark.get("type") or "default"].append(mark["id"])
    if not any(marks.values()):
        raise InputError("nothing is marked: click samples to accept, Alt-click those to keep.")
    key, messages, refused = ctx.params.get("brain_key"), [], []
    results = runs.load(ctx.dataset, key)
    check_emptied(ctx, bulk.emptied(ctx.dataset, results, marks["default"], bulk.SUGGESTED))
    for kind, door in (("default", corrections.accept_suggestions), ("alt", corrections.keep_labels)):
        if marks[kind]:
            try:
                messages.append(door(ctx.dataset, marks[kind], key, who=ctx.user_id).message)
            except InputError as error:  # the other marks still count
                refused.append(str(error))
    message = " ".join([*messages, *refused])
    if not messages:
        raise InputError(message)
    ctx.ops.notify(message, variant="warning" if refused else "success")
    ctx.ops.clear_selected_samples()
    ctx.ops.reload_samples()
    return message


def review_and_move_on(ctx: Any, what: str, sample_id: str | None) -> dict[str, Any]:
    """Correct the sample and open the next worst; after an undo, open the sample whose correction was taken back.

    An undo applies to the sample where it has a correction, else to the last correction of a single sample: a key does
    not undo what was done to many at once.
    """
    key, who = ctx.params.get("brain_key"), ctx.user_id
    if sample_id is None and what != "undo":
        raise InputError("no sample is open.")
    if what == "undo":
        done = corrections.undo_corrections(ctx.dataset, [_last_single(ctx.dataset, key, sample_id)], key, who=who)
        following: str | None = done.ids[0] if done.ids else sample_id
    else:
        if what not in DOORS:
            raise InputError(f"what is {what!r}; there are accept, keep, exclude and undo.")
        assert sample_id is not None
        results = runs.load(ctx.dataset, key)
        view = ctx.view if ctx.has_custom_view else None
        if what == "accept" and sample_id in unseen_in(view):
            raise InputError("this label is shown without a suggestion to accept: keep it (k), or set another.")
        again = browse.is_reviewed(ctx.dataset, results, sample_id)
        done = DOORS[what](ctx.dataset, [sample_id], key, who=who)
        following = browse.following(results, browse.reviews(ctx.dataset, results), sample_id, view, again=again)
    if in_app(ctx):
        end = _last_of_class(ctx, results, sample_id) if what in ("accept", "exclude") else ""
        end += (
            " That was the last one: every flagged label in this view has been reviewed." if following is None else ""
        )
        ctx.ops.notify(done.message + end, variant="success")
        if following is not None:
            ctx.ops.open_sample(id=following)
    return {"message": done.message, "ids": list(done.ids), "sample": sample_id, "next": following}


def _last_of_class(ctx: Any, results: runs.FindLabelIssuesResults, sample_id: str | None) -> str:
    """Return a sentence where the class that the run judged has no image left; empty otherwise."""
    (given,) = results.given([str(sample_id)])
    if given is None or not bulk.is_empty(ctx.dataset, results, given):
        return ""
    return f" The class {given!r} has no image left."
