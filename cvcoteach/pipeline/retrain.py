"""Retrain a classifier on a finished run: corrections, what is learned, and what that brings on test images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._csv import write_csv
from cvcoteach._files import check_regular, digest
from cvcoteach._progress import Watcher
from cvcoteach._validation import InputError, IntArray, PredProbs, counted
from cvcoteach.coteaching.calibration import Calibration
from cvcoteach.coteaching.model_files import Model, check_export, export_model, load_model, save_model
from cvcoteach.coteaching.presets import SOFT_HEAD_RECIPE
from cvcoteach.coteaching.training import CoTeachingTask, Epoch, with_epochs
from cvcoteach.data.sources import Choices, at_hand, columns_of
from cvcoteach.pipeline.classifier import CHECKPOINT, ClassifierTraining, epochs_of, plan_of
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.on_engine import on_engine
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.recheck import RECHECK, check_can_judge_again, judged_again
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.retrain_recipe import recipe_of
from cvcoteach.pipeline.retrain_selection import mode_of, selection_of
from cvcoteach.pipeline.retraining_set import (
    NamedSource,
    RetrainingSet,
    RetrainRequest,
    load_test_images,
    read_retraining_set,
)
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.run_source import as_in_run, location_of
from cvcoteach.pipeline.scores import Comparison, Scores, confusion_table, figures, per_class_table, score
from cvcoteach.pipeline.settings import Machine, RetrainSettings
from cvcoteach.training.trust import check_trusted

_HISTORY = "history.csv"


@dataclass(frozen=True, eq=False)
class RetrainedClassifier:
    """A retrained classifier in its folder."""

    folder: Path
    """Holds model.safetensors, model.json, history.csv and, with test images, the scores."""
    history: tuple[Epoch, ...]
    """One record per epoch."""
    summary: dict[str, Any]
    """What was trained on, and how; as in run.json."""
    compared: Comparison | None
    """Its scores on the test images, beside those of plain networks; None without any."""
    calibration: Calibration | None
    """What held-out images say about it; None where none were held out."""
    exported: tuple[Path, ...]
    """Files of exported networks."""
    class_names: tuple[str, ...]
    """(K,) names."""
    was_done: bool
    """Whether the folder held the finished classifier already, so that nothing was trained."""
    rechecked: RunResults | None = None
    """The run's labels judged again, in the folder `recheck`; None where that was not asked for."""


def default_output(run: Path) -> Path:
    """Return `<run>-model` beside the run."""
    run = run.resolve()
    return run.with_name(f"{run.name.removesuffix('-issues')}-model")


