"""Find or import the label issues of a FiftyOne dataset or view, and save them as a run."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import fiftyone as fo
import numpy as np
import numpy.typing as npt
import platformdirs

from cvcoteach import runs as pipeline
from cvcoteach._checks import InputError, IntArray, PredProbs
from cvcoteach.fiftyone import runs
from cvcoteach.fiftyone.fields import Ids, check_label_field
from cvcoteach.fiftyone.runs import FindLabelIssuesConfig, FindLabelIssuesResults
from cvcoteach.issues import LabelIssues
from cvcoteach.settings import Machine, Settings, Silent, Watcher
from cvcoteach.storage import digest

DEFAULT_KEY = "label_issues"
WORK_VARIABLE = "CVCOTEACH_FIFTYONE_DIR"


@dataclass(frozen=True, eq=False)
class Labelled:
    """The samples of a collection that can be checked."""

    ids: Ids
    """(n,) sample ids."""
    paths: tuple[str, ...]
    """n files."""
    labels: IntArray
    """(n,) 0..K-1."""
    class_names: tuple[str, ...]
    """K names, lexicographic."""
    without_label: int
    """Samples left out since they have none."""
    without_file: int
    """Samples left out since their file is not there."""

    @property
    def notes(self) -> list[str]:
        """What was left out, a sentence each."""
        notes = []
        if self.without_label:
            notes.append(f"{_samples(self.without_label)} without a label {_were(self.without_label)} left out.")
        if self.without_file:
            notes.append(f"{_samples(self.without_file)} whose file is missing {_were(self.without_file)} left out.")
        return notes

    def take(self, rows: npt.NDArray[Any]) -> Labelled:
        """Some of them, by mask or index; the classes stay."""
        index = np.arange(len(self.ids))[rows]
        return replace(self, ids=self.ids[index], paths=tuple(self.paths[i] for i in index), labels=self.labels[index])


def read_labels(samples: Any, label_field: str, *, need_files: bool = True) -> Labelled:
    """Read ids, files and labels of a dataset or view in bulk.

    Raises InputError, one sentence, for a field that does not fit, an empty view, and labels of fewer than two classes.
    """
    check_label_field(samples, label_field)
    ids, paths, names = samples.values(["id", "filepath", f"{label_field}.label"])
    if not ids:
        raise InputError("the view is empty; choose one with samples in it.")
    labelled = np.array([name is not None for name in names], np.bool_)
    there = np.array([not need_files or os.path.exists(path) for path in paths], np.bool_)
    used = np.flatnonzero(labelled & there)
    if not labelled.any():
        raise InputError(f"no sample has a label in {label_field}.")
    if not len(used):
        raise InputError(f"no file of the {len(ids):,} samples is there; the first is {paths[0]}.")
    class_names, labels = np.unique(np.array([names[i] for i in used], dtype=object).astype(str), return_inverse=True)
    if len(class_names) < 2:
        raise InputError(f"{label_field} holds one class only ({class_names[0]}); a wrong label needs a second class.")
    return Labelled(
        np.array([ids[i] for i in used], dtype="S24"),
        tuple(paths[i] for i in used),
        labels.astype(np.int64),
        tuple(class_names.tolist()),
        int((~labelled).sum()),
        int((labelled & ~there).sum()),
    )


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
    filter_by: what is flagged: "posterior", labels more probably wrong than right; "incv", what was not selected.
    watcher: told of every fold and epoch. Killed at any point, the same call goes on after the last finished fold.

    Raises InputError, one sentence, for anything that does not fit.
    """
    settings, watcher = settings or Settings(), watcher or Silent()
    dataset = samples._dataset
    runs.check_key(dataset, brain_key, overwrite=overwrite)
    data = read_labels(samples, label_field, need_files=embeddings_field is None)
    embeddings = None
    if embeddings_field is not None:
        data, embeddings = _embeddings(samples, data, embeddings_field)
    for note in data.notes:
        watcher.note(note)

    work = _work_folder(dataset, brain_key)
    folder = work / digest(np.array(data.paths), data.labels, repr(settings), label_field)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    if embeddings is not None:
        np.save(folder / "embeddings.npy", embeddings)
        settings = replace(settings, features=folder / "embeddings.npy")
    source = _write_source(folder / "source.csv", data)
    outcome = pipeline.find_issues(
        source, folder / "run", settings, machine, path_column="path", label_column="label", watcher=watcher
    )
    kept = data.take(_readable_rows(data, outcome))
    issues = replace(outcome.issues, class_names=data.class_names)
    if filter_by == "incv":
        issues = replace(issues, is_label_issue=~outcome.result.selected, filter_by="incv")
    issues = _with_another_suggested(issues, outcome.result.rounds[0].pred_probs)
    notes = list(data.notes)
    if outcome.unreadable:
        notes.append(f"{_samples(outcome.unreadable)} could not be read and {_were(outcome.unreadable)} left out.")
    shown = asdict(replace(settings, features=None)) | {"embeddings_field": embeddings_field, "filter_by": filter_by}
    config = FindLabelIssuesConfig(label_field, "incv", shown)
    results = runs.save(samples, brain_key, config, kept.ids, issues, {"notes": notes, "summary": outcome.summary})
    shutil.rmtree(work, ignore_errors=True)  # all of it is in the database now
    return results


