"""What a retraining is made from: a finished run, its images, the corrections, the test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from cvcoteach._checks import BoolArray, FloatArray, InputError, IntArray, near
from cvcoteach.corrections import Corrected, correct
from cvcoteach.final_scoring import verdict
from cvcoteach.runs import Machine, Watcher
from cvcoteach.storage import RunFolder

if TYPE_CHECKING:
    from cvcoteach.training.images import Images
    from cvcoteach.training.lessons import Lesson
    from cvcoteach.training.loop import Recipe
    from cvcoteach.training.sources import Source


@dataclass(frozen=True)
class RetrainSettings:
    """Everything that decides the result, beside the run, the images and the corrections."""

    mode: Literal["incv", "correct", "vanilla"] = "incv"
    select: Literal["flags", "agreement"] | None = None
    """What S is, and how wrong it may be: what the run did not flag, and its probabilities; or what INCV selected, and
    what the paper says. None: "flags", with the preset "paper" "agreement"."""
    preset: str = "fast"
    model: str | None = None
    """None: the run's own, else the preset's."""
    weights: str | None = None
    epochs: int | None = None
    image_size: int | None = None
    flip: bool | None = None
    noise_rate: float | None = None
    """ε̂ of all labels, in [0, 1); None: the run's, less what was corrected."""
    seed: int = 0

    @property
    def selection(self) -> str:
        """`select`, decided."""
        return self.select or ("agreement" if self.preset == "paper" else "flags")


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained on: the images of the run that can be read and are not excluded."""

    pixels: Any
    """(N, size, size, C) uint8: of the source."""
    rows: IntArray
    """(n,) into the pixels."""
    given: IntArray
    """(n,) labels as the run had them."""
    corrected: Corrected
    wrong: FloatArray | None
    """(n,) probability that each corrected label is wrong, in [0, 1], 0 where reviewed; None where it is not known."""
    suggested: IntArray
    """(n,) the most probable class of each."""
    suggested_prob: FloatArray
    """(n,) its probability."""
    class_names: tuple[str, ...]
    size: int
    channels: int
    content_key: str


def finished_run(run: Path) -> dict[str, Any]:
    folder = RunFolder.read(run)
    if not folder.done or not (run / "probabilities.npz").exists():
        raise InputError(f"{run} is not finished; run its find-issues again, which goes on from where it stopped.")
    return folder.record


def recipe_of(settings: RetrainSettings, record: dict[str, Any]) -> Recipe:
    """The preset with the run's own network, and what the user set himself in its place."""
    from cvcoteach.training.coteaching_estimator import RECIPES

    if settings.preset not in RECIPES:
        raise InputError(f"preset is {settings.preset!r}; {near(settings.preset, RECIPES)}")
    used = record["identity"].get("recipe", {}) if settings.preset == "fast" else {}
    changes = {name: used[name] for name in ("model", "weights", "flip") if used.get(name) is not None}
    if settings.model is not None:
        changes.pop("weights", None)
    for name in ("model", "weights", "epochs", "flip"):
        if getattr(settings, name) is not None:
            changes[name] = getattr(settings, name)
    return replace(RECIPES[settings.preset], **changes)


def prepare(
    run: Path,
    record: dict[str, Any],
    source: Path | None,
    path_column: str | None,
    label_column: str | None,
    corrections: Path | None,
    settings: RetrainSettings,
    recipe: Recipe,
    machine: Machine,
    watcher: Watcher,
) -> Task:
    from cvcoteach.training.sources import read_source

    with np.load(run / "probabilities.npz", allow_pickle=False) as arrays:
        labels, paths = arrays["labels"].astype(np.int64), tuple(arrays["paths"].tolist())
        class_names = tuple(arrays["class_names"].tolist())
        selected, candidate = arrays["selected"], arrays["candidate"]
        suggested = arrays["suggested"] if "suggested" in arrays.files else arrays["pred_probs"].argmax(axis=1)
        posterior, _ = verdict(labels, arrays["pred_probs"])
    wrong = posterior.wrong if settings.selection == "flags" and posterior.believable else None
    if settings.selection == "flags":
        selected = ~_flags(run, paths)
        candidate = candidate & ~selected
    location = source or Path(record.get("source", ""))
    if source is None and not location.exists():
        raise InputError(
            f"{location}, where the run found its images, is not there; name them: "
            f"cvcoteach retrain SOURCE --run {run}."
        )
    data = read_source(location, path_column=path_column, label_column=label_column)
    place = {path: row for row, path in enumerate(data.paths)}
    absent = [path for path in paths if path not in place]
    if absent:
        raise InputError(
            f"{len(absent):,} of {len(paths):,} images of the run are not in {location}, {absent[0]} for one; it takes "
            "the source that the run was made from."
        )
    rows = np.array([place[path] for path in paths], np.int64)
    changed = sum(
        data.class_names[now] != class_names[then]
        for now, then in zip(data.labels[rows].tolist(), labels.tolist(), strict=True)
    )
    if changed:
        watcher.note(
            f"{changed:,} labels in {location} have changed since the run, which goes by the older ones; give new "
            "labels with --corrections, or run find-issues again."
        )
    if corrections is None:
        nothing = np.zeros(len(labels), np.bool_)
        corrected = Corrected(labels, selected, candidate, nothing, nothing)
    else:
        corrected = correct(
            corrections, paths, data.root.absolute(), labels, suggested, selected, candidate, class_names
        )
    size = settings.image_size or _size(record, recipe, data)
    images = _load(data, size, None, machine, watcher)
    kept = np.flatnonzero(images.readable[rows] & ~corrected.excluded)
    if wrong is not None:
        wrong = np.where(corrected.reviewed, 0.0, wrong)[kept]
    unreadable = int((~images.readable[rows]).sum())
    if unreadable:
        watcher.note(f"{unreadable:,} images of the run cannot be read any more and were left out.")
    corrected = replace(
        corrected,
        **{
            name: getattr(corrected, name)[kept] for name in ("labels", "selected", "candidate", "excluded", "reviewed")
        },
    )
    return Task(
        images.pixels,
        rows[kept],
        labels[kept],
        corrected,
        wrong,
        posterior.suggested[kept],
        posterior.suggested_prob[kept],
        class_names,
        size,
        int(images.pixels.shape[3]),
        images.content_key,
    )


