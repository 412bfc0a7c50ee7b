"""The operators: doors from the App, or `foo.execute_operator`, to the functions of this package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

from cvcoteach._checks import InputError
from cvcoteach.fiftyone import browse, corrections, export, runs
from cvcoteach.fiftyone.corrections import Correction
from cvcoteach.fiftyone.fields import check_label_field, label_fields
from cvcoteach.fiftyone.forms import Form, choose_label_field, choose_run, vector_fields
from cvcoteach.fiftyone.issues import DEFAULT_KEY, ProgressWatcher, find_label_issues, import_label_issues
from cvcoteach.fiftyone.progress import Tell, in_app, with_progress
from cvcoteach.fiftyone.retrain import Retrained, RetrainForm, retrain
from cvcoteach.settings import Settings

PLUGIN = "@cvcoteach/label_issues"
PANEL = "label_issues"
FILTERS = {"posterior": "labels more probably wrong than right", "incv": "labels that INCV did not select"}
LONG_RUN = 2_000
"""Images from which on training networks is delegated by default."""


class FindLabelIssuesOperator(foo.Operator):
    """Find label issues by iterative cross-validation."""

    @property
    def config(self) -> foo.OperatorConfig:
        """As FiftyOne lists it."""
        return foo.OperatorConfig(
            name="find_label_issues",
            label="Find label issues",
            description="Train by iterative noisy cross-validation and flag the labels that are probably wrong",
            icon="rule",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            allow_immediate_execution=True,
            resolve_execution_options_on_change=True,
        )

    def resolve_placement(self, ctx: Any) -> types.Placement:
        """A button in the bar of the samples grid."""
        button = types.Button(label="Find label issues", icon="rule", prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def resolve_execution_options(self, ctx: Any) -> foo.ExecutionOptions:
        """Immediate or delegated; delegated by default where it will take long."""
        return foo.ExecutionOptions(
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            default_choice_to_delegated=_is_long(ctx),
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """What to check, and how thoroughly."""
        form = Form("Find label issues", submit="Find")
        samples = form.check(lambda: _target(ctx))
        if samples is None:
            return form.property
        label_field = choose_label_field(form, ctx)
        if label_field is not None:
            form.check(lambda: _check_quickly(samples, label_field))
        form.inputs.str("brain_key", label="Brain key", default=DEFAULT_KEY, required=False)
        key = ctx.params.get("brain_key") or DEFAULT_KEY
        if key in ctx.dataset.list_brain_runs():
            form.inputs.bool("overwrite", label=f"Replace the run {key!r}", default=False, required=False)
        form.check(lambda: runs.check_key(ctx.dataset, key, overwrite=bool(ctx.params.get("overwrite"))))
        form.choice("preset", ("fast", "paper"), "Preset", default="fast")
        vectors = vector_fields(ctx.dataset)
        if vectors:
            form.choice("embeddings_field", vectors, "Embeddings (instead of training networks on the images)")
        form.choice("filter_by", FILTERS, "Flag", default="posterior")
        form.inputs.int("rounds", label="Rounds", default=4, min=1, max=20, required=False)
        form.inputs.int("epochs", label="Epochs of each training (the preset's if empty)", min=1, required=False)
        form.inputs.int("seed", label="Seed", default=0, min=0, required=False)
        return form.property

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Run it, with live progress."""
        params = ctx.params
        key = params.get("brain_key") or DEFAULT_KEY
        given = {
            name: params[param]
            for param, name in (
                ("preset", "preset"), ("model", "model"), ("rounds", "n_rounds"), ("folds", "n_folds"),
                ("epochs", "epochs"), ("seed", "seed"), ("backbone", "backbone"), ("image_size", "image_size"),
            )
            if params.get(param) is not None
        }  # fmt: skip

        def work(tell: Tell) -> runs.FindLabelIssuesResults:
            return find_label_issues(
                _target(ctx),
                params.get("label_field") or _only_label_field(ctx.dataset),
                key,
                settings=_settings(given),
                embeddings_field=params.get("embeddings_field") or None,
                filter_by=params.get("filter_by") or "posterior",
                overwrite=bool(params.get("overwrite")),
                watcher=ProgressWatcher(tell),
            )

        yield from with_progress(ctx, work, lambda results: _show(ctx, results))


