"""The same source again, after labels were fixed or images added: where its next run goes, and what has changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cvcoteach._validation import BoolArray, InputError, near
from cvcoteach.data.sources import Choices, Source
from cvcoteach.data.sources.source import count
from cvcoteach.issues.corrections import decisions, lone_names
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.run_folder import OtherRunError, RunFolder
from cvcoteach.pipeline.settings import Settings

Again = Literal["continue", "fresh", "replace"]
AGAIN: tuple[Again, ...] = get_args(Again)

_NUMBERED = re.compile(r".*#([^#/]+/)?\d+")
_NOT_OF_IMAGES = ("labels_digest", "groups_digest", "splits_digest", "annotations_digest")
_NO_MATTER = ("flag_for", "min_probability", "cache_dir")


@dataclass(frozen=True)
class Destination:
    """Where a run goes."""

    folder: Path
    """The run folder."""
    since: RunResults | None = None
    """The last finished run of the same source, whose images or labels have changed."""
    unfinished: Path | None = None
    """An unfinished run of the same source that cannot go on, since images or labels have changed."""
    comparable: bool = True
    """Whether an image's name tells which one of the last run it is; no number of a row does, once images changed."""

    def sentence(self, data: Source) -> str | None:
        """Return what has changed and where the run goes on; None for a first run, or the same one. data: of now.

        Raises:
            OtherRunError: The folder was named, and holds the run of before.
        """
        if self.folder in (self.since and self.since.folder, self.unfinished):
            what = "images or labels have changed" if self.since is None else self._changes(data)
            raise OtherRunError(
                f"{what} since the run in {self.folder}; choose another output folder, or none to go on beside it, or "
                "replace that run (--replace, in Python again='replace')."
            )
        if self.since is not None and not self.comparable:
            return (
                f"the images have changed since the run in {self.since.folder}, and are known by their numbers alone, "
                f"so nothing is carried over: going on in {self.folder} ({_OTHERWISE})."
            )
        if self.since is not None:
            return (
                f"{self._changes(data)} since the run in {self.since.folder}: going on in {self.folder} ({_OTHERWISE})."
            )
        if self.unfinished is not None:
            return (
                f"images or labels have changed since the unfinished run in {self.unfinished}: going on in "
                f"{self.folder} ({_OTHERWISE})."
            )
        return None

    def _changes(self, data: Source) -> str:
        assert self.since is not None
        return changes(self.since, data) if self.comparable else "the images have changed"


_OTHERWISE = "--fresh to start over, --replace to overwrite; in Python again="


def asked(settings: Settings, choices: Choices) -> dict[str, Any]:
    """Return what was asked for, as JSON: how to read the source, and all settings but those that only flag."""
    plain = {**asdict(choices), **asdict(settings)}
    plain = {name: value for name, value in plain.items() if name not in _NO_MATTER}
    if plain["bind_near_copies"]:  # as in runs that did not know of it
        del plain["bind_near_copies"]
    return dict(json.loads(json.dumps(plain, default=str)))