@on_engine
def retrain(
    run: str | Path,
    output: str | Path | None = None,
    settings: RetrainSettings | None = None,
    machine: Machine | None = None,
    *,
    source: str | Path | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    choices: Choices | None = None,
    corrections: str | Path | None = None,
    test: str | Path | None = None,
    test_choices: Choices | None = None,
    exports: Sequence[str] = (),
    recheck: bool = False,
    watcher: Watcher | None = None,
) -> RetrainedClassifier:
    """Retrain on what a run found about its labels, and save the classifier in a folder.

    Args:
        run: The folder of a finished find-issues.
        output: The folder of the classifier; an unfinished retraining of the same run, settings and corrections
            resumes there. None: `default_output`.
        settings: How to retrain; None: the defaults.
        machine: Where to compute; None: chosen.
        source: The images of the run; None: where the run found them.
        path_column: Column of image paths in a table; None: auto-detected.
        label_column: Column of labels in a table; None: auto-detected.
        choices: How to read the images of the run, where that differs from how the run read them; None: as the run did.
        corrections: What people decided about labels, see `correct`.
        test: Images with right labels, as `read_source` takes them, to measure the classifier on; or the name of a
            split that the run held out, with the labels it has now.
        test_choices: How to read images of `test`, columns aside; None: as they are recognised.
        exports: "onnx", "torch.export".
        recheck: Whether to judge all labels of the run again, by five more pairs that are trained in the same way, each
            without a fifth of the images; see `judged_again`.
        watcher: Follows the run.

    Raises:
        InputError: Anything does not fit; existing files stay.
    """
    settings, machine, progress = settings or RetrainSettings(), machine or Machine(), RunProgress(watcher)
    run, output, corrections = Path(run), _path(output), _path(corrections)
    source, test = (None if each is None else at_hand(each, machine.cache_dir) for each in (source, test))
    for kind in exports:
        check_export(kind)  # before anything is trained
    finished = FinishedRun.read(run)
    output = output or default_output(run)
    if recheck:
        check_can_judge_again(finished)
        if (output / RECHECK).is_symlink():
            raise InputError(f"{output / RECHECK} is a link; labels are judged again in the folder of the classifier.")
    recipe = recipe_of(settings, finished.record)
    if recipe.model.is_foreign:
        check_trusted(recipe.model.name, machine.trusted, None if settings.model else str(run / "run.json"))
    again = f"with cvcoteach retrain SOURCE --run {shlex.quote(str(run))}"
    location = source or location_of(run, finished.record, again)
    named, tested_as = (
        replace(each or Choices(), path_column=path_column, label_column=label_column, cache_dir=machine.cache_dir)
        for each in (choices, test_choices)
    )
    split = _held_out_split(finished, test)
    images, test_images = _named_sources(location, test if split is None else None, named, tested_as)
    images = replace(images, choices=as_in_run(run, finished.record, location, images.choices))
    if split is not None:
        test_images = replace(images, paths=_paths_of(finished, split))
    request = RetrainRequest(finished, images, corrections, settings, recipe.model)
    data = read_retraining_set(request, machine, progress)
    recipe, n_classes = data.inputs.adapted(recipe), len(data.class_names)
    if data.frozen is not None and mode_of(data, settings) == "posterior":
        recipe = replace(recipe, hidden=SOFT_HEAD_RECIPE.hidden)
    selection = selection_of(data, settings, finished.noise_rate)
    if settings.epochs is None:
        recipe = with_epochs(recipe, selection)
    curriculum = selection.curriculum(n_classes, recipe.epochs)
    task = CoTeachingTask(data.inputs, selection, n_classes, recipe, curriculum, settings.seed)
    if data.frozen is not None and mode_of(data, settings) != settings.training_mode:
        progress.note("The run cannot tell which labels are wrong, so they are learned as they are, by Co-teaching.")
    if "features_digest" in finished.identity:
        progress.note(f"The run used features from a file, which holds no network; {str(recipe.model)!r} is trained.")
    tested = None
    if test_images is not None:
        same_part = test_images.choices.split == images.choices.split
        if split is None and same_part and test_images.location.resolve() == images.location.resolve():
            progress.note(f"{test} is what is trained on: the accuracies tell how well labels are memorised.")
        tested = load_test_images(test_images, data, machine, progress)
    if output.resolve() == run.resolve():
        raise InputError(f"{output} is the run itself; name another place.")
    with RunFolder.open(output, _identity(settings, data, task)) as folder:
        was_done = folder.done
        training = ClassifierTraining(folder.path, data, task, plan_of(folder, task, machine))
        if was_done:
            model = load_model(folder.path, trusted=machine.trusted)
        else:
            progress.note(_opening(data, task))
            if (folder.path / CHECKPOINT).exists():
                progress.note("Resuming from the last finished epoch.")
            model, history, calibration = training.pair(progress)
            summary = _summary(settings, data, task)
            estimate = None if calibration is None else asdict(calibration)
            save_model(folder.path, model, about={"trained": summary, "calibration": estimate})
            _write_history(folder.path / _HISTORY, history)
            folder.save(state="done", summary=summary, calibration=estimate, run=str(run))
        (folder.path / CHECKPOINT).unlink(missing_ok=True)
        compared = None if tested is None else _compared(model, training, tested, progress)
        if compared is not None:
            _write_scores(folder, compared, data.class_names)
        rechecked = None
        if recheck:
            identity, into = folder.record["identity"], folder.path / RECHECK
            found = images.read()
            rechecked = judged_again(
                finished, data, task, training.plan, found, into, identity=identity, progress=progress
            )
        return RetrainedClassifier(
            folder=folder.path,
            history=_read_history(folder.path / _HISTORY),
            summary=_summary_of(folder),
            compared=compared,
            calibration=_calibration_of(folder),
            exported=tuple([export_model(model, folder.path, kind) for kind in exports]),
            class_names=data.class_names,
            was_done=was_done,
            rechecked=rechecked,
        )


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _held_out_split(run: FinishedRun, test: Path | None) -> str | None:
    """Return the split of the run that `test` names, None where that is a path. Raises InputError for train."""
    splits = run.results.found.splits
    if test is None or test.exists() or splits is None or str(test) not in splits:
        return None
    if not run.results.held_out[splits == str(test)].all():
        raise InputError(f"{str(test)!r} is the split that models learned from; measure on another one.")
    return str(test)


