"""What a retraining is made from: a finished run, its images, the corrections, the test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cvcoteach._validation import FloatArray, InputError, IntArray, near
from cvcoteach.crossval.final_scoring import verdict
from cvcoteach.data.levels import ORDINARY, Levels
from cvcoteach.issues.corrections import Corrected, correct
from cvcoteach.pipeline.prepare import extracted
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.run_source import ColumnNames as ColumnNames
from cvcoteach.pipeline.run_source import check_same_images, read_again
from cvcoteach.pipeline.settings import Machine, Watcher

if TYPE_CHECKING:
    from cvcoteach.coteaching.lesson import Lesson
    from cvcoteach.data.images import Images
    from cvcoteach.data.sources import Source
    from cvcoteach.training.backbones import Backbone
    from cvcoteach.training.inputs import Inputs
    from cvcoteach.training.recipe import Recipe


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
    learning_rate: float | None = None
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
class Frozen:
    """A backbone that stays as it is; heads are trained on its features."""

    backbone: Backbone
    center: FloatArray
    """(d,) taken off the features."""
    scale: FloatArray
    """(d,) by which they are divided."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained on: the images of the run that can be read and are not excluded."""

    paths: tuple[str, ...]
    """n, as in the run."""
    inputs: Inputs
    """N images of the source, or features of these."""
    rows: IntArray
    """(n,) into the inputs."""
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
    """Pixels a side of the images that the classifier takes."""
    channels: int
    content_key: str
    frozen: Frozen | None = None
    levels: Levels = ORDINARY
    """Black and white of images that are not ordinary bytes."""

    def architecture(self, recipe: Recipe) -> str:
        """The classifier that comes of it, as `build_model` knows it."""
        from cvcoteach.training.models import FROZEN

        backbone = self.frozen.backbone if self.frozen else None
        return f"{FROZEN}{backbone.name}@{backbone.size}" if backbone else recipe.model


def finished_run(run: Path) -> dict[str, Any]:
    """The record of that run. Raises InputError where there is none, or it has not ended."""
    folder = RunFolder.read(run)
    if (run / "model.json").exists():
        raise InputError(f"{run} is a classifier that retrain wrote; it takes the run folder of find-issues.")
    if not folder.done or not (run / "probabilities.npz").exists():
        raise InputError(f"{run} is not finished; run its find-issues again, which goes on from where it stopped.")
    return folder.record


def recipe_of(settings: RetrainSettings, record: dict[str, Any]) -> Recipe:
    """The preset with the run's own network, and what the user set himself in its place.

    Pretrained networks are trained as find-issues trains them: frozen ones by heads on their features, fine-tuned ones
    gently.
    """
    from cvcoteach.coteaching.estimator import HEAD_RECIPE, RECIPES
    from cvcoteach.training.models import BACKBONE, FROZEN, backbone_of
    from cvcoteach.training.recipe import FINETUNE

    if settings.preset not in RECIPES:
        raise InputError(f"preset is {settings.preset!r}; {near(settings.preset, RECIPES)}")
    identity, base = record["identity"], RECIPES[settings.preset]
    used = dict(identity.get("recipe", {})) if settings.preset == "fast" else {}
    if settings.preset == "fast" and "backbone" in identity:
        used = {"model": f"{FROZEN}{identity['backbone']}"}
    changes = {name: used[name] for name in ("model", "flip") if used.get(name) is not None}
    model = settings.model or changes.get("model", base.model)
    if backbone_of(model)[0] == backbone_of(used.get("model", ""))[0]:
        changes["weights"] = record.get("weights", used.get("weights"))
    if model.startswith(FROZEN):
        if settings.preset != "fast" or settings.flip is not None:
            option = "preset paper" if settings.preset != "fast" else "flip"
            raise InputError(f"model is {model!r}, whose heads see features: {option} is for networks that see images.")
        base = HEAD_RECIPE
    elif model.startswith(BACKBONE) and settings.preset == "fast":
        base = FINETUNE
    for name in ("model", "weights", "epochs", "learning_rate", "flip"):
        if getattr(settings, name) is not None:
            changes[name] = getattr(settings, name)
    return replace(base, **changes)


def source_of(run: Path, record: dict[str, Any], source: Path | None) -> Path:
    """Where the images of the run are: in `source`, else where the run found them.

    Raises InputError where these have moved.
    """
    location = source or Path(record.get("source", ""))
    if source is None and not location.exists():
        raise InputError(
            f"{location}, where the run found its images, is not there; name them: "
            f"cvcoteach retrain SOURCE --run {run}."
        )
    return location