def destination(
    output: Path | None, default: Path, identity: Mapping[str, Any], asked_for: Mapping[str, Any], again: Again
) -> Destination:
    """Choose the folder of a run.

    A folder that was named is used as it is, and refused by `Destination.sentence` where it holds a run of the same
    settings, but of other images or labels. Without a name it is `default`; where that holds a run of the same
    settings, but of other images or labels, the run goes to `default`-2, then -3, …, beside it. One of these that
    holds exactly this run is used again.

    Args:
        output: The folder that was named, if any.
        default: The folder otherwise.
        identity: Of the run, see `RunFolder.open`.
        asked_for: Of the run, see `asked`.
        again: "continue"; "fresh" for a new folder in any case, unless the newest holds this run unfinished;
            "replace" for the folder itself.

    Raises:
        InputError: For another `again`.
    """
    if again not in AGAIN:
        raise InputError(f"again is {again!r}; {near(str(again), AGAIN)}")
    first = output or default
    if again == "replace":
        return Destination(first)
    wanted = json.loads(json.dumps(identity))
    if output is not None and again == "continue":
        there = _run_in(first)
        if there is None or there.record["identity"] == wanted or there.record.get("asked") != asked_for:
            return Destination(first)  # `RunFolder.open` says what differs
        return _beside(first, there, wanted)
    folders = _series(first)
    runs = [run for run in map(_run_in, folders) if run is not None]
    if again == "fresh":
        if runs and not runs[-1].done and runs[-1].record["identity"] == wanted:
            return Destination(runs[-1].path)
        return Destination(folders[-1] if not runs or runs[-1].path != folders[-1] else _next(first, folders))
    for run in runs:
        if run.record["identity"] == wanted:
            return Destination(run.path)
    alike = [run for run in runs if run.record.get("asked") == asked_for]
    if not runs or not alike or runs[-1].path != folders[-1]:
        return Destination(first)  # `RunFolder.open` says what differs
    finished = [run for run in alike if run.done]
    return _beside(_next(first, folders), (finished or alike)[-1], wanted)


def _beside(folder: Path, run: RunFolder, wanted: Mapping[str, Any]) -> Destination:
    """Return the folder as the destination of a run that differs from an earlier one by images or labels."""
    if not run.done:
        return Destination(folder, unfinished=run.path)
    since = RunResults.load(run.path)
    same_images = _images_of(run.record["identity"]) == _images_of(wanted)
    return Destination(folder, since=since, comparable=same_images or not _numbered(since.paths))


def chosen_before(
    output: Path | None, default: Path, asked_for: Mapping[str, Any], again: Again
) -> Mapping[str, Any] | None:
    """Return what the preset "auto" chose for the newest run of the same settings; None where it chooses afresh.

    The arguments are those of `destination`.
    """
    if again != "continue":
        return None
    for run in filter(None, map(_run_in, reversed(_series(output or default)))):
        if run.record.get("asked") == asked_for and run.record.get("chosen"):
            return dict(run.record["chosen"])
    return None


def changes(before: RunResults, data: Source) -> str:
    """Return what has changed, as the beginning of a sentence: "1 label changed, 2 images added"."""
    compared = _compare(before, data.paths, [data.class_names[k] for k in data.labels.tolist()])
    parts = [
        f"{count(number, what)} {how}"
        for number, what, how in (
            (len(compared.relabelled), "label", "changed"),
            (compared.n_added, "image", "added"),
            (compared.n_removed, "image", "removed"),
        )
        if number
    ]
    return ", ".join(parts) or "the content of images, their groups or splits have changed"


def difference(before: RunResults, now: RunResults) -> dict[str, Any]:
    """Return how the flags differ from those of an earlier run of the same source, as JSON.

    Returns:
        `run`, its folder; `labels_changed`, `images_added` and `images_removed`; `fixed`, flagged labels that were
        changed and are not flagged now; `still_flagged`; `new`, flagged now only; `cleared`, unchanged labels that are
        no longer flagged.
    """
    names = [now.class_names[k] for k in now.labels.tolist()]
    compared = _compare(before, now.paths, names)
    old = np.full(len(now.paths), fill_value=False)
    rows = np.array([row for row in compared.rows_before if row >= 0], np.int64)
    old[np.array(compared.rows_before) >= 0] = before.found.is_label_issue[rows]
    new = now.found.is_label_issue
    changed = np.isin(np.arange(len(new)), compared.relabelled)
    return {
        "run": str(before.folder.absolute()),
        "labels_changed": len(compared.relabelled),
        "images_added": compared.n_added,
        "images_removed": compared.n_removed,
        "fixed": int((old & changed & ~new).sum()),
        "still_flagged": int((old & new).sum()),
        "new": int((new & ~old).sum()),
        "cleared": int((old & ~changed & ~new).sum()),
    }


