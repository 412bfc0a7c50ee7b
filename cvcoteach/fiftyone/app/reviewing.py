"""Operators that correct: accept, keep, set, exclude, undo; for a selection, a view, marks in the grid, or by key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.forms import Form, choose_run, dataset_of, filled
from cvcoteach.fiftyone.app.progress import errors_in_words
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse, bulk, corrections
from cvcoteach.fiftyone.work.corrections import Correction

DOORS = {
    "accept": corrections.accept_suggestions,
    "keep": corrections.keep_labels,
    "exclude": corrections.exclude_samples,
}
"""What a key or a button does to samples."""

OF_VIEW = "flagged samples not yet reviewed in this view"
EMPTY = "empty_classes"
"""The parameter by which somebody allows a class to be left without an image."""


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
                form.note(f"{len(ids):,} {whose if len(ids) > 1 else whose.replace('samples', 'sample', 1)}.")
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


def announce(ctx: Any, done: Correction) -> None:
    """Show what was done, and the samples as they are now."""
    ctx.ops.notify(done.message, variant="warning" if done.left_alone else "success")
    show_labels(ctx)


def show_labels(ctx: Any) -> None:
    """Let the grid show the labels as they are now; not while a sample is open, which that might close.

    Reloading the samples would draw the grid again from what the page has read before.
    """
    if ctx.current_sample is None:
        ctx.ops.reload_dataset()


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
    show_labels(ctx)
    return message