def prepare(
    run: Path,
    record: dict[str, Any],
    source: Path,
    columns: ColumnNames,
    corrections: Path | None,
    settings: RetrainSettings,
    recipe: Recipe,
    machine: Machine,
    watcher: Watcher,
) -> Task:
    """Read the run, its images and what was corrected.

    Raises InputError, one sentence, for anything that does not fit.
    """
    from cvcoteach.data.images import natural_size
    from cvcoteach.training.inputs import Inputs

    with np.load(run / "probabilities.npz", allow_pickle=False) as arrays:
        labels, paths = arrays["labels"].astype(np.int64), tuple(arrays["paths"].tolist())
        class_names = tuple(arrays["class_names"].tolist())
        selected, candidate = arrays["selected"], arrays["candidate"]
        posterior, flags = verdict(labels, arrays["pred_probs"])
    wrong = posterior.wrong if settings.selection == "flags" and posterior.believable else None
    if settings.selection == "flags":
        selected = ~flags
        candidate = candidate & flags
    data = read_again(source, record, columns)
    place = {path: row for row, path in enumerate(data.paths)}
    absent = [path for path in paths if path not in place]
    if absent:
        raise InputError(
            f"{len(absent):,} of {len(paths):,} images of the run are not in {source}, {absent[0]} for one; it takes "
            "the source that the run was made from."
        )
    rows = np.array([place[path] for path in paths], np.int64)
    changed = sum(
        data.class_names[now] != class_names[then]
        for now, then in zip(data.labels[rows].tolist(), labels.tolist(), strict=True)
    )
    if changed:
        watcher.note(
            f"{changed:,} labels in {source} have changed since the run, which goes by the older ones; give new "
            "labels with --corrections, or run find-issues again."
        )
    if corrections is None:
        nothing = np.zeros(len(labels), np.bool_)
        corrected = Corrected(labels, selected, candidate, nothing, nothing)
    else:
        corrected = correct(
            corrections, paths, data.root.absolute(), labels, posterior.suggested, selected, candidate, class_names
        )
    backbone = _backbone(record, recipe, settings)
    # as in find-issues: smaller images are scaled up by the device
    size = min(natural_size(data), backbone.size) if backbone else settings.image_size or _size(record, recipe, data)
    images = _load(data, size, None, machine, watcher)
    check_same_images(run, record, data, images)
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
    inputs, taught, frozen = Inputs(images.pixels, are_features=False), rows[kept], None
    if backbone is not None:
        inputs, frozen = _features(backbone, images, taught, machine, watcher)
        taught = np.arange(len(taught))
    return Task(
        tuple([paths[i] for i in kept]),
        inputs,
        taught,
        labels[kept],
        corrected,
        wrong,
        posterior.suggested[kept],
        posterior.suggested_prob[kept],
        class_names,
        size,
        int(images.pixels.shape[3]),
        images.content_key,
        frozen,
        images.levels,
    )


def _size(record: dict[str, Any], recipe: Recipe, data: Source) -> int:
    """Pixels a side: the run's, where its network was such a one too, else what `size_for` says."""
    from cvcoteach.data.images import size_for
    from cvcoteach.training.models import preprocessing
    from cvcoteach.training.networks import OWN

    trained = record["identity"].get("recipe", {}).get("model")
    if trained is not None and (trained == recipe.model or {trained, recipe.model} <= {*OWN}):
        return int(record["identity"]["image_size"])
    return size_for(data, preprocessing(recipe.model, recipe.weights).size)


def _backbone(record: dict[str, Any], recipe: Recipe, settings: RetrainSettings) -> Backbone | None:
    """The backbone that is to stay as it is, if any: the run's, as it was then, or another.

    Raises InputError where its weights have changed, or cannot be kept in a classifier.
    """
    from cvcoteach.training.backbones import load_backbone
    from cvcoteach.training.models import FROZEN, backbone_of

    if not recipe.model.startswith(FROZEN):
        return None
    (name, size), identity = backbone_of(recipe.model), record["identity"]
    is_the_runs = identity.get("backbone") == name
    used = int(identity["image_size"]) if is_the_runs else None
    backbone = load_backbone(name, recipe.weights, size=settings.image_size or size or used)
    if not backbone.trainable:
        raise InputError(
            f"the features are those of the file {name}, whose network a classifier cannot hold; --model names another "
            "network."
        )
    if is_the_runs and backbone.digest != identity["weights_digest"]:
        raise InputError(f"{name} has other weights than in the run; --weights brings those that it had.")
    return backbone


def _features(
    backbone: Backbone, images: Images, rows: IntArray, machine: Machine, watcher: Watcher
) -> tuple[Inputs, Frozen]:
    """Of these rows; taken from the cache where find-issues left them there."""
    from cvcoteach.training.inputs import features_of, standard_of

    features = extracted(backbone, images, machine, watcher)[rows]
    center, scale = standard_of(features)
    return features_of(features, center, scale), Frozen(backbone, center, scale)


def _load(
    data: Source,
    size: int,
    channels: int | None,
    machine: Machine,
    watcher: Watcher,
    levels: Levels | None = None,
) -> Images:
    from cvcoteach.data.images import load_images

    return load_images(
        data,
        size,
        channels=channels,
        levels=levels,
        cache_dir=machine.cache_dir,
        max_pixels=machine.max_pixels,
        progress=watcher.reading,
    )


def lesson_of(task: Task, settings: RetrainSettings, record: dict[str, Any]) -> Lesson:
    """What is taught.

    Raises InputError where nothing, or nothing of a class, counts as clean, and where nothing is known to correct by.
    """
    from cvcoteach.coteaching import lesson as lessons
    from cvcoteach.coteaching.training import check_noise_rate

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


def load_test_images(
    test: Path, columns: ColumnNames, task: Task, machine: Machine, watcher: Watcher
) -> tuple[Any, IntArray]:
    """The readable test images as pixels, and their classes in the numbers of the run.

    columns: of paths and of labels in a table.
    """
    from cvcoteach.data.sources import read_source

    data = read_source(test, path_column=columns[0], label_column=columns[1], least_classes=1)
    labels = numbers_of(data, task.class_names, str(test))
    images = _load(data, task.size, task.channels, machine, watcher, task.levels)
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