def import_label_issues(
    samples: Any,
    label_field: str,
    found: Any,
    brain_key: str = DEFAULT_KEY,
    *,
    pred_probs: npt.ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> FindLabelIssuesResults:
    """Save label issues found elsewhere as the brain run `brain_key`.

    found: a `cvcoteach` run folder; a LabelIssues; what `cleanlab.find_label_issues` returned (a mask or indices), a
    frame of `CleanLearning.find_label_issues` or `Datalab.get_issues("label")`; the last three in the samples' order.
    pred_probs: (n, K) in the samples' order, to get qualities and suggestions from, where `found` has none.
    class_names: (K,) of the columns; the field's classes in lexicographic order unless given.

    Raises InputError, one sentence, for anything that does not fit.
    """
    from cvcoteach.fiftyone.imports import issues_from_folder, issues_of

    runs.check_key(samples._dataset, brain_key, overwrite=overwrite)
    data = read_labels(samples, label_field, need_files=False)
    if isinstance(found, str | Path):
        data, issues, notes = issues_from_folder(Path(found), data)
        source = str(found)
    else:
        issues = issues_of(found, data, pred_probs, class_names)
        notes, source = [], "cleanlab"
    config = FindLabelIssuesConfig(label_field, source, {})
    return runs.save(samples, brain_key, config, data.ids, issues, {"notes": [*data.notes, *notes], "summary": {}})


class ProgressWatcher:
    """A watcher that turns what it is told into a share done and a line of text."""

    def __init__(self, tell: Callable[[float, str], None]) -> None:
        """tell: called with the share done, in [0, 1], and what is going on."""
        self._tell = tell
        self._done = 0.0
        self._of = 1
        self._where = ""
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Kept, and shown."""
        self.notes.append(sentence)
        self._tell(self._done, sentence)

    def reading(self, done: int, total: int) -> None:
        """Images decoded so far."""
        self._tell(0.05 * done / max(total, 1), f"reading images: {done:,} of {total:,}")

    def fold(self, progress: Any) -> None:
        """A training begins or has ended."""
        key = progress.key
        self._of = progress.n_rounds * progress.n_folds
        number = (key.round - 1) * progress.n_folds + key.fold - (progress.state == "start")
        self._done = 0.05 + 0.9 * number / self._of
        self._where = f"round {key.round} of {progress.n_rounds}, fold {key.fold} of {progress.n_folds}"
        self._tell(self._done, self._where)

    def epoch(self, progress: Any) -> None:
        """An epoch has ended."""
        share = 0.9 / self._of * progress.epoch / progress.n_epochs
        self._tell(self._done + share, f"{self._where}: epoch {progress.epoch} of {progress.n_epochs}")


def _with_another_suggested(issues: LabelIssues, pred_probs: PredProbs) -> LabelIssues:
    """Where a flagged label is also the most probable one, the most probable other is suggested.

    pred_probs: (n, K). A flag that suggests what is there already leaves nothing to accept.
    """
    same = np.flatnonzero(issues.is_label_issue & (issues.suggested == issues.labels))
    others = pred_probs[same].astype(np.float64)
    others[np.arange(len(same)), issues.labels[same]] = -1
    best = others.argmax(axis=1)
    suggested, prob = issues.suggested.copy(), issues.suggested_prob.copy()
    suggested[same] = best
    # of what the posterior leaves for the others, the share that the model gives this one
    share = others[np.arange(len(same)), best] / np.maximum(np.clip(others, 0, None).sum(axis=1), 1e-12)
    prob[same] = (1 - issues.label_quality[same]) * share
    return replace(issues, suggested=suggested, suggested_prob=prob)


def _embeddings(samples: Any, data: Labelled, field: str) -> tuple[Labelled, npt.NDArray[np.float32]]:
    """The vectors of the labelled samples, and those samples that have one."""
    kind = samples.get_field_schema().get(field)
    if kind is None or not isinstance(kind, fo.VectorField | fo.ArrayField | fo.ListField):
        raise InputError(f"{field!r} is no field of vectors; compute embeddings first, or leave it out.")
    by_id = dict(zip(*samples.values(["id", field]), strict=True))
    vectors = [by_id[sample_id.decode()] for sample_id in data.ids]
    has = np.array([vector is not None and len(vector) > 0 for vector in vectors], np.bool_)
    if not has.any():
        raise InputError(f"no labelled sample has a vector in {field!r}; compute embeddings first, or leave it out.")
    sizes = {np.asarray(vector).size for vector, there in zip(vectors, has, strict=True) if there}
    if len(sizes) > 1:
        raise InputError(f"the vectors of {field!r} differ in length ({min(sizes)} to {max(sizes)}).")
    stacked = np.stack([np.ravel(np.asarray(v, np.float32)) for v, there in zip(vectors, has, strict=True) if there])
    return data.take(has), stacked


def _work_folder(dataset: Any, brain_key: str) -> Path:
    """Where an unfinished run of this dataset and key lies."""
    base = os.environ.get(WORK_VARIABLE) or Path(platformdirs.user_data_dir("cvcoteach")) / "fiftyone"
    return Path(base) / str(dataset._doc.id) / brain_key


def _write_source(file: Path, data: Labelled) -> Path:
    """The samples as a table that a run can read. Classes go in by number: any name may be a class's."""
    with open(file, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("path", "label"))
        writer.writerows(zip(data.paths, data.labels.tolist(), strict=True))
    return file


def _readable_rows(data: Labelled, outcome: pipeline.Outcome) -> npt.NDArray[np.bool_]:
    """(n,) the samples that the run judged, in its order."""
    rows = np.ones(len(data.paths), np.bool_)
    if outcome.unreadable:
        with open(outcome.folder / "unreadable.csv", newline="", encoding="utf-8") as file:
            unreadable = {line["path"] for line in csv.DictReader(file)}
        rows = np.array([path not in unreadable for path in data.paths], np.bool_)
    return rows


def _samples(n: int) -> str:
    return f"{n:,} sample{'s' * (n != 1)}"


def _were(n: int) -> str:
    return "was" if n == 1 else "were"