def _paths_of(run: FinishedRun, split: str) -> frozenset[str]:
    """Return the names of the images of a split of the run, wherever the run knew it from."""
    inside = np.asarray(run.results.found.splits) == split
    return frozenset([run.results.paths[row] for row in np.flatnonzero(inside).tolist()])


def _named_sources(
    source: Path, test: Path | None, named: Choices, tested: Choices
) -> tuple[NamedSource, NamedSource | None]:
    """Return the source and the test with the named columns: of both tables if the test has them, else of the table."""
    if test is None:
        return NamedSource(source, named), None
    there, no_columns = columns_of(test), {"path_column": None, "label_column": None}
    if there is None:
        return NamedSource(source, named), NamedSource(test, replace(tested, **no_columns))
    if columns_of(source) is None:
        return NamedSource(source, replace(named, **no_columns)), NamedSource(test, tested)
    path_column, label_column = (
        column if column in there else None for column in (named.path_column, named.label_column)
    )
    return NamedSource(source, named), NamedSource(
        test, replace(tested, path_column=path_column, label_column=label_column)
    )


def _identity(settings: RetrainSettings, data: RetrainingSet, task: CoTeachingTask) -> dict[str, Any]:
    """Return everything that decides the result, for run.json."""
    curriculum = task.curriculum
    left_out = np.array([curriculum.noise_rate, curriculum.mixed_noise_rate])
    return {
        "mode": mode_of(data, settings),
        "recipe": task.recipe.as_record(),
        "seed": settings.seed,
        "noise_rate": settings.noise_rate,
        "image_size": data.images.size,
        "trained_images_digest": digest("\0".join(data.paths)),
        "corrected_labels_digest": digest(_learned(task), *data.class_names),
        "selected_images_digest": digest(curriculum.selected, curriculum.candidate, left_out),
        "images_digest": data.images.content_key,
    }


def _learned(task: CoTeachingTask) -> IntArray | PredProbs:
    """Return what each image is learned as: its label (n,), or its probabilities (n, K)."""
    return task.selection.labels if task.selection.soft is None else task.selection.soft


def _summary(settings: RetrainSettings, data: RetrainingSet, task: CoTeachingTask) -> dict[str, Any]:
    """Return what was trained on, and how, for people and machines."""
    curriculum = task.curriculum
    return {
        "mode": mode_of(data, settings),
        "seed": settings.seed,
        "recipe": task.recipe.as_record(),
        "selected": len(curriculum.selected),
        "candidate": len(curriculum.candidate),
        "reviewed": data.corrected.n_reviewed,
        "noise_rate": task.selection.noise_rate,
        "noise_left_out": curriculum.noise_rate,
        "noise_left_out_mixed": curriculum.mixed_noise_rate,
        "warmup": curriculum.warmup,
        "ramp": curriculum.ramp,
        "image_passes": curriculum.passes(task.recipe.epochs),
    }


