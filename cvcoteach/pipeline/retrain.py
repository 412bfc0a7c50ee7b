"""From a finished run to a retrained classifier: corrections, Co-teaching, and what it bought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cvcoteach._files import digest, replacing
from cvcoteach._validation import InputError
from cvcoteach.pipeline.retrain_task import (
    ColumnNames,
    RetrainSettings,
    Task,
    finished_run,
    lesson_of,
    load_test_images,
    prepare,
    recipe_of,
    source_of,
)
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.scores import Scores, confusion_table, figures, per_class_table, score
from cvcoteach.pipeline.settings import Machine, Silent, Watcher

if TYPE_CHECKING:
    from torch import nn

    from cvcoteach.coteaching.lesson import Lesson
    from cvcoteach.coteaching.model_files import Model
    from cvcoteach.coteaching.training import Curriculum, Epoch
    from cvcoteach.training.batches import Scaling
    from cvcoteach.training.devices import Plan
    from cvcoteach.training.recipe import Recipe

CHECKPOINT, PLAIN_CHECKPOINT, PLAIN_WEIGHTS = "checkpoint.pt", "plain.checkpoint.pt", "plain.safetensors"


@dataclass(frozen=True, eq=False)
class Retrained:
    """A retrained classifier in its folder."""

    folder: Path
    history: tuple[Epoch, ...]
    summary: dict[str, Any]
    scores: Scores | None
    """On the test images, if any."""
    plain_scores: Scores | None
    """Of a plain network: the same images under the given labels, without corrections, and as many image passes."""
    exported: tuple[Path, ...]
    class_names: tuple[str, ...]
    was_done: bool
    """The folder held the finished model already; nothing was trained again."""


def default_output(run: Path) -> Path:
    """`<run>-model` beside the run."""
    run = run.resolve()
    return run.with_name(f"{run.name.removesuffix('-issues')}-model")


def retrain(
    run: Path,
    output: Path | None = None,
    settings: RetrainSettings | None = None,
    machine: Machine | None = None,
    *,
    source: Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    corrections: Path | None = None,
    test: Path | None = None,
    exports: Sequence[str] = (),
    watcher: Watcher | None = None,
) -> Retrained:
    """Retrain on what the run selected, by Co-teaching; the classifier is in the folder `output`.

    run: a finished folder of find-issues. source: its images; None: where the run found them. corrections: see
        `correct`. test: images with right labels, as `read_source` takes them. exports: "onnx", "torch.export".
    output: made, or gone on with where an unfinished retraining of the same run, settings and corrections is.

    Raises InputError, one sentence, for anything that does not fit; what was on disk stays.
    """
    from cvcoteach.coteaching.model_files import EXPORTS, export_model, load_model, save_model
    from cvcoteach.coteaching.training import enough_epochs

    settings, machine, watcher = settings or RetrainSettings(), machine or Machine(), watcher or Silent()
    for kind in exports:
        if kind not in EXPORTS:
            raise InputError(f"export is {kind!r}; there are {' and '.join(EXPORTS)}.")
    record = finished_run(run)
    recipe = recipe_of(settings, record)
    location = source_of(run, record, source)
    columns, of_test = _columns_for(location, test, (path_column, label_column))
    task = prepare(run, record, location, columns, corrections, settings, recipe, machine, watcher)
    recipe = task.inputs.recipe(recipe)
    lesson = lesson_of(task, settings, record)
    if settings.epochs is None and not recipe.milestones:
        recipe = replace(recipe, epochs=lesson.epochs(recipe.epochs * len(task.rows)))
        recipe = enough_epochs(recipe, int(lesson.selected.sum()))
    curriculum = lesson.curriculum(len(task.class_names), recipe.epochs)
    if "features_digest" in record["identity"]:
        watcher.note(f"The run judged features from a file, which holds no network; {recipe.model!r} is trained.")
    if test is not None and test.resolve() == location.resolve():
        watcher.note(f"{test} is what is trained on: the accuracies say how well labels are learned by heart.")
    tested = None if test is None else load_test_images(test, of_test, task, machine, watcher)
    left_out = np.array([curriculum.noise_rate, curriculum.mixed_noise_rate])
    identity = {
        "mode": settings.mode,
        "recipe": asdict(recipe),
        "seed": settings.seed,
        "noise_rate": settings.noise_rate,
        "image_size": task.size,
        "trained_images_digest": digest("\0".join(task.paths)),
        "corrected_labels_digest": digest(lesson.labels, *task.class_names),
        "selected_images_digest": digest(curriculum.selected, curriculum.candidate, left_out),
        "images_digest": task.content_key,
    }
    output = output or default_output(run)
    if output.resolve() == run.resolve():
        raise InputError(f"{output} is the run itself; name another --output.")
    with RunFolder.open(output, identity) as folder:
        was_done = folder.done
        plan = _plan(folder, task, recipe, machine)
        if not was_done:
            watcher.note(_opening(curriculum, task, recipe))
            if (folder.path / CHECKPOINT).exists():
                watcher.note("Going on from the last epoch that was finished.")
            model, trained = _train_pair(folder.path, task, lesson, curriculum, recipe, plan, settings.seed, watcher)
            about = {"trained": _trained(lesson, curriculum, settings, recipe, task)}
            save_model(folder.path, model, about=about)
            _write_history(folder.path / "history.csv", trained)
            folder.save(state="done", summary=about["trained"], run=str(run))
            (folder.path / CHECKPOINT).unlink(missing_ok=True)
        model = load_model(folder.path, trusted=task.architecture(recipe))
        scores = plain_scores = None
        if tested is not None:
            pixels, truth = tested
            scores = score(model.predict_proba(pixels, plan), truth)
            plain = _plain(folder.path, task, curriculum, recipe, plan, settings.seed, watcher)
            plain_scores = score(plain.predict_proba(pixels, plan), truth)
            _write_scores(folder, scores, plain_scores, task.class_names)
        exported = tuple([export_model(model, folder.path, kind) for kind in exports])
        history = _read_history(folder.path / "history.csv")
        return Retrained(
            folder.path, history, folder.record["summary"], scores, plain_scores, exported, task.class_names, was_done
        )


def _columns_for(source: Path, test: Path | None, columns: ColumnNames) -> tuple[ColumnNames, ColumnNames]:
    """Those named, of the source and of the test: of both tables where the test has them too, else of the one table."""
    from cvcoteach.data.sources import columns_of

    nothing: ColumnNames = (None, None)
    there = None if test is None else columns_of(test)
    if there is None:
        return columns, nothing
    if columns_of(source) is None:
        return nothing, columns
    path_column, label_column = (column if column in there else None for column in columns)
    return columns, (path_column, label_column)


# -- training ----------------------------------------------------------------------------------------------------


def _plan(folder: RunFolder, task: Task, recipe: Recipe, machine: Machine) -> Plan:
    from cvcoteach.training.devices import Plan, set_threads

    plan = Plan.recorded(folder.record, machine.device)
    if plan is None:
        k = len(task.class_names)
        plan = task.inputs.plan(recipe, k, device=machine.device, threads=machine.threads, precision=machine.precision)
        if not folder.done:
            folder.save(plan=asdict(plan))
    set_threads(plan.threads)
    return plan


def _train_pair(
    folder: Path,
    task: Task,
    lesson: Lesson,
    curriculum: Curriculum,
    recipe: Recipe,
    plan: Plan,
    seed: int,
    watcher: Watcher,
) -> tuple[Model, list[Epoch]]:
    from cvcoteach.coteaching.training import CoTraining, two_networks
    from cvcoteach.training.checkpoints import run_to_end

    data, k = task.inputs, len(task.class_names)
    scaling = data.scaling(recipe, task.rows[curriculum.selected])
    networks = two_networks(lambda number: data.build(recipe, k, number), plan, seed)
    rows = curriculum.rows
    targets, weights = lesson.labels[rows], None if lesson.weights is None else lesson.weights[rows]
    in_pixels = replace(curriculum, selected=task.rows[curriculum.selected], candidate=task.rows[curriculum.candidate])
    training = CoTraining(
        networks, data.on(plan), targets, in_pixels, recipe, scaling, plan, weights=weights, seed=seed
    )
    run_to_end(training, folder / CHECKPOINT, watcher.epoch)
    return _classifier(networks, task, recipe, scaling), training.history


def _classifier(networks: Sequence[nn.Module], task: Task, recipe: Recipe, scaling: Scaling) -> Model:
    """What was trained, as a classifier of images; heads get their backbone back."""
    from cvcoteach.coteaching.model_files import Model
    from cvcoteach.training.backbones import with_heads
    from cvcoteach.training.batches import Scaling

    mirror, frozen = recipe.tta and bool(recipe.flip), task.frozen
    if frozen is not None:
        networks = [with_heads(frozen.backbone, networks, frozen.center, frozen.scale, len(task.class_names))]
        scaling = Scaling(frozen.backbone.mean, frozen.backbone.std)
    return Model(
        networks, task.architecture(recipe), task.class_names, task.size, task.channels, scaling, mirror, task.levels
    )


def _plain(
    folder: Path,
    task: Task,
    curriculum: Curriculum,
    recipe: Recipe,
    plan: Plan,
    seed: int,
    watcher: Watcher,
) -> Model:
    """One network on all given labels, with as many image passes; trained once, then kept in the folder."""
    from cvcoteach.coteaching.model_files import load_weights, save_weights
    from cvcoteach.training.checkpoints import run_to_end
    from cvcoteach.training.loop import Training

    data, k, file = task.inputs, len(task.class_names), folder / PLAIN_WEIGHTS
    scaling = data.scaling(recipe, task.rows)
    network = data.build(recipe, k, seed)
    if file.exists():
        load_weights(file, [network], k)
    else:
        epochs = plain_epochs(curriculum, recipe.epochs, len(task.rows))
        factor = epochs / recipe.epochs
        milestones = tuple([(round(epoch * factor), rate) for epoch, rate in recipe.milestones])
        watcher.note(f"For comparison: one plain network on all {len(task.rows):,} given labels, {epochs} epochs.")
        network = network.to(plan.torch_device).to(memory_format=plan.memory_format)
        training = Training(
            [network],
            data.on(plan),
            task.rows,
            task.given,
            replace(recipe, epochs=epochs, milestones=milestones),
            scaling,
            plan,
            seed=seed,
        )
        run_to_end(training, folder / PLAIN_CHECKPOINT, watcher.epoch)
        save_weights(file, [network])
        (folder / PLAIN_CHECKPOINT).unlink(missing_ok=True)
    return _classifier([network], task, recipe, scaling)


def plain_epochs(curriculum: Curriculum, epochs: int, n: int) -> int:
    """Epochs over n images that are as many image passes as the curriculum's, one at least."""
    return max(1, round(curriculum.passes(epochs) / n))


