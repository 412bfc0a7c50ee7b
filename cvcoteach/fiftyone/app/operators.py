"""The operators: doors from the App, or `foo.execute_operator`, to the functions in `work`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from cvcoteach._validation import InputError, verb
from cvcoteach.fiftyone.app import retrain_form, texts
from cvcoteach.fiftyone.app.bulk import AcceptProbable
from cvcoteach.fiftyone.app.chosen_run import choose
from cvcoteach.fiftyone.app.filters import FilterLabelIssues
from cvcoteach.fiftyone.app.forms import (
    Form,
    choose_engine,
    choose_key,
    choose_label_field,
    choose_run,
    choose_target,
    dataset_of,
    filled,
)
from cvcoteach.fiftyone.app.keys import ReviewAndMoveOn
from cvcoteach.fiftyone.app.names import PANEL as PANEL
from cvcoteach.fiftyone.app.names import PLUGIN as PLUGIN
from cvcoteach.fiftyone.app.names import SAMPLE_PANEL as SAMPLE_PANEL
from cvcoteach.fiftyone.app.names import panels_in
from cvcoteach.fiftyone.app.params import given
from cvcoteach.fiftyone.app.progress import ProgressWatcher, in_app, say, with_progress
from cvcoteach.fiftyone.app.report import ReportLabelIssues
from cvcoteach.fiftyone.app.reviewing import (
    AcceptSuggestions,
    ApplyMarks,
    ExcludeSamples,
    KeepLabels,
    SetLabel,
    UndoCorrections,
)
from cvcoteach.fiftyone.app.startup import GetLabelIssuesReady
from cvcoteach.fiftyone.app.trusted import allowed, check_code
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import check_label_field, label_fields
from cvcoteach.fiftyone.store.labelled import group_fields, look_quickly, vector_fields
from cvcoteach.fiftyone.store.runs import DEFAULT_KEY
from cvcoteach.fiftyone.work import export
from cvcoteach.fiftyone.work.find import FILTERS, find_label_issues
from cvcoteach.fiftyone.work.imports import import_label_issues
from cvcoteach.fiftyone.work.retrain import BeforeAndAfter, retrain
from cvcoteach.pipeline.settings import Machine, Settings

LONG_RUN = 2_000
"""With more images, training networks is delegated by default."""
MOST_NOTES = 4
"""Notes that fit in a toast."""
_SETTINGS = {
    "preset": "preset", "model": "model", "weights": "weights", "backbone": "backbone", "head": "head",
    "rounds": "n_rounds", "folds": "n_folds", "epochs": "epochs", "image_size": "image_size", "seed": "seed",
}  # fmt: skip
"""Parameters of find_label_issues by the names of `Settings`."""


class _Long(foo.Operator):
    """Work that takes a while, immediate or delegated."""

    def resolve_execution_options(self, ctx: Any) -> foo.ExecutionOptions:
        """Offer both, and delegate by default where it will take long."""
        return foo.ExecutionOptions(
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            default_choice_to_delegated=_is_long(ctx),
        )


def _long_config(**options: Any) -> foo.OperatorConfig:
    return foo.OperatorConfig(
        dynamic=True,
        execute_as_generator=True,
        allow_immediate_execution=True,
        allow_delegated_execution=True,
        resolve_execution_options_on_change=True,
        **options,
    )


class FindLabelIssuesOperator(_Long):
    """Find label issues by iterative cross-validation."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return _long_config(
            name="find_label_issues",
            label="Find label issues",
            description="Train by iterative noisy cross-validation and flag the labels that are probably wrong",
            icon="rule",
        )

    def resolve_placement(self, ctx: Any) -> types.Placement:
        """Place a button in the bar above the samples grid."""
        button = types.Button(label="Find label issues", icon="rule", prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    @filled("Find label issues", submit="Find")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask what to check, and how thoroughly."""
        samples, params = _target(ctx), ctx.params
        choose_target(form, ctx)
        label_field = choose_label_field(form, ctx)
        if label_field is not None:
            by_embeddings = bool(params.get("embeddings_field"))
            for number, note in enumerate(
                form.check(lambda: look_quickly(samples, label_field, need_files=not by_embeddings)) or ()
            ):
                form.note(note, f"note_{number}")
        choose_key(form, ctx, label_field)
        form.choice("preset", ("auto", "fast", "paper"), "Preset", default="auto")
        vectors = vector_fields(ctx.dataset)
        if vectors:
            form.choice("embeddings_field", vectors, "Embeddings to train heads on, instead of networks on the images")
        groups = group_fields(ctx.dataset)
        if groups:
            form.choice("group_field", groups, "Groups, such as patients or videos, that stay in one fold")
        form.choice("split_field", ("tags", *groups), "Splits: models learn from train alone, and judge the others")
        backbone = "Backbone whose features heads are trained on, such as torchvision:resnet18 or timm:MODEL"
        form.inputs.str("backbone", label=backbone, required=False)
        form.check(lambda: check_code(params), "code_problem")
        if params.get("backbone") and params.get("embeddings_field"):
            form.refuse("embeddings and a backbone are both given; heads are trained on one of them.", "both")
        by_preset = "If empty, labels that are probably wrong; with the preset paper, those that INCV did not select"
        form.choice("filter_by", FILTERS, "Flag", description=by_preset)
        form.inputs.int("rounds", label="Rounds (if empty, 3; 4 for INCV as published)", min=1, max=20, required=False)
        form.inputs.int("epochs", label="Epochs of each training (if empty, the preset's)", min=1, required=False)
        form.inputs.int("seed", label="Seed", default=0, min=0, required=False)
        choose_engine(form)
        form.check(lambda: given(params, _SETTINGS), "number_problem")

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Run it, with live progress."""
        params = ctx.params

        def work(watcher: ProgressWatcher) -> runs.FindLabelIssuesResults:
            check_code(params)
            samples = _target(ctx)
            return find_label_issues(
                samples,
                params.get("label_field") or _only_label_field(ctx.dataset),
                params.get("brain_key") or DEFAULT_KEY,
                settings=Settings(**given(params, _SETTINGS)),
                machine=Machine(trusted=allowed()),
                embeddings_field=params.get("embeddings_field") or None,
                group_field=params.get("group_field") or None,
                split_field=params.get("split_field") or None,
                filter_by=params.get("filter_by") or None,
                engine=params.get("engine") or None,
                overwrite=bool(params.get("overwrite")),
                watcher=watcher,
            )

        yield from with_progress(ctx, work, lambda results: _show(ctx, results))


class ImportLabelIssuesOperator(foo.Operator):
    """Import what `cvcoteach find-issues` or cleanlab found."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(
            name="import_label_issues",
            label="Import label issues",
            description="From a run folder of `cvcoteach find-issues`, or from what cleanlab returned",
            icon="input",
            dynamic=True,
            execute_as_generator=True,
        )

    @filled("Import label issues", submit="Import")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask where they are."""
        samples = _target(ctx)
        choose_target(form, ctx)
        label_field = choose_label_field(form, ctx)
        if label_field is not None:
            form.check(lambda: check_label_field(samples, label_field))
        if ctx.params.get("found") is None:
            form.inputs.str("folder", label="Run folder of `cvcoteach find-issues`", required=True)
            folder = ctx.params.get("folder")
            if folder and not (Path(folder).expanduser() / "run.json").exists():
                form.refuse(f"{folder} is not a run folder of cvcoteach (no run.json).", "folder_problem")
        choose_key(form, ctx, label_field)

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Import them; `found` (from Python): a mask, indices, a frame, a Datalab or a LabelIssues."""
        params = ctx.params
        found = params.get("found")

        def work(watcher: ProgressWatcher) -> runs.FindLabelIssuesResults:
            if found is None and not params.get("folder"):
                raise InputError("there is nothing to import; give `folder` or, from Python, `found`.")
            samples = _target(ctx)
            return import_label_issues(
                samples,
                params.get("label_field") or _only_label_field(ctx.dataset),
                Path(params["folder"]).expanduser() if found is None else found,
                params.get("brain_key") or DEFAULT_KEY,
                pred_probs=params.get("pred_probs"),
                class_names=params.get("class_names"),
                overwrite=bool(params.get("overwrite")),
            )

        yield from with_progress(ctx, work, lambda results: _show(ctx, results))


class RetrainCoteaching(_Long):
    """Train a classifier that tolerates the remaining noise."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return _long_config(
            name="retrain_coteaching",
            label="Retrain by Co-teaching",
            description="Train two networks on the corrected labels, each on what the other finds easy",
            icon="model_training",
        )

    @filled("Retrain by Co-teaching", submit="Retrain")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask for the run, the test samples and where to save the model."""
        dataset_of(ctx)
        choose_target(form, ctx, whole=True)
        if choose_run(form, ctx) is not None:
            retrain_form.fill(form, ctx)

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Train, with live progress; accuracy before and after goes into the toast and into the run's figures."""
        params = ctx.params

        def work(watcher: ProgressWatcher) -> BeforeAndAfter:
            options = retrain_form.options(params)
            return retrain(_target(ctx), params.get("brain_key"), on_progress=watcher.progress, **options)

        yield from with_progress(ctx, work, lambda gain: _announce(ctx, gain.message, panel=True))


