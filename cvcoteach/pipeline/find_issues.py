"""From what the user named to a finished run folder: sources, trainer, iterative cross-validation, results."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cvcoteach._files import replacing, write_arrays
from cvcoteach._validation import IntArray
from cvcoteach._version import __version__
from cvcoteach.crossval.final_scoring import FinalScores, FinalScoring
from cvcoteach.crossval.incv import CrossValResult, IterativeCV
from cvcoteach.crossval.trainer import FoldProgress
from cvcoteach.data.sources import Choices
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.pipeline import report
from cvcoteach.pipeline.prepare import prepare, rare_classes
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import ExtractionWatcher as ExtractionWatcher
from cvcoteach.pipeline.settings import Machine as Machine
from cvcoteach.pipeline.settings import Settings as Settings
from cvcoteach.pipeline.settings import Silent as Silent
from cvcoteach.pipeline.settings import Watcher as Watcher

if TYPE_CHECKING:
    from cvcoteach.data.sources import Source

IN_GALLERY = 120  # images in issues.html
_VERSIONED = ("cvcoteach", "torch", "torchvision", "numpy", "pillow", "scikit-learn")


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run."""

    folder: Path
    result: CrossValResult
    issues: LabelIssues
    """The verdict on every label, after the final scoring."""
    table: pd.DataFrame
    """Every image, worst first: the content of issues.csv."""
    summary: dict[str, Any]
    unreadable: int
    """Images left out because they could not be read."""
    was_done: bool
    """The folder held the finished run already; nothing was computed or written."""


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
    path_pattern: str | None = None,
    split: str | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Find label issues in the images of `source`; the results are in the folder `output`.

    source: a folder of class folders, a CSV or Parquet, or an .npz (see `read_source`, also for how it is read).
    output: made, or gone on with where it holds an unfinished run of the same images, labels and settings.

    Raises InputError, one sentence, for anything that does not fit; what was on disk stays.
    """
    settings, machine, watcher = settings or Settings(), machine or Machine(), watcher or Silent()
    choices = Choices(path_column, label_column, path_pattern, split)
    incv = IterativeCV(settings.n_rounds, settings.n_folds, settings.remove_ratio, settings.seed)
    prepared = prepare(source, settings, machine, choices, watcher)
    data = prepared.source
    n_classes = len(data.class_names)
    for sentence in (*data.notes, *rare_classes(data, settings.n_folds)):
        watcher.note(sentence)

    with RunFolder.open(output or default_output(source), prepared.identity) as run:
        was_done = run.done
        if not was_done:
            _write_unreadable(run.path, prepared.unreadable)
            weights = settings.weights  # where they lay; what is in them decides, and is in the identity
            if weights is not None and Path(weights).is_file():
                weights = str(Path(weights).absolute())
            run.save(
                source=str(data.location),
                reading=asdict(choices),
                images=dict(prepared.images),
                weights=weights,
                machine=_machine_record(),
                versions=_versions(),
            )
        clock = _Clock(run, watcher)
        if not was_done:
            clock.record("reading", prepared.seconds_reading)
        trainer = prepared.make_trainer(run)
        result = incv.run(trainer, data.labels, n_classes=n_classes, finished=run.folds, on_fold=clock.fold)
        scoring = FinalScoring(settings.select, repeats=settings.repeats, passes=prepared.passes, seed=settings.seed)
        scores = scoring.after(result, trainer, finished=run.folds, on_fold=clock.fold)
        issues = scores.issues(data.class_names)
        table = report.issue_table(result, issues, data.paths)
        summary = report.summary(result, issues, table) | {"n_unreadable": len(prepared.unreadable)}
        if not was_done:
            _write_results(run, result, scores, table, data)
            run.save(state="done", rounds=report.round_figures(result), summary=summary)
        return Outcome(run.path, result, issues, table, summary, len(prepared.unreadable), was_done)


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
            found[name] = __version__ if name == "cvcoteach" else "unknown"
    return found


def _machine_record() -> dict[str, Any]:
    return {"system": platform.platform(), "processor": platform.machine()}


def _write_unreadable(folder: Path, unreadable: Mapping[str, str]) -> None:
    if not unreadable:
        return
    table = pd.DataFrame({"path": list(unreadable), "reason": list(unreadable.values())})
    with replacing(folder / "unreadable.csv") as file:
        table.to_csv(file, index=False)


def _write_results(
    run: RunFolder, result: CrossValResult, scores: FinalScores, table: pd.DataFrame, data: Source
) -> None:
    with replacing(run.path / "issues.csv") as file:
        table.to_csv(file, index=False, float_format="%.6f")
    write_arrays(
        run.path / "probabilities.npz",
        pred_probs=scores.pred_probs,
        label_quality=scores.label_quality,
        suggested=scores.suggested,
        pred_probs_round_1=result.rounds[0].pred_probs,
        labels=result.labels,
        class_names=np.array(data.class_names),
        paths=np.array(data.paths),
        selected=result.selected,
        candidate=result.candidate,
        dropped=result.dropped,
        round=result.last_round,
    )
    _write_gallery(run.path / "issues.html", report.worst_first(result, scores.label_quality)[:IN_GALLERY], table, data)


def _write_gallery(file: Path, rows: IntArray, table: pd.DataFrame, data: Source) -> None:
    from cvcoteach.data.thumbnails import thumbnails

    lead = (
        f"{table['is_label_issue'].sum():,} of {len(table):,} labels look wrong. The {len(rows)} most doubtful: "
        "the given label, the more probable one, and the probability that the given one is right."
    )
    page = report.gallery_html(f"Label issues in {data.location.name}", lead, table, thumbnails(data, rows))
    with replacing(file) as out:
        out.write(page.encode("utf-8", "replace"))
