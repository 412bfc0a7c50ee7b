"""From what the user named to a finished run folder: sources, trainer, iterative cross-validation, results."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd

import cvcoteach
from cvcoteach import report
from cvcoteach._checks import InputError, IntArray, PredProbs
from cvcoteach.crossval import CrossValResult, FoldProgress, FoldTrainer, IterativeCV
from cvcoteach.storage import RunFolder, digest, replacing, write_arrays

if TYPE_CHECKING:
    from cvcoteach.training.loop import EpochReport, Recipe
    from cvcoteach.training.sources import Source

LARGEST_SMALL_IMAGE = 64  # px; the small network sees no more of a photograph than this
IN_GALLERY = 120  # images in issues.html
_VERSIONED = ("cvcoteach", "torch", "torchvision", "numpy", "pillow", "scikit-learn")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a run, beside the images and labels themselves."""

    preset: str = "fast"
    model: str | None = None
    weights: str | None = None
    epochs: int | None = None
    image_size: int | None = None
    flip: bool | None = None
    patience: int | None = None
    features: Path | None = None
    head: Literal["linear", "mlp"] = "linear"
    n_rounds: int = 4
    n_folds: int = 2
    remove_ratio: float | Literal["auto"] = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Machine:
    """Where a run computes; none of it is part of the run's identity."""

    device: str | None = None
    threads: int | None = None
    cache_dir: Path | None = None


class Watcher(Protocol):
    """Told what happens while it happens."""

    def note(self, sentence: str) -> None:
        """Something the user should know."""

    def reading(self, done: int, total: int) -> None:
        """Images decoded so far."""

    def fold(self, progress: FoldProgress) -> None:
        """A training begins or has ended."""

    def epoch(self, progress: EpochReport) -> None:
        """An epoch has ended."""


class Silent:
    """A watcher that says nothing."""

    def note(self, sentence: str) -> None:
        """Nothing."""

    def reading(self, done: int, total: int) -> None:
        """Nothing."""

    def fold(self, progress: FoldProgress) -> None:
        """Nothing."""

    def epoch(self, progress: EpochReport) -> None:
        """Nothing."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run."""

    folder: Path
    result: CrossValResult
    table: pd.DataFrame
    """Every image, worst first: the content of issues.csv."""
    summary: dict[str, Any]
    unreadable: int
    """Images left out because they could not be read."""
    was_done: bool
    """The folder held the finished run already; nothing was computed or written."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Images or features with labels, and the trainer over them, before anything is trained."""

    source: Source
    unreadable: Mapping[str, str]
    identity: dict[str, Any]
    make_trainer: Callable[[RunFolder], FoldTrainer]
    seconds_reading: float


@dataclass(frozen=True, eq=False)
class _OnRows:
    """A trainer over some rows of its images: image i of the run is row `rows[i]`."""

    trainer: FoldTrainer
    rows: IntArray

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        return self.trainer.fit_predict(self.rows[train_idx], train_labels, self.rows[eval_idx], seed)


def default_output(source: Path) -> Path:
    """`<name>-issues` in the current folder."""
    return Path(f"{source.resolve().stem}-issues")


