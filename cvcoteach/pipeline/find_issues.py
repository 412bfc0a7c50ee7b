"""From what the user named to a finished run folder: sources, trainer, iterative cross-validation, results."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._csv import write_csv
from cvcoteach._progress import Watcher
from cvcoteach._validation import BoolArray, InputError
from cvcoteach._version import __version__
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.trainer import FoldProgress
from cvcoteach.data.sources import Choices, Source, at_hand, is_dataset, read_dataset
from cvcoteach.issues.flags import FlagRule
from cvcoteach.pipeline import run_summary
from cvcoteach.pipeline.annotators import ANNOTATORS, consensus, figures
from cvcoteach.pipeline.earlier_runs import (
    Again,
    asked,
    chosen_before,
    decided_labels,
    destination,
    difference,
    still_reviewed,
)
from cvcoteach.pipeline.learned import folds_of, lone_images, n_learned
from cvcoteach.pipeline.on_engine import on_engine
from cvcoteach.pipeline.page.report import PAGE, write_page
from cvcoteach.pipeline.prepare import Prepared, prepare
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.results import ISSUES, RunResults
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.run_source import reading_record
from cvcoteach.pipeline.second_view import VIEWS
from cvcoteach.pipeline.settings import Machine, Settings
from cvcoteach.pipeline.unreadable import write_unreadable

_VERSIONED = ("cvcoteach", "torch", "torchvision", "numpy", "pillow", "scikit-learn")


def default_output(source: str | Path) -> Path:
    """Return `<name>-issues` in the current folder."""
    return Path(f"{Path(source).resolve().stem}-issues")


@on_engine
def find_issues(
    source: str | Path | Source | Any,
    output: str | Path | None = None,
    settings: Settings | None = None,
    machine: Machine | None = None,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    path_pattern: str | None = None,
    split: str | None = None,
    group_column: str | None = None,
    groups: npt.ArrayLike | None = None,
    split_column: str | None = None,
    splits: npt.ArrayLike | None = None,
    annotator_column: str | None = None,
    annotator_columns: str | None = None,
    again: Again = "continue",
    format: str | None = None,
    corrections: str | Path | None = None,
    page: bool = True,
    watcher: Watcher | None = None,
) -> RunResults:
    """Find label issues in the images of `source`; the results are in the folder `output`.

    Args:
        source: a folder of class folders, a table, an .npz or another of the formats of `read_source`; the address of
            one (`s3://…`), of which the run's record names the copy in the cache; a Hugging Face `Dataset`; or a
            `Source`, whose `location` is what the run's record and page call it.
        output: created, or continued where it holds an unfinished run of the same images, labels and settings.
            None: `<name>-issues` in the current folder; where that holds a run of the same settings, but labels were
            fixed or images added since, `<name>-issues-2`, then -3, ….
        settings: what decides the result.
        machine: where to compute.
        path_column: column of image paths in a table; None: auto-detected.
        label_column: column of given labels in a table; None: auto-detected.
        path_pattern: file of a value {} in the path column, such as `images/{}.png`; None: the value itself.
        split: the one split to read of a source with several; None: all of them, those beside train being judged by
            models that learned from train alone.
        group_column: column of groups in a table, or array of them in an .npz, such as patients or videos: no model
            judges an image of a group that it trained on.
        groups: (n,) the same as values of any kind, in the order of the source.
        split_column: column of splits in a table; None: one that says nothing but train, test and the like.
        splits: (n,) the same as names, in the order of the source.
        annotator_column: column of who gave a label, in a table with a row per image and annotator.
        annotator_columns: columns of labels, one per annotator, with commas between their names.
        again: "continue"; "fresh" to start over in a new folder; "replace" to overwrite the run of other images,
            labels or settings that is in the folder.
        format: name of the source's format, where it may be of several; None: recognised.
        corrections: a CSV of decisions, as the report and FiftyOne save them: labels that somebody kept, or that are
            now what somebody chose, are not flagged, nor are those of the earlier run while they stay.
        page: whether to make issues.html, the page to look at.
        watcher: follows the run.

    Raises:
        InputError: with one sentence, for anything that does not fit; what was on disk stays.
    """
    settings, machine, progress = settings or Settings(), machine or Machine(), RunProgress(watcher)
    given = at_hand(source, machine.cache_dir) if isinstance(source, str | Path) else source
    rule = settings.flag_rule
    incv = settings.cross_validation
    choices = Choices(
        path_column,
        label_column,
        path_pattern,
        split,
        group_column,
        format,
        split_column=split_column,
        annotator_column=annotator_column,
        annotator_columns=annotator_columns,
    )
    if is_dataset(given):
        given = read_dataset(given, replace(choices, cache_dir=machine.cache_dir))
        progress.note(f"{given.description}.")
    named, asked_for = Path(output) if output else None, asked(settings, choices)
    default = default_output(given.location if isinstance(given, Source) else given)
    before = chosen_before(named, default, asked_for, again) if settings.is_open else None
    prepared = prepare(given, settings, machine, progress, choices=choices, groups=groups, splits=splits, before=before)
    data = prepared.source
    for sentence in (*data.notes, *lone_images(data, incv.select)):
        progress.note(sentence)
    if incv.select == "posterior" and incv.remove_ratio != "auto":
        progress.note("ignored with select posterior, which drops nothing for good: remove_ratio.")
    if incv.select == "agreement" and data.annotations is not None:
        progress.note("ignored with select agreement, which looks at one label per image: who gave each.")
    if incv.select == "agreement" and rule != FlagRule():
        progress.note("ignored with select agreement, which flags what it does not select: flag_for, min_probability.")

    target = destination(named, default_output(data.location), prepared.identity, asked_for, again)
    changed = target.sentence(data)
    if changed is not None:
        progress.note(changed)
    if corrections is not None and not target.comparable:
        raise InputError(
            f"{corrections} names images by number, and the images of {data.location.name} have changed since the "
            "last run."
        )
    decided = None if corrections is None else decided_labels(Path(corrections), data)
    with RunFolder.open(target.folder, prepared.identity, replace=again == "replace") as run:
        if run.done:
            return replace(_brought_up_to_date(run, data, rule, decided, progress, page), was_done=True)
        write_unreadable(run.path, prepared.unreadable)
        reading = reading_record(replace(choices, cache_dir=machine.cache_dir))
        run.save(source=str(data.location), reading=reading, images=dict(prepared.images))
        if prepared.n_groups is not None:
            run.save(groups={"count": prepared.n_groups, "column": group_column})
        run.save(
            asked=asked_for,
            chosen=prepared.chosen,
            since=str(target.since.folder.absolute())
            if target.since and target.comparable
            else run.record.get("since"),
        )
        run.save(weights=_weights(settings), machine=_machine_record(), versions=_versions())
        clock = _Clock(run, progress)
        clock.record("reading", prepared.seconds_reading)
        views = 1 if prepared.make_second is None else 2
        progress.plan(n_learned(data), folds_of(incv, data), view=views)
        results = _cross_validated(prepared, incv, rule, clock)
        if decided is not None:
            results = results.with_reviewed(decided)
        results = _compared(results, run.record.get("since"))
        _save(results, run, data, page)
        return results


def _brought_up_to_date(
    run: RunFolder, data: Source, rule: FlagRule, decided: BoolArray | None, progress: RunProgress, page: bool
) -> RunResults:
    """Return the results of a finished run by this rule, with these labels reviewed; what differs is written again."""
    there = results = RunResults.load(run.path)
    if decided is not None and (decided & ~results.reviewed).any():
        results = results.with_reviewed(decided)
    if results.select == "posterior" and results.found.flag_for != str(rule):
        results = results.flagged_by(rule)
    own = there.has_written_table()
    if results is there and (own or there.has_its_table()) and ((run.path / PAGE).exists() or not page):
        return results
    if not own and (aside := there.put_table_aside()):
        progress.note(f"{ISSUES} was damaged or changed; it is {aside.name} now, and written again.")
    results = _compared(results, run.record.get("since"))
    _save(results, run, data, page)
    return results


def _compared(results: RunResults, since: str | None) -> RunResults:
    """Return the results with what has changed since an earlier run in their summary."""
    if since is None:
        return results
    try:
        before = RunResults.load(since)
    except InputError:  # somebody removed it meanwhile
        return results
    if before.reviewed.any():
        results = results.with_reviewed(still_reviewed(before, results))
    return replace(results, summary={**results.summary, "since": difference(before, results)})


def _save(results: RunResults, run: RunFolder, data: Source, page: bool) -> None:
    if page:
        write_page(run.path / PAGE, results, run.record, data)
    results.save(run)


def _cross_validated(prepared: Prepared, incv: IterativeCV, rule: FlagRule, clock: _Clock) -> RunResults:
    data, run = prepared.source, clock.run
    trainers, finished = [prepared.make_trainer(run)], [run.folds]
    if prepared.make_second is not None:
        trainers.append(prepared.make_second(run))
        finished.append(run.second_folds)
    result = incv.run(
        trainers,
        data.labels,
        n_classes=len(data.class_names),
        groups=data.groups,
        splits=data.splits,
        finished=finished,
        on_fold=clock.fold,
    )
    rounds, together = run_summary.round_figures(result), None
    if data.annotations is not None and result.select == "posterior":
        together = consensus(data.annotations, result.posterior)
        result = replace(result, posterior=together.posterior)
        write_csv(run.path / ANNOTATORS, together.table, float_format="%.4f")
    issues, posterior = result.issues(data.class_names, rule), result.posterior
    views = run_summary.view_figures(result, VIEWS)
    copies = prepared.copies
    if copies is not None and copies.any:
        issues = replace(issues, duplicate_of=copies.duplicate_of, near_copy_of=copies.near_copy_of)
    if together is not None:
        issues = replace(issues, n_annotators=together.per_image, agreement=together.agreement)
    counts = {
        "n_duplicates": 0 if copies is None else copies.n_exact,
        "n_near_copies": 0 if copies is None else copies.n_near,
        "n_contradictions": int(issues.contradiction.sum()),
        "n_near_contradictions": int((issues.contradiction & ~issues.exact_contradiction).sum()),
    }
    annotators = {} if together is None else figures(together)
    return RunResults(
        folder=run.path,
        source=run.record["source"],
        paths=data.paths,
        pred_probs=posterior.pred_probs,
        pred_probs_round_1=result.rounds[0].pred_probs,
        selected=result.selected,
        candidate=result.candidate,
        round=result.last_round,
        rounds=tuple(rounds),
        summary={
            **run_summary.summary(issues, rounds, len(prepared.unreadable)),
            **counts,
            **annotators,
            **views,
            "trained_on": run_summary.trained_on(prepared.identity),
        },
        unreadable=prepared.unreadable,
        alternative=posterior.alternative,
        alternative_prob=posterior.alternative_prob,
        reviewed=np.zeros(len(data), np.bool_),
        groups=np.full(len(data), -1) if data.groups is None else data.groups,
        found=issues,
    )


class _Clock:
    """Writes into run.json how long each part took, and hands the progress on."""

    def __init__(self, run: RunFolder, progress: RunProgress) -> None:
        self.run, self.progress = run, progress
        self.started = time.perf_counter()

    def record(self, what: str, seconds: float, **figures: Any) -> None:
        timings = [*self.run.record.get("timings", []), {"what": what, "seconds": round(seconds, 3), **figures}]
        self.run.save(timings=timings)

    def fold(self, event: FoldProgress) -> None:
        if event.state == "start":
            self.started = time.perf_counter()
        elif event.state == "done":
            seconds = time.perf_counter() - self.started
            self.started = time.perf_counter()
            name = f"round {event.key.round}, fold {event.key.fold}" + (", second view" if event.view > 1 else "")
            self.record(name, seconds, n_train=event.n_train, n_eval=event.n_eval)
        self.progress.fold(event)


def _weights(settings: Settings) -> str | None:
    """Where they lay; what is in them decides the result, and is part of the run's identity."""
    if settings.weights is not None and Path(settings.weights).is_file():
        return str(Path(settings.weights).absolute())
    return settings.weights


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