def _opening(curriculum: Curriculum, task: Task, recipe: Recipe) -> str:
    s, c = len(curriculum.selected), len(curriculum.candidate)
    reviewed = f" ({task.corrected.n_reviewed:,} reviewed)" if task.corrected.n_reviewed else ""
    joined = f", {c:,} candidates from epoch {curriculum.warmup + 1}" if c else ""
    taken = "" if s == len(task.rows) else " taken for clean"
    what = "Two networks"
    if task.frozen is not None:
        name = task.frozen.backbone.name
        what = f"Two heads on frozen features of {name} (--model backbone:{name} would fine-tune it)"
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return f"{what}, {epochs} on {s:,} images{taken}{reviewed}{joined}."


def _trained(
    lesson: Lesson, curriculum: Curriculum, settings: RetrainSettings, recipe: Recipe, task: Task
) -> dict[str, Any]:
    return {
        "mode": settings.mode,
        "seed": settings.seed,
        "recipe": asdict(recipe),
        "selected": len(curriculum.selected),
        "candidate": len(curriculum.candidate),
        "reviewed": task.corrected.n_reviewed,
        "noise_rate": lesson.noise_rate,
        "noise_left_out": curriculum.noise_rate,
        "noise_left_out_mixed": curriculum.mixed_noise_rate,
        "warmup": curriculum.warmup,
        "ramp": curriculum.ramp,
        "image_passes": curriculum.passes(recipe.epochs),
    }


def _write_history(file: Path, history: Sequence[Epoch]) -> None:
    with replacing(file) as out:
        pd.DataFrame([asdict(epoch) for epoch in history]).to_csv(out, index=False, float_format="%.6g")


def _read_history(file: Path) -> tuple[Epoch, ...]:
    from cvcoteach.coteaching.training import Epoch

    rows = pd.read_csv(file).to_dict("records")
    return tuple([Epoch(**{str(name): value for name, value in row.items()}) for row in rows])


# -- what it bought ----------------------------------------------------------------------------------------------


def _write_scores(folder: RunFolder, ours: Scores, plain: Scores, class_names: Sequence[str]) -> None:
    with replacing(folder.path / "per_class.csv") as out:
        per_class_table(ours, plain, class_names).to_csv(out, index=False, float_format="%.4f")
    for name, scores in (("confusion.csv", ours), ("confusion_plain.csv", plain)):
        with replacing(folder.path / name) as out:
            confusion_table(scores, class_names).to_csv(out)
    folder.save(test=figures(ours, plain))