def find_issues(
    source: Path,
    output: Path | None = None,
    settings: Settings | None = None,
    machine: Machine | None = None,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Find label issues in the images of `source`; the results are in the folder `output`.

    source: a folder of class folders, a CSV or Parquet, or an .npz (see `read_source`).
    output: made, or gone on with where it holds an unfinished run of the same images, labels and settings.

    Raises InputError, one sentence, for anything that does not fit; what was on disk stays.
    """
    settings, machine, watcher = settings or Settings(), machine or Machine(), watcher or Silent()
    incv = IterativeCV(settings.n_rounds, settings.n_folds, settings.remove_ratio, settings.seed)
    prepared = _prepare(source, settings, machine, path_column, label_column, watcher)
    data = prepared.source
    n_classes = len(data.class_names)
    for sentence in (*data.notes, *_rare_classes(data, settings.n_folds)):
        watcher.note(sentence)

    with RunFolder.open(output or default_output(source), prepared.identity) as run:
        was_done = run.done
        if not was_done:
            _write_unreadable(run.path, prepared.unreadable)
            run.save(source=str(source), machine=_machine_record(), versions=_versions())
        clock = _Clock(run, watcher)
        if not was_done:
            clock.record("reading", prepared.seconds_reading)
        result = incv.run(
            prepared.make_trainer(run), data.labels, n_classes=n_classes, finished=run.folds, on_fold=clock.fold
        )
        table = report.issue_table(result, data.paths, data.class_names)
        summary = report.summary(result, table, data.class_names) | {"n_unreadable": len(prepared.unreadable)}
        if not was_done:
            _write_results(run, result, table, data)
            run.save(state="done", rounds=report.round_figures(result), summary=summary)
        return Outcome(run.path, result, table, summary, len(prepared.unreadable), was_done)


def _prepare(
    source: Path,
    settings: Settings,
    machine: Machine,
    path_column: str | None,
    label_column: str | None,
    watcher: Watcher,
) -> _Prepared:
    from cvcoteach.training.devices import choose_device
    from cvcoteach.training.sources import read_source

    started = time.perf_counter()
    choose_device(machine.device)  # what cannot work is told before a million images are read
    data = read_source(source, path_column=path_column, label_column=label_column)
    identity = {name: getattr(settings, name) for name in ("n_rounds", "n_folds", "remove_ratio", "seed")}
    if settings.features is not None:
        prepared = _prepare_features(data, settings, machine, watcher)
    else:
        prepared = _prepare_images(data, settings, machine, watcher)
    kept = prepared.source
    labels_digest = digest(kept.labels, *kept.class_names)
    paths_digest = digest("\0".join(kept.paths))
    return replace(
        prepared,
        identity=identity | prepared.identity | {"labels_digest": labels_digest, "paths_digest": paths_digest},
        seconds_reading=time.perf_counter() - started,
    )


def _prepare_features(data: Source, settings: Settings, machine: Machine, watcher: Watcher) -> _Prepared:
    from cvcoteach.training.features import HeadTrainer, load_features

    assert settings.features is not None
    features = load_features(settings.features)
    if len(features) != len(data.labels):
        raise InputError(
            f"{settings.features} has {len(features):,} rows, but the source has {len(data.labels):,} images; "
            "it takes one row an image, in the order of the source."
        )
    trainer = HeadTrainer(
        features,
        len(data.class_names),
        settings.head,
        device=machine.device,
        threads=machine.threads,
        on_epoch=watcher.epoch,
    )
    identity = {"head": settings.head, "features_digest": digest(features)}
    return _Prepared(data, {}, identity, lambda run: trainer, 0.0)


def _prepare_images(data: Source, settings: Settings, machine: Machine, watcher: Watcher) -> _Prepared:
    from cvcoteach.training.devices import Plan
    from cvcoteach.training.folds import TorchTrainer
    from cvcoteach.training.images import load_images, natural_size
    from cvcoteach.training.models import preprocessing

    recipe = _recipe(settings)
    own_size = preprocessing(recipe.model, recipe.weights).size
    size = settings.image_size or own_size or max(8, min(natural_size(data), LARGEST_SMALL_IMAGE))
    images = load_images(data, size, cache_dir=machine.cache_dir, progress=watcher.reading)
    unreadable = {data.paths[i]: reason for i, reason in images.errors.items()}
    pixels = images.pixels
    readable = None
    if unreadable:
        readable = np.flatnonzero(images.readable)
        data = data.subset(readable)
        if len(np.unique(data.labels)) < 2:
            raise InputError(f"{data.root} has readable images of one class only; a wrong label needs a second class.")

    def make_trainer(run: RunFolder) -> FoldTrainer:
        plan = Plan(**run.record["plan"]) if "plan" in run.record else None
        trainer = TorchTrainer(
            pixels,
            len(data.class_names),
            recipe,
            device=machine.device,
            plan=plan,
            threads=machine.threads,
            on_epoch=watcher.epoch,
        )
        if plan is None and not run.done:
            run.save(plan=asdict(trainer.plan))
        return trainer if readable is None else _OnRows(trainer, readable)

    identity = {"recipe": asdict(recipe), "image_size": size, "images_digest": images.content_key}
    return _Prepared(data, unreadable, identity, make_trainer, 0.0)


def _recipe(settings: Settings) -> Recipe:
    """The preset, with what the user set himself in its place."""
    from cvcoteach.training.loop import PRESETS

    if settings.preset not in PRESETS:
        raise InputError(f"preset is {settings.preset!r}; there are {', '.join(PRESETS)}.")
    changes = {
        name: getattr(settings, name)
        for name in ("model", "weights", "epochs", "flip", "patience")
        if getattr(settings, name) is not None
    }
    return replace(PRESETS[settings.preset], **changes)


def _rare_classes(data: Source, n_folds: int) -> list[str]:
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    return [
        f"class {data.class_names[k]!r} has {counts[k]} image{'' if counts[k] == 1 else 's'}, fewer than the {n_folds} folds: "
        "some model never sees the class, so look at its images yourself."
        for k in np.flatnonzero(counts < n_folds)
    ]


class _Clock:
    """Writes into run.json how long each part took, and hands the progress on."""

    def __init__(self, run: RunFolder, watcher: Watcher) -> None:
        self.run, self.watcher = run, watcher
        self.started = time.perf_counter()

    def record(self, what: str, seconds: float, **figures: Any) -> None:
        timings = [*self.run.record.get("timings", []), {"what": what, "seconds": round(seconds, 3), **figures}]
        self.run.save(timings=timings)

    def fold(self, progress: FoldProgress) -> None:
        if progress.state == "start":
            self.started = time.perf_counter()
        elif progress.state == "done":
            seconds = time.perf_counter() - self.started
            self.started = time.perf_counter()
            name = f"round {progress.key.round}, fold {progress.key.fold}"
            self.record(name, seconds, n_train=progress.n_train, n_eval=progress.n_eval)
        self.watcher.fold(progress)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = cvcoteach.__version__ if name == "cvcoteach" else "unknown"
    return found


def _machine_record() -> dict[str, Any]:
    return {"system": platform.platform(), "processor": platform.machine()}


def _write_unreadable(folder: Path, unreadable: Mapping[str, str]) -> None:
    if not unreadable:
        return
    table = pd.DataFrame({"path": list(unreadable), "reason": list(unreadable.values())})
    with replacing(folder / "unreadable.csv") as file:
        table.to_csv(file, index=False)


def _write_results(run: RunFolder, result: CrossValResult, table: pd.DataFrame, data: Source) -> None:
    with replacing(run.path / "issues.csv") as file:
        table.to_csv(file, index=False, float_format="%.6f")
    write_arrays(
        run.path / "probabilities.npz",
        pred_probs=result.pred_probs,
        pred_probs_round_1=result.rounds[0].pred_probs,
        labels=result.labels,
        class_names=np.array(data.class_names),
        paths=np.array(data.paths),
        selected=result.selected,
        candidate=result.candidate,
        dropped=result.dropped,
        round=result.last_round,
    )
    _write_gallery(run.path / "issues.html", result, table, data)


def _write_gallery(file: Path, result: CrossValResult, table: pd.DataFrame, data: Source) -> None:
    from cvcoteach.training.thumbnails import thumbnails

    rows = report.worst_first(result)[:IN_GALLERY]
    lead = (
        f"{table['is_label_issue'].sum():,} of {len(table):,} labels look wrong. The {len(rows)} most doubtful: "
        "the given label, the predicted one, and the probability of the given one."
    )
    page = report.gallery_html(f"Label issues in {data.location.name}", lead, table, thumbnails(data, rows))
    with replacing(file) as out:
        out.write(page.encode())
