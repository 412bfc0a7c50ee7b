"""Find the label issues of a FiftyOne dataset or view, and save them as a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import numpy.typing as npt
import platformdirs

from cvcoteach._files import digest, write_array
from cvcoteach._progress import Progress, Watcher
from cvcoteach._validation import InputError, lookalikes
from cvcoteach._version import __version__
from cvcoteach.data.sources import Source
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.labelled import Labelled, left_out, read_groups, read_labels, read_splits, read_vectors
from cvcoteach.fiftyone.store.runs import DEFAULT_KEY, FindLabelIssuesConfig, FindLabelIssuesResults
from cvcoteach.fiftyone.work.staleness import as_it_is
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.settings import Engine, Machine, Settings

WORK_VARIABLE = "CVCOTEACH_FIFTYONE_DIR"
"""Environment variable that names the folder of unfinished runs."""
FILTERS = {
    "posterior": "labels that are probably wrong (best expected F1)",
    "incv": "labels that INCV did not select",
}
"""What `find_label_issues` may flag, and how a form says it."""


def find_label_issues(
    samples: Any,
    label_field: str,
    brain_key: str = DEFAULT_KEY,
    *,
    settings: Settings | None = None,
    machine: Machine | None = None,
    embeddings_field: str | None = None,
    group_field: str | None = None,
    split_field: str | None = None,
    filter_by: Literal["posterior", "incv"] | None = None,
    engine: Engine | None = None,
    overwrite: bool = False,
    watcher: Watcher | None = None,
) -> FindLabelIssuesResults:
    """Find label issues by iterative cross-validation and save them as the brain run `brain_key`.

    Killed at any point, the same call resumes after the last finished fold.

    Args:
        samples: A dataset or view of images.
        label_field: A Classification field; it is never written to.
        brain_key: The name of the run.
        settings: How to train and score; the defaults if None.
        machine: Device, threads and cache; chosen automatically if None.
        embeddings_field: A field of vectors to train heads on, instead of networks on the images.
        group_field: A field of groups, such as patients or videos: no model judges an image of a group that it trained
            on.
        split_field: A field of splits, or "tags" for tags such as train and test: models learn from train alone.
        filter_by: What to flag: "posterior" by the rule of `settings`, "incv" every label that INCV, as published, did
            not select (`settings.select` "agreement"); None: as the settings say.
        engine: What computes, "serial" or "ray", see `Machine`; None: as the machine says.
        overwrite: Replace a run of the same key and label field.
        watcher: Follows the run.

    Returns:
        The saved run.

    Raises:
        InputError: One sentence, for anything that does not fit.
    """
    settings, keeping = settings or Settings(), _NotesKept(watcher)
    dataset = samples._dataset
    if engine is not None:
        machine = replace(machine or Machine(), engine=engine)
    if filter_by is not None:
        if filter_by not in FILTERS:
            raise InputError(f"filter_by is {filter_by!r}; it takes {' or '.join(FILTERS)}.")
        settings = replace(settings, select="agreement" if filter_by == "incv" else "posterior")
    runs.check_key(dataset, brain_key, label_field, overwrite=overwrite)
    as_it_was = as_it_is(dataset)
    data = read_labels(samples, label_field, need_files=embeddings_field is None)
    vectors: list[npt.NDArray[Any]] = []
    if embeddings_field is not None:
        data, found = read_vectors(samples, data, embeddings_field)
        vectors = [found]
    source = source_of(data, dataset.name)
    if group_field is not None:
        groups = read_groups(samples, data, group_field)
        source = replace(source, groups=groups)
        vectors.append(groups)
    if split_field is not None:
        splits = read_splits(samples, data, split_field)
        source = replace(source, splits=splits)
        vectors.append(np.unique(splits, return_inverse=True)[1])

    identity = digest(np.array(data.paths), data.labels, *vectors, repr(settings), label_field, __version__)
    with _work_folder(dataset, identity) as folder:
        if embeddings_field is not None:
            settings = replace(settings, features=folder / "embeddings.npy")
            write_array(folder / "embeddings.npy", vectors[0])
        outcome = _run(source, folder / "run", settings, machine, keeping)
        kept, issues = data.take(_judged(data, outcome)), outcome.issues()
        if outcome.unreadable:
            keeping.note(left_out(len(outcome.unreadable), "that could not be read"))
        # hours later: somebody else may have taken the key
        runs.check_key(dataset, brain_key, label_field, overwrite=overwrite)
        extra = {"embeddings_field": embeddings_field}
        if group_field is not None:
            extra["group_field"] = group_field
        if split_field is not None:
            extra["split_field"] = split_field
        shown = {name: value for name, value in asdict(settings).items() if name != "features"}
        config = FindLabelIssuesConfig(label_field, "incv", shown | extra | {"filter_by": issues.filter_by})
        info = {"notes": keeping.notes, "summary": outcome.summary, **as_it_was}
        results = runs.save(samples, brain_key, config, kept.ids, issues, info)
        shutil.rmtree(folder, ignore_errors=True)  # all of it is in the database now
    return results


def source_of(data: Labelled, name: str) -> Source:
    """Return the samples as the pipeline takes them: files, labels and class names. name: of the dataset, for messages.

    Raises InputError where two samples give one file two labels.
    """
    label_of: dict[str, int] = {}
    for path, label in zip(data.paths, data.labels.tolist(), strict=True):
        if label_of.setdefault(path, label) != label:
            one, other = (data.class_names[k] for k in (label_of[path], label))
            raise InputError(
                f"two samples show {path}, one as {one!r}, one as {other!r}; it takes one label per image."
            )
    notes = [*data.notes, *lookalikes(data.class_names)]
    if (repeats := len(data.paths) - len(label_of)) > 0:
        notes.append(
            f"{repeats:,} sample{'s show' if repeats > 1 else ' shows'} the file of another sample; "
            "a wrong label is hard to see where a model has trained on a copy of the image."
        )
    return Source(Path(name), Path(os.sep), data.paths, data.labels, data.class_names, notes=tuple(notes))


@dataclass
class _NotesKept:
    """Passes everything on, and keeps the notes, which go into the run."""

    watcher: Watcher | None
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        if sentence in self.notes:  # a run that starts over says the same again
            return
        self.notes.append(sentence)
        if self.watcher is not None:
            self.watcher.note(sentence)

    def progress(self, update: Progress) -> None:
        if self.watcher is not None:
            self.watcher.progress(update)


def _run(source: Source, folder: Path, settings: Settings, machine: Machine | None, watcher: Watcher) -> RunResults:
    # not above: the App imports this module at every request, and these may import torch
    from cvcoteach.pipeline.find_issues import find_issues
    from cvcoteach.pipeline.run_folder import OtherRunError

    def find() -> RunResults:
        return find_issues(source, folder, settings, machine, page=False, watcher=watcher)

    try:
        return find()
    except OtherRunError:
        watcher.note("The images have changed since the interrupted run, so it starts over.")
        shutil.rmtree(folder)
        return find()


def _judged(data: Labelled, outcome: RunResults) -> npt.NDArray[np.bool_]:
    """(n,) the samples that the run judged: all but the unreadable ones."""
    judged = set(outcome.paths)
    return np.array([path in judged for path in data.paths], np.bool_)


@contextmanager
def _work_folder(dataset: Any, identity: str) -> Iterator[Path]:
    """Yield the folder of the run while it is under way, locked; the lock ends with the process, however that ends."""
    base = os.environ.get(WORK_VARIABLE) or Path(platformdirs.user_data_dir("cvcoteach")) / "fiftyone"
    folder = Path(base) / str(dataset._doc.id) / identity[:16]
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(f"the same run of {dataset.name} is already under way; wait for it to end.") from None
    try:
        yield folder
    finally:
        lock.release()