class ExportCorrected(foo.Operator):
    """Export the corrected labels."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(
            name="export_corrected",
            label="Export corrected labels",
            description="As a folder of class folders, a CSV or a FiftyOne dataset",
            icon="output",
            dynamic=True,
            execute_as_generator=True,
        )

    @filled("Export corrected labels", submit="Export")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask for the format and the destination."""
        dataset_of(ctx)
        choose_target(form, ctx, whole=True)
        if choose_run(form, ctx) is None:
            return
        kinds = {"imagefolder": "Folder of class folders", "csv": "CSV", "dataset": "FiftyOne dataset"}
        form.choice("kind", kinds, "Format", default="imagefolder")
        kind, to = ctx.params.get("kind") or "imagefolder", ctx.params.get("to")
        what = {"imagefolder": "New folder", "csv": "New file", "dataset": "Name of the new dataset"}
        form.inputs.str("to", label=what.get(kind, "To"), required=True)
        if to:
            form.check(lambda: export.check_target(kind, to))

    def execute(self, ctx: Any) -> Iterator[Any]:
        """Export, and say how many samples that were."""
        key, kind, to = (ctx.params.get(name) for name in ("brain_key", "kind", "to"))
        kind, to = kind or "imagefolder", to or ""
        yield from with_progress(
            ctx,
            lambda watcher: export.export_corrected(_target(ctx), kind, to, key, on_progress=watcher.progress),
            lambda n: _announce(ctx, f"{n:,} sample{'s' * (n != 1)} exported to {to}."),
        )


