"""Find the label issues of a FiftyOne dataset or view, and save them as a run."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy as np
import numpy.typing as npt
import pandas as pd
import platformdirs

from cvcoteach._files import digest, replacing, write_array
from cvcoteach._validation import InputError
from cvcoteach._version import __version__
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import now
from cvcoteach.fiftyone.store.labelled import Labelled, left_out, read_labels, read_vectors
from cvcoteach.fiftyone.store.runs import DEFAULT_KEY, FindLabelIssuesConfig, FindLabelIssuesResults
from cvcoteach.fiftyone.work.verdicts import another_suggested
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.pipeline import find_issues as pipeline
from cvcoteach.pipeline.run_folder import OtherRunError
from cvcoteach.pipeline.settings import Machine, Settings, Silent, Watcher

WORK_VARIABLE = "CVCOTEACH_FIFTYONE_DIR"
FILTERS = {
    "posterior": "labels that are probably wrong: as many as give the best F1",
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
    filter_by: Literal["posterior", "incv"] = "posterior",
    overwrite: bool = False,
    watcher: Watcher | None = None,
) -> FindLabelIssuesResults:
    """Find label issues by iterative cross-validation and save them as the brain run `brain_key`.

    samples: a dataset or view of images. label_field: a Classification; it is never written to.
    embeddings_field: a field of vectors to train heads on, instead of networks on the images.
    filter_by: what is flagged: "posterior", for the best expected F1; "incv", what was not selected.
    watcher: told of every fold and epoch. Killed at any point, the same call goes on after the last finished fold.

    Raises InputError, one sentence, for anything that does not fit.
    """
    settings, watcher = settings or Settings(), _Noting(watcher or Silent())
    dataset = samples._dataset
    if filter_by not in FILTERS:
        raise InputError(f"filter_by is {filter_by!r}; it takes {' or '.join(FILTERS)}.")
    runs.check_key(dataset, brain_key, label_field, overwrite=overwrite)
    as_of = now().isoformat()
    data = read_labels(samples, label_field, need_files=embeddings_field is None)
    vectors: list[npt.NDArray[Any]] = []
    if embeddings_field is not None:
        data, found = read_vectors(samples, data, embeddings_field)
        vectors = [found]
    _check_repeats(data)
    watcher.class_names = data.class_names
    for note in data.notes:
        watcher.note(note)

    identity = digest(np.array(data.paths), data.labels, *vectors, repr(settings), label_field, __version__)
    with _work_folder(dataset, identity) as folder:
        if vectors:
            settings = replace(settings, features=folder / "embeddings.npy")
            write_array(folder / "embeddings.npy", vectors[0])
        source = _write_source(folder / "source.csv", data)
        try:
            outcome = _run(source, folder / "run", settings, machine, watcher)
        except InputError as error:
            raise InputError(str(error).replace(str(source), dataset.name)) from error
        kept, issues = data.take(_readable_rows(data, outcome)), _issues(outcome, data, filter_by)
        if outcome.unreadable:
            watcher.note(left_out(outcome.unreadable, "that could not be read"))
        # hours later: another may have taken it meanwhile
        runs.check_key(dataset, brain_key, label_field, overwrite=overwrite)
        shown = {name: value for name, value in asdict(settings).items() if name != "features"}
        config = FindLabelIssuesConfig(
            label_field, "incv", shown | {"embeddings_field": embeddings_field, "filter_by": filter_by}
        )
        info = {"notes": watcher.notes, "summary": outcome.summary, "as_of": as_of}
        results = runs.save(samples, brain_key, config, kept.ids, issues, info)
        shutil.rmtree(folder, ignore_errors=True)  # all of it is in the database now
    return results


@dataclass
class _Noting:
    """Hands everything on, and keeps the notes, which go into the run; classes by their names."""

    watcher: Any
    class_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        # the run knows the classes by number, see _write_source
        sentence = re.sub(r"class '(\d+)'", lambda found: f"class {self.class_names[int(found[1])]!r}", sentence)
        self.notes.append(sentence)
        self.watcher.note(sentence)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.watcher, name)


def _run(source: Path, folder: Path, settings: Settings, machine: Machine | None, watcher: Watcher) -> pipeline.Outcome:
    def find() -> pipeline.Outcome:
        return pipeline.find_issues(
            source, folder, settings, machine, path_column="path", label_column="label", watcher=watcher
        )

    try:
        return find()
    except OtherRunError:
        watcher.note("The images have changed since the run that was broken off, so it begins anew.")
        shutil.rmtree(folder)
        return find()


def _issues(outcome: pipeline.Outcome, data: Labelled, filter_by: str) -> LabelIssues:
    issues = replace(outcome.issues, class_names=data.class_names)
    if filter_by == "incv":
        issues = replace(issues, is_label_issue=~outcome.result.selected, filter_by="incv")
    with np.load(outcome.folder / "probabilities.npz", allow_pickle=False) as arrays:
        return another_suggested(issues, arrays["pred_probs"])


def _check_repeats(data: Labelled) -> None:
    """Raises InputError where two samples give one file two labels."""
    label_of: dict[str, int] = {}
    for path, label in zip(data.paths, data.labels.tolist(), strict=True):
        if label_of.setdefault(path, label) != label:
            one, other = (data.class_names[k] for k in (label_of[path], label))
            raise InputError(f"two samples show {path}, one as {one!r}, one as {other!r}; it takes one label an image.")


@contextmanager
def _work_folder(dataset: Any, identity: str) -> Iterator[Path]:
    """Where this run lies until it is finished, locked meanwhile; the lock ends with the process, however it ends."""
    base = os.environ.get(WORK_VARIABLE) or Path(platformdirs.user_data_dir("cvcoteach")) / "fiftyone"
    folder = Path(base) / str(dataset._doc.id) / identity[:16]
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InputError(f"the same run of {dataset.name} is under way already; wait for it to end.") from None
    try:
        yield folder
    finally:
        lock.release()


def _write_source(file: Path, data: Labelled) -> Path:
    """The samples as a table that a run can read. Classes go in by number: any name may be a class's."""
    with replacing(file) as out:
        pd.DataFrame({"path": data.paths, "label": data.labels}).to_csv(out, index=False)
    return file


def _readable_rows(data: Labelled, outcome: pipeline.Outcome) -> npt.NDArray[np.bool_]:
    """(n,) the samples that the run judged, in its order."""
    rows = np.ones(len(data.paths), np.bool_)
    if outcome.unreadable:
        with open(outcome.folder / "unreadable.csv", newline="", encoding="utf-8") as file:
            unreadable = {line["path"] for line in csv.DictReader(file)}
        rows = np.array([path not in unreadable for path in data.paths], np.bool_)
    return rows
