"""The operators: doors from the App, or `foo.execute_operator`, to the functions of this package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types

from cvcoteach._checks import InputError
from cvcoteach.fiftyone import export, runs
from cvcoteach.fiftyone.chosen_run import choose
from cvcoteach.fiftyone.fields import check_label_field, label_fields
from cvcoteach.fiftyone.forms import Form, choose_label_field, choose_run, vector_fields
from cvcoteach.fiftyone.imports import import_label_issues
from cvcoteach.fiftyone.issues import find_label_issues
from cvcoteach.fiftyone.progress import ProgressWatcher, Tell, with_progress
from cvcoteach.fiftyone.retrain import Retrained, RetrainForm, retrain
from cvcoteach.fiftyone.reviewing import (
    AcceptSuggestions,
    ApplyMarks,
    ExcludeSamples,
    KeepLabels,
    ReviewAndMoveOn,
    SetLabel,
    UndoCorrections,
)
from cvcoteach.fiftyone.runs import DEFAULT_KEY
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
                yield from _panel_anew(ctx)
                yield ctx.ops.notify(retrained.message, variant="success")

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


def _show(ctx: Any, results: runs.FindLabelIssuesResults) -> Iterator[Any]:
    """Open the panel on a finished run."""
    issues = results.issues
    message = f"{issues.n_issues:,} of {len(issues.labels):,} labels look wrong."
    message = " ".join([message, *results.info["notes"]])
    if ctx.delegated:
        return
    choose(ctx, results.key)
    yield ctx.ops.reload_dataset()
    yield from _panel_anew(ctx)
    yield ctx.ops.notify(message, variant="success")


def _panel_anew(ctx: Any) -> Iterator[Any]:
    """Open the panel, or have one that is open already drawn anew."""
    yield ctx.ops.open_panel(PANEL, layout="horizontal", is_active=True)
    for panel in _panels(ctx.spaces):
        yield ctx.trigger(f"{PLUGIN}/{PANEL}#refresh", params={"panel_id": panel.component_id})


def _panels(space: Any) -> list[Any]:
    """The panels of this kind in a layout of the App, or None where nobody knows it."""
    if isinstance(space, fo.Panel):
        return [space] if space.type == PANEL else []
    return [panel for child in (space.children if space is not None else ()) for panel in _panels(child)]


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