def _show(ctx: Any, results: runs.FindLabelIssuesResults) -> Iterator[Any]:
    """Open the panel on a finished run."""
    issues = results.issues
    looks = verb(issues.n_issues, "looks", "look")
    message = f"{issues.n_issues:,} of {len(issues.labels):,} labels {looks} wrong."
    if in_app(ctx):
        choose(ctx, results.key)
        yield ctx.ops.reload_dataset()
    yield from _announce(ctx, " ".join([message, *texts.first_notes(results.info["notes"], MOST_NOTES)]), panel=True)


def _announce(ctx: Any, message: str, *, panel: bool = False) -> Iterator[Any]:
    """Show a toast, with `panel` after opening or refreshing the panel.

    Outside the App it is a line: in the operation's progress where delegated, on a terminal from Python.
    """
    if not in_app(ctx):
        say(ctx, message)
        return
    if panel:
        yield from _open_panel(ctx)
    yield ctx.ops.notify(message, variant="success")


def panel_beside_grid() -> Any:
    """Return the layout with which `fo.launch_app(..., spaces=…)` opens the panel beside the grid."""
    panels = fo.Panel(type="Samples", pinned=True), fo.Panel(type=PANEL)
    # with an orientation they would have no tabs, and without an active panel the App would show nothing but tabs
    sides = [fo.Space(children=[panel], active_child=panel.component_id) for panel in panels]
    return fo.Space(children=sides, orientation="horizontal")


def _open_panel(ctx: Any) -> Iterator[Any]:
    """Open the panel, and refresh those that are open already."""
    yield ctx.ops.open_panel(PANEL, layout="horizontal", is_active=True)
    for panel in panels_in(ctx.spaces):
        yield ctx.trigger(f"{PLUGIN}/{PANEL}#refresh", params={"panel_id": panel.component_id})


def _target(ctx: Any) -> Any:
    """Return the dataset, view or selection to work on: the form's choice, else what is selected, if anything.

    Raises InputError where the dataset is gone.
    """
    dataset_of(ctx)
    samples = ctx.target_view()
    if ctx.selected and not ctx.request_params.get("view_target"):
        return samples.select(ctx.selected)
    return samples


def _is_long(ctx: Any) -> bool:
    if ctx.params.get("embeddings_field"):
        return False
    try:
        return len(_target(ctx)) > LONG_RUN
    except InputError:
        return False


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
    AcceptProbable,
    FilterLabelIssues,
    ReviewAndMoveOn,
    RetrainCoteaching,
    ExportCorrected,
    ReportLabelIssues,
    GetLabelIssuesReady,
)