def decided_labels(file: Path, data: Source) -> BoolArray:
    """Return the labels (n,) that somebody kept, or that are now what somebody chose.

    Args:
        file: A CSV of decisions, see `corrections.decisions`.
        data: The images of now. One that moved is known by its file name, where only one has it.

    Raises:
        InputError: The file is no such table, or none of its images is here.
    """
    decided = decisions(file)
    rows_of: dict[str, list[int]] = {}
    for row, path in enumerate(data.paths):
        rows_of.setdefault(path, []).append(row)
    rows_of |= {os.path.join(data.root, path): rows for path, rows in rows_of.items()}
    moved = [path for path in decided if path not in rows_of and os.path.normpath(path) not in rows_of]
    lone_there = lone_names(moved, moved)
    others = [row for row, path in enumerate(data.paths) if path not in decided]
    lone_here = lone_names([data.paths[row] for row in others], others)
    rows_of |= {path: [lone_here[name]] for name, path in lone_there.items() if name in lone_here}
    result = np.zeros(len(data), np.bool_)
    n_found = 0
    for path, label in decided.items():
        rows = rows_of.get(path, rows_of.get(os.path.normpath(path), []))
        n_found += bool(rows)
        for row in rows:
            result[row] = label is None or label == data.class_names[data.labels[row]]
    if decided and not n_found:
        raise InputError(f"none of the {count(len(decided), 'image')} in {file.name} is in {data.location.name}.")
    return result


def still_reviewed(before: RunResults, now: RunResults) -> BoolArray:
    """Return the labels (n,) that were reviewed in an earlier run and have not changed since."""
    names = [now.class_names[k] for k in now.labels.tolist()]
    compared = _compare(before, now.paths, names)
    rows = np.array(compared.rows_before, np.int64)
    result = (rows >= 0) & before.reviewed[rows]
    result[[*compared.relabelled]] = False
    return result


def difference_text(found: Mapping[str, Any]) -> str:
    """Return what `difference` found, as a sentence."""
    return (
        f"Since {Path(found['run']).name}: {found['fixed']:,} fixed, {found['new']:,} new, "
        f"{found['still_flagged']:,} still flagged, {found['cleared']:,} no longer."
    )


@dataclass(frozen=True)
class _Compared:
    rows_before: Sequence[int]
    """(n,) the row of each image in the run before, -1 for one that was added."""
    relabelled: Sequence[int]
    """Rows now whose label is another one."""
    n_added: int
    n_removed: int


def _compare(before: RunResults, paths: Sequence[str], names: Sequence[str]) -> _Compared:
    """Match images by path; those moved to another folder by their name, where only one has it."""
    row_of = {path: row for row, path in enumerate(before.paths)}
    rows = [row_of.get(path, -1) for path in paths]
    left = {row_of[path] for path in row_of.keys() - {*paths}}
    lone_before = lone_names((before.paths[row] for row in left), left)
    lone_now = lone_names(
        (path for path, row in zip(paths, rows, strict=True) if row < 0), [i for i, row in enumerate(rows) if row < 0]
    )
    for name, i in lone_now.items():
        if name in lone_before:
            rows[i] = lone_before[name]
            left.discard(lone_before[name])
    old = [before.class_names[k] for k in before.labels.tolist()]
    relabelled = [i for i, row in enumerate(rows) if row >= 0 and old[row] != names[i]]
    return _Compared(rows, relabelled, sum(row < 0 for row in rows), len(left))


def _numbered(paths: Sequence[str]) -> bool:
    """Return whether images are named by the number of their row, as in an .npz."""
    return _NUMBERED.fullmatch(paths[0]) is not None


def _images_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in _NOT_OF_IMAGES}


def _series(first: Path) -> list[Path]:
    """Return `first` and, as far as they are there, `first`-2, -3, …."""
    folders = [first]
    while (following := _next(first, folders)).exists():
        folders.append(following)
    return folders


def _next(first: Path, folders: Sequence[Path]) -> Path:
    return first.with_name(f"{first.name}-{len(folders) + 1}")


def _run_in(folder: Path) -> RunFolder | None:
    try:
        return RunFolder.read(folder)
    except InputError:
        return None