def _opening(data: RetrainingSet, task: CoTeachingTask) -> str:
    """Return one sentence on what is about to be trained."""
    curriculum, n_reviewed = task.curriculum, data.corrected.n_reviewed
    s, c = len(curriculum.selected), len(curriculum.candidate)
    reviewed = f" ({n_reviewed:,} reviewed)" if n_reviewed else ""
    joined = f", {counted(c, 'candidate')} from epoch {curriculum.warmup + 1}" if c else ""
    taken = "" if s == len(data) else " taken for clean"
    if task.selection.soft is not None:
        taken = ", each as the classes that the run takes it for"
    what = "Two networks"
    if data.frozen is not None:
        name = data.frozen.backbone.name
        what = f"Two heads on frozen features of {name} (--model backbone:{name} would fine-tune it)"
    return f"{what}, {epochs_of(task.recipe)} on {s:,} images{taken}{reviewed}{joined}."


def _write_history(file: Path, history: Sequence[Epoch]) -> None:
    write_csv(file, pd.DataFrame([asdict(epoch) for epoch in history]), float_format="%.6g")


def _read_history(file: Path) -> tuple[Epoch, ...]:
    check_regular(file)
    try:
        rows = pd.read_csv(file).to_dict("records")
        history = tuple([Epoch(**{str(name): value for name, value in row.items()}) for row in rows])
        _check_numbers([value for each in history for name, value in asdict(each).items() if name != "stage"])
    except (ValueError, TypeError) as error:
        raise _damaged(file, error) from None
    if not history:
        raise _damaged(file, "it has no epochs")
    return history


def _check_numbers(values: Sequence[object]) -> None:
    odd = next((value for value in values if not isinstance(value, int | float)), None)
    if odd is not None:
        raise ValueError(f"{str(odd)[:40]!r} is no number")


def _damaged(file: Path, why: object) -> InputError:
    return InputError(f"{file} is damaged ({why}); retrain into another folder.")


def _compared(
    model: Model, training: ClassifierTraining, tested: tuple[npt.NDArray[np.uint8], IntArray], progress: RunProgress
) -> Comparison:
    """Return the scores of the classifier and of plain networks, which are trained first, on test images."""
    pixels, truth = tested

    def scores_of(classifier: Model) -> Scores:
        return score(classifier.predict_proba(pixels, training.plan), truth)

    left_out = training.left_out(progress)
    return Comparison(
        scores_of(model), scores_of(training.plain(progress)), None if left_out is None else scores_of(left_out)
    )


def _calibration_of(folder: RunFolder) -> Calibration | None:
    """Return the calibration that the record of a classifier holds; None where it has none."""
    found = folder.record.get("calibration")
    if found is None:
        return None
    try:
        result = Calibration(**found)
        _check_numbers(list(found.values()))
    except (ValueError, TypeError) as error:
        raise _damaged(folder.path / "run.json", error) from None
    return result


def _summary_of(folder: RunFolder) -> dict[str, Any]:
    """Return the figures that the record of a classifier holds."""
    found: dict[str, Any] = folder.needed("summary")
    if not {"mode", "selected", "candidate"} <= found.keys():
        raise _damaged(folder.path / "run.json", "its summary lacks figures")
    return found


def _write_scores(folder: RunFolder, compared: Comparison, class_names: Sequence[str]) -> None:
    write_csv(folder.path / "per_class.csv", per_class_table(compared, class_names), float_format="%.4f")
    named = {"confusion.csv": compared.ours, "confusion_plain.csv": compared.plain}
    if compared.left_out is not None:
        named["confusion_left_out.csv"] = compared.left_out
    for name, scores in named.items():
        write_csv(folder.path / name, confusion_table(scores, class_names), index=True)
    folder.save(test=figures(compared))