class ImportLabelIssuesOperator(foo.Operator):
    """Bring in what `cvcoteach find-issues` or cleanlab found."""

    @property
    def config(self) -> foo.OperatorConfig:
        """As FiftyOne lists it."""
        return foo.OperatorConfig(
            name="import_label_issues",
            label="Import label issues",
            description="From a run folder of `cvcoteach find-issues`, or what cleanlab returned",
            icon="input",
            dynamic=True,
            execute_as_generator=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """Where they are."""
        form = Form("Import label issues", submit="Import")
        label_field = choose_label_field(form, ctx)
        if label_field is not None:
            form.check(lambda: check_label_field(ctx.dataset, label_field))
        if ctx.params.get("found") is None:
            form.inputs.str("folder", label="Run folder of `cvcoteach find-issues`", required=True)
            folder = ctx.params.get("folder")
            if folder and not (Path(folder).expanduser() / "run.json").exists():
                form.refuse(f"{folder} holds no run of cvcoteach (no run.json).")
        form.inputs.str("brain_key", label="Brain key", default=DEFAULT_KEY, required=False)
        key = ctx.params.get("brain_key") or DEFAULT_KEY
        if key in ctx.dataset.list_brain_runs():
            form.inputs.bool("overwrite", label=f"Replace the run {key!r}", default=False, required=False)
        form.check(lambda: runs.check_key(ctx.dataset, key, overwrite=bool(ctx.params.get("overwrite"))))
        return form.property

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Import them; `found` (from Python) is a mask, indices, a frame or a LabelIssues."""
        params = ctx.params
        found = params.get("found")

        def work(tell: Tell) -> runs.FindLabelIssuesResults:
            return import_label_issues(
                _target(ctx),
                params.get("label_field") or _only_label_field(ctx.dataset),
                Path(params["folder"]).expanduser() if found is None else found,
                params.get("brain_key") or DEFAULT_KEY,
                pred_probs=params.get("pred_probs"),
                class_names=params.get("class_names"),
                overwrite=bool(params.get("overwrite")),
            )

        yield from with_progress(ctx, work, lambda results: _show(ctx, results))


class _Review(foo.Operator):
    """A correction of the chosen samples."""

    name_: str
    label_: str
    icon_: str
    verb: str

    @property
    def config(self) -> foo.OperatorConfig:
        """As FiftyOne lists it."""
        return foo.OperatorConfig(name=self.name_, label=self.label_, icon=self.icon_, dynamic=True)

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which run, and how many samples it will be."""
        form = Form(self.label_, submit=self.verb)
        results = choose_run(form, ctx)
        if results is not None:
            ids, whose = chosen(ctx, results)
            self.more_input(form, ctx, results)
            if ids:
                form.note(f"{len(ids):,} {whose}.")
            else:
                form.refuse("there is no sample to review here: select some, or choose a view with flagged ones.")
        return form.property

    def more_input(self, form: Form, ctx: Any, results: runs.FindLabelIssuesResults) -> None:
        """What else the correction needs."""

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Do it."""
        raise NotImplementedError

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Correct the samples and tell."""
        results = runs.load(ctx.dataset, ctx.params.get("brain_key"))
        done = self.correct(ctx, chosen(ctx, results)[0])
        told(ctx, done)
        return {"message": done.message, "ids": list(done.ids), "conflicts": done.conflicts}


class AcceptSuggestions(_Review):
    """Give the samples the labels that the run suggests."""

    name_, label_, icon_, verb = "accept_suggestions", "Accept suggested labels", "check", "Accept"

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Accept."""
        return corrections.accept_suggestions(ctx.dataset, ids, ctx.params.get("brain_key"), who=ctx.user_id)


class KeepLabels(_Review):
    """Record that the given labels are right."""

    name_, label_, icon_, verb = "keep_labels", "Keep given labels", "thumb_up", "Keep"

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Keep."""
        return corrections.keep_labels(ctx.dataset, ids, ctx.params.get("brain_key"), who=ctx.user_id)


class ExcludeSamples(_Review):
    """Record that the samples are of no use."""

    name_, label_, icon_, verb = "exclude_samples", "Exclude samples", "block", "Exclude"

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Exclude."""
        return corrections.exclude_samples(ctx.dataset, ids, ctx.params.get("brain_key"), who=ctx.user_id)


class SetLabel(_Review):
    """Give the samples a label by name."""

    name_, label_, icon_, verb = "set_label", "Set label", "edit", "Set"

    def more_input(self, form: Form, ctx: Any, results: runs.FindLabelIssuesResults) -> None:
        """The label."""
        view = types.AutocompleteView()
        for name in results.issues.class_names:
            view.add_choice(name, label=name)
        form.inputs.str("label", label="Label", required=True, view=view)

    def correct(self, ctx: Any, ids: Sequence[str]) -> Correction:
        """Set."""
        label = ctx.params.get("label")
        return corrections.set_label(ctx.dataset, ids, label, ctx.params.get("brain_key"), who=ctx.user_id)


class UndoCorrections(foo.Operator):
    """Take back the last action, or the last correction of the selected samples."""

    @property
    def config(self) -> foo.OperatorConfig:
        """As FiftyOne lists it."""
        return foo.OperatorConfig(name="undo_corrections", label="Undo corrections", icon="undo", dynamic=True)

    def resolve_input(self, ctx: Any) -> types.Property:
        """Of which run."""
        form = Form("Undo corrections", submit="Undo")
        if choose_run(form, ctx) is not None:
            n = len(ctx.params.get("ids") or ctx.selected)
            form.note(f"The last correction of {n:,} selected samples." if n else "The last action.")
        return form.property

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Undo and tell."""
        ids = ctx.params.get("ids") or ctx.selected or None
        done = corrections.undo_corrections(ctx.dataset, ids, ctx.params.get("brain_key"), who=ctx.user_id)
        told(ctx, done)
        return {"message": done.message, "ids": list(done.ids), "conflicts": done.conflicts}


class ApplyMarks(foo.Operator):
    """Accept what was clicked in the grid, keep what was Alt-clicked."""

    @property
    def config(self) -> foo.OperatorConfig:
        """As FiftyOne lists it."""
        return foo.OperatorConfig(name="apply_marks", label="Apply marks", icon="done_all", unlisted=True)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Accept, keep, tell."""
        return {"message": apply_marks(ctx)}


class ReviewAndMoveOn(foo.Operator):
    """One key in the modal: correct the open sample and open the next worst."""

    @property
    def config(self) -> foo.OperatorConfig:
        """As FiftyOne lists it."""
        return foo.OperatorConfig(name="review_and_move_on", label="Review and move on", unlisted=True)

    def execute(self, ctx: Any) -> dict[str, Any]:
        """params: what ("accept", "keep", "exclude", "undo"), brain_key; moved: samples presses just went through."""
        here, moved = ctx.current_sample, ctx.params.get("moved") or []
        if here in moved[:-1]:  # the App has not got to the last of them yet
            here = moved[-1]
        return review_and_move_on(ctx, ctx.params.get("what", ""), here)


class RetrainCoteaching(foo.Operator):
    """Train a classifier that the remaining noise cannot spoil."""

    @property
    def config(self) -> foo.OperatorConfig:
        """As FiftyOne lists it."""
        return foo.OperatorConfig(
            name="retrain_coteaching",
            label="Retrain by Co-teaching",
            description="Two networks on the corrected labels, each learning from what the other finds easy",
            icon="model_training",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            resolve_execution_options_on_change=True,
        )

    def resolve_execution_options(self, ctx: Any) -> foo.ExecutionOptions:
        """Immediate or delegated; delegated by default where it will take long."""
        return foo.ExecutionOptions(
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            default_choice_to_delegated=_is_long(ctx),
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which run, which test set."""
        form = Form("Retrain by Co-teaching", submit="Retrain")
        if choose_run(form, ctx) is not None:
            RetrainForm.fill(form, ctx)
        return form.property

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Train, with live progress; before and after in the toast and in the run's figures."""
        params = ctx.params

        def work(tell: Tell) -> Retrained:
            return retrain(ctx.dataset, params.get("brain_key"), tell, **RetrainForm.options(params))

        def finish(retrained: Retrained) -> Iterator[Any]:
            if not ctx.delegated:
                yield ctx.ops.notify(retrained.message, variant="success")
                yield ctx.ops.open_panel(PANEL, layout="horizontal", is_active=True)

        yield from with_progress(ctx, work, finish)


class ExportCorrected(foo.Operator):
    """Export the corrected labels."""

    @property
    def config(self) -> foo.OperatorConfig:
        """As FiftyOne lists it."""
        return foo.OperatorConfig(name="export_corrected", label="Export corrected labels", icon="output", dynamic=True)

    def resolve_input(self, ctx: Any) -> types.Property:
        """As what, and where to."""
        form = Form("Export corrected labels", submit="Export")
        if choose_run(form, ctx) is not None:
            kinds = {"imagefolder": "Folder of class folders", "csv": "CSV", "dataset": "FiftyOne dataset"}
            form.choice("kind", kinds, "As", default="imagefolder")
            what = {"imagefolder": "Folder", "csv": "File", "dataset": "Name of the dataset"}
            form.inputs.str("to", label=what[ctx.params.get("kind") or "imagefolder"], required=True)
        return form.property

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Export and tell."""
        params = ctx.params
        n = export.export_corrected(
            _target(ctx), params.get("kind") or "imagefolder", params.get("to") or "", params.get("brain_key")
        )
        message = f"{n:,} samples exported to {params['to']}."
        ctx.ops.notify(message, variant="success")
        return {"message": message, "n": n}


def chosen(ctx: Any, results: runs.FindLabelIssuesResults) -> tuple[list[str], str]:
    """The samples a correction is about, and what they are called.

    In this order: those named by the parameter `ids`, those selected, the one open in the modal, and else all flagged
    samples of the view that nobody has reviewed.
    """
    if ctx.params.get("ids") is not None:
        return list(ctx.params["ids"]), "samples"
    if ctx.selected:
        return list(ctx.selected), "selected samples"
    if ctx.current_sample:
        return [ctx.current_sample], "sample, the open one"
    where = ctx.view if ctx.has_custom_view else ctx.dataset
    return browse.unreviewed_flagged_ids(where, results), "flagged samples not yet reviewed in this view"


def told(ctx: Any, done: Correction) -> None:
    """Show what was done, and the samples as they are now."""
    ctx.ops.notify(done.message, variant="warning" if done.conflicts else "success")
    ctx.ops.reload_samples()


def apply_marks(ctx: Any) -> str:
    """Accept the samples that were clicked in the grid, keep those that were Alt-clicked; what was done, a sentence."""
    marks: dict[str, list[str]] = {"default": [], "alt": []}
    for mark in ctx.selected_samples or [{"id": sample_id, "type": "default"} for sample_id in ctx.selected]:
        marks[mark.get("type") or "default"].append(mark["id"])
    if not any(marks.values()):
        raise InputError("nothing is marked: click samples to accept, Alt-click those to keep.")
    key, messages = ctx.params.get("brain_key"), []
    for kind, door in (("default", corrections.accept_suggestions), ("alt", corrections.keep_labels)):
        if marks[kind]:
            done = door(ctx.dataset, marks[kind], key, who=ctx.user_id)
            messages.append(done.message)
    message = " ".join(messages)
    ctx.ops.notify(message, variant="success")
    ctx.ops.clear_selected_samples()
    ctx.ops.reload_samples()
    return message


def review_and_move_on(ctx: Any, what: str, sample_id: str | None) -> dict[str, Any]:
    """Correct the sample and open the next worst; after an undo, open the sample whose correction was taken back."""
    key, who = ctx.params.get("brain_key"), ctx.user_id
    if sample_id is None and what != "undo":
        raise InputError("no sample is open.")
    if what == "undo":
        done = corrections.undo_corrections(ctx.dataset, None, key, who=who)
        following: str | None = done.ids[0]
    else:
        doors = {
            "accept": corrections.accept_suggestions,
            "keep": corrections.keep_labels,
            "exclude": corrections.exclude_samples,
        }
        if what not in doors:
            raise InputError(f"what is {what!r}; there are accept, keep, exclude and undo.")
        assert sample_id is not None
        done = doors[what](ctx.dataset, [sample_id], key, who=who)
        results = runs.load(ctx.dataset, key)
        view = ctx.view if ctx.has_custom_view else None
        following = browse.following(results, browse.reviews(ctx.dataset, results), sample_id, view)
    if in_app(ctx):
        end = " That was the last one here: every flagged label of this view is reviewed." if following is None else ""
        ctx.ops.notify(done.message + end, variant="success")
        if following is not None:
            ctx.ops.open_sample(id=following)
    return {"message": done.message, "ids": list(done.ids), "sample": sample_id, "next": following}


def _show(ctx: Any, results: runs.FindLabelIssuesResults) -> Iterator[Any]:
    """Open the panel on a finished run."""
    issues = results.issues
    message = f"{issues.n_issues:,} of {len(issues.labels):,} labels look wrong."
    message = " ".join([message, *results.info["notes"]])
    if ctx.delegated:
        return
    yield ctx.ops.reload_dataset()
    yield ctx.ops.open_panel(PANEL, layout="horizontal", is_active=True)
    yield ctx.ops.notify(message, variant="success")


def _target(ctx: Any) -> Any:
    """The dataset, view or selection that an operator is about."""
    if ctx.dataset is None:
        raise InputError("the dataset is gone; it was deleted meanwhile.")
    return ctx.target_view()


def _check_quickly(samples: Any, label_field: str) -> None:
    """What a form can know without reading everything."""
    check_label_field(samples, label_field)
    n = len(samples)
    if n == 0:
        raise InputError("the view is empty; choose one with samples in it.")
    names = samples.distinct(f"{label_field}.label")
    if not names:
        raise InputError(f"no sample has a label in {label_field}.")
    if len(names) < 2:
        raise InputError(f"{label_field} holds one class only ({names[0]}); a wrong label needs a second class.")


def _is_long(ctx: Any) -> bool:
    if ctx.params.get("embeddings_field"):
        return False
    return ctx.dataset is not None and len(_target(ctx)) > LONG_RUN


def _settings(given: dict[str, Any]) -> Settings:
    known = Settings.__dataclass_fields__
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise InputError(f"this version of cvcoteach has no setting {unknown[0]!r}.")
    return Settings(**given)


def _only_label_field(dataset: Any) -> str:
    usable = label_fields(dataset)
    if len(usable) != 1:
        raise InputError(f"label_field is missing; the dataset has {', '.join(usable) or 'no Classification field'}.")
    return usable[0]


OPERATORS = (
    FindLabelIssuesOperator,
    ImportLabelIssuesOperator,
    AcceptSuggestions,
    KeepLabels,
    SetLabel,
    ExcludeSamples,
    UndoCorrections,
    ApplyMarks,
    ReviewAndMoveOn,
    RetrainCoteaching,
    ExportCorrected,
)