def _flags(run: Path, paths: Sequence[str]) -> BoolArray:
    """Whether the run took each label for wrong, (n,): the column that its user saw."""
    try:
        table = pd.read_csv(run / "issues.csv", dtype=str, keep_default_na=False).set_index("path")
        flags: BoolArray = (table["is_label_issue"].loc[list(paths)] == "True").to_numpy()
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{run / 'issues.csv'} is not as the run wrote it ({error}); run find-issues again."
        ) from error
    return flags


def _size(record: dict[str, Any], recipe: Recipe, data: Source) -> int:
    """Pixels a side: what the weights were trained on, the run's, else the images' own up to 64."""
    from cvcoteach.training.images import natural_size
    from cvcoteach.training.inputs import LARGEST_SMALL_IMAGE
    from cvcoteach.training.models import preprocessing

    own = preprocessing(recipe.model, recipe.weights).size
    used = record["identity"].get("image_size")
    return own or used or max(8, min(natural_size(data), LARGEST_SMALL_IMAGE))


def _load(data: Source, size: int, channels: int | None, machine: Machine, watcher: Watcher) -> Images:
    from cvcoteach.training.images import load_images

    return load_images(data, size, channels=channels, cache_dir=machine.cache_dir, progress=watcher.reading)


def lesson_of(task: Task, settings: RetrainSettings, record: dict[str, Any]) -> Lesson:
    """What is taught.

    Raises InputError where nothing, or nothing of a class, counts as clean, and where nothing is known to correct by.
    """
    from cvcoteach.training import lessons
    from cvcoteach.training.coteaching import check_noise_rate

    corrected, k = task.corrected, len(task.class_names)
    noise_rate = settings.noise_rate
    if noise_rate is None and task.wrong is not None:
        noise_rate = float(task.wrong.mean())
    elif noise_rate is None:
        noise_rate = float(record["rounds"][0]["noise_rate"]) * (1 - float(corrected.reviewed.mean()))
    check_noise_rate(noise_rate)
    if settings.mode == "vanilla":
        everything = np.ones(len(task.rows), np.bool_)
        return lessons.Lesson(corrected.labels, everything, ~everything, noise_rate)
    if not corrected.selected.any():
        raise InputError("no label of the run counts as clean; there is nothing to train on.")
    counts = np.bincount(corrected.labels[corrected.selected], minlength=k)
    if (counts == 0).any():
        name = task.class_names[int(np.argmin(counts))]
        raise InputError(
            f"no image of class {name!r} counts as clean, so that the networks could not learn it; review some of its "
            "images and give them with --corrections, or take --mode vanilla."
        )
    lesson = lessons.Lesson(
        corrected.labels,
        corrected.selected,
        corrected.candidate,
        noise_rate,
        task.wrong,
        as_published=settings.selection == "agreement",
    )
    if settings.mode != "correct":
        return lesson
    if task.wrong is None:
        raise InputError(
            "the run does not tell which of its labels are wrong, so that none can be corrected; take --mode incv"
            + (" or --select flags." if settings.selection != "flags" else ".")
        )
    return lessons.corrected(lesson, task.suggested, task.suggested_prob)


def load_test_images(test: Path, task: Task, machine: Machine, watcher: Watcher) -> tuple[Any, IntArray]:
    """The readable test images as pixels, and their classes in the numbers of the run."""
    from cvcoteach.training.sources import read_source

    data = read_source(test)
    labels = numbers_of(data, task.class_names, str(test))
    images = _load(data, task.size, task.channels, machine, watcher)
    if images.errors:
        watcher.note(f"{len(images.errors):,} test images cannot be read and were left out.")
    rows = np.flatnonzero(images.readable)
    return (images.pixels if len(rows) == len(data) else images.pixels[rows]), labels[rows]


def numbers_of(data: Source, class_names: Sequence[str], where: str) -> IntArray:
    """The labels of a source, (n,), in the numbers of a model's classes.

    Raises InputError where the source has a class that the model lacks.
    """
    number = {name: k for k, name in enumerate(class_names)}
    unknown = [name for name in data.class_names if name not in number]
    if unknown:
        raise InputError(
            f"{where} has the class {unknown[0]!r}, which the model lacks; {near(unknown[0], class_names)}"
        )
    return np.array([number[name] for name in data.class_names], np.int64)[data.labels]
