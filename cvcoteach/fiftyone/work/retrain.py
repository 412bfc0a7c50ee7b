"""Retrain on the corrected labels by Co-teaching, and measure what that gains."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cvcoteach._progress import OnProgress, Progress
from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray
from cvcoteach.crossval.kfold import stratified_parts
from cvcoteach.data.splits import held_out
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import EXCLUDED
from cvcoteach.fiftyone.store.labelled import check_vector_field, left_out, stack_vectors
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.edits import catch_up

if TYPE_CHECKING:
    from cvcoteach.coteaching.estimator import CoTeaching

_HELD_OUT = 5
"""Without test samples, one in this many trusted samples is held out to measure on."""


@dataclass(frozen=True)
class BeforeAndAfter:
    """Accuracy without and with Co-teaching on the corrected labels, on the same test samples."""

    accuracy_before: float
    """Of two plain networks on the given labels, with as many image passes (or epochs, if given); [0, 1]."""
    accuracy_after: float
    """Of Co-teaching on the corrected labels; [0, 1]."""
    n_train: int
    """Samples trained on."""
    n_test: int
    """Samples measured on."""
    folder: str | None
    """Where the model was saved, if it was to be kept."""
    without_file: int = 0
    """Samples left out because their file is missing."""

    @property
    def message(self) -> str:
        """The result in one or two sentences, for people."""
        kept = f" The model is in {self.folder}." if self.folder else ""
        if self.without_file:
            kept = f" {left_out(self.without_file, 'whose file is missing')}{kept}"
        after = f"Accuracy {self.accuracy_after:.1%} after (Co-teaching on the corrected labels)"
        before = f"{self.accuracy_before:.1%} before (plain training on the labels as they were given)"
        return f"{after}, {before}, on {self.n_test:,} samples that were not trained on.{kept}"


def retrain(
    samples: Any,
    brain_key: str | None = None,
    *,
    test_tag: str | None = None,
    embeddings_field: str | None = None,
    output: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> BeforeAndAfter:
    """Train by Co-teaching on what the run selected and people corrected, beside plain networks on the given labels.

    Trusted, and trained on from the start: what is not flagged, and what was accepted, kept or set. Flagged samples
    without a review are the candidates; excluded samples are left out.

    Args:
        samples: A dataset or view; of it, what the run judged.
        brain_key: The run; the newest if None.
        test_tag: Samples with this tag are measured on, by their current labels, and not trained on; without it a
            fifth of the trusted samples is held out. Splits that the run held out are never trained on, and measured
            on without a tag.
        embeddings_field: Train heads on these vectors instead of networks on the images.
        output: A new folder for the model; only with networks on images.
        epochs: Of each training; chosen by the number of images if None.
        seed: Of splits and trainings.
        on_progress: Hears of every epoch.

    Returns:
        The accuracy of both on the test samples; it is also saved with the run.

    Raises:
        InputError: One sentence, for anything that does not fit.
    """
    from cvcoteach.coteaching.estimator import CoTeaching

    results = runs.load(samples._dataset, brain_key)
    catch_up(samples._dataset, results)
    folder = check_output(output, embeddings_field)
    data = _Samples.read(samples, results, embeddings_field, test_tag, seed)
    noise_rate = None if data.wrong is None else float(np.clip(data.wrong[data.train].mean(), 0, 0.9))
    on_progress = on_progress or (lambda update: None)

    def trained(number: int, what: str, **options: Any) -> CoTeaching:
        def on_epoch(report: Any) -> None:
            done, total = number * report.n_epochs + report.epoch, 2 * report.n_epochs
            on_progress(Progress("training", done, total, f"{what}, epoch {report.epoch} of {report.n_epochs}"))

        return CoTeaching(epochs=epochs, random_state=seed, on_epoch=on_epoch, **options)

    x, train, test = data.x, data.train, data.test
    on_progress(Progress("training", 0, 1, "plain networks on the given labels"))
    # without noise to allow for, two networks that learn from everything: plain training, with as many passes
    before = trained(0, "plain networks on the given labels", mode="vanilla")
    before.fit(_take(x, train), data.given[train], noise_rate=0.0)
    accuracy_before = float((before.predict(_take(x, test)) == data.now[test]).mean())
    after = trained(1, "Co-teaching on the corrected labels")
    after.fit(
        _take(x, train),
        data.now[train],
        selected=data.trusted[train],
        candidate=~data.trusted[train],
        noise_rate=noise_rate,
    )
    accuracy_after = float((after.predict(_take(x, test)) == data.now[test]).mean())
    if folder is not None:
        _save(after, folder)
    where = str(folder) if folder else None
    gain = BeforeAndAfter(accuracy_before, accuracy_after, len(train), len(test), where, data.without_file)
    results.info["retrained"] = gain.message
    results.info["accuracy"] = {"before": accuracy_before, "after": accuracy_after, "n_test": len(test)}
    results.save()
    return gain


@dataclass(frozen=True, eq=False)
class _Samples:
    """The samples of a run that can be trained or measured on."""

    x: Any
    """n paths, or vectors (n, d)."""
    given: npt.NDArray[np.str_]
    """(n,) labels as the run found them."""
    now: npt.NDArray[np.str_]
    """(n,) labels as they are."""
    trusted: BoolArray
    """(n,) learned from at the start."""
    wrong: FloatArray | None
    """(n,) probability that the label is wrong, 0 where somebody reviewed it; None where the run does not know."""
    train: IntArray
    """Rows to train on."""
    test: IntArray
    """Rows to measure on."""
    without_file: int
    """Samples left out because their file is missing."""

    @classmethod
    def read(
        cls,
        samples: Any,
        results: runs.FindLabelIssuesResults,
        embeddings_field: str | None,
        tag: str | None,
        seed: int,
    ) -> _Samples:
        """Read them from the database. Raises InputError where there is nothing to train or to measure on."""
        issues, done = results.issues, browse.reviews(samples._dataset, results)
        label_field = results.config.label_field
        if embeddings_field:
            check_vector_field(samples, embeddings_field)
        columns = ["id", "filepath", f"{label_field}.label", "tags"] + ([embeddings_field] if embeddings_field else [])
        ids, paths, labels, tags, *vectors = samples.values(columns)
        rows = results.rows(ids)
        usable = (rows >= 0) & np.array([label is not None for label in labels], np.bool_)
        usable[usable] = done.status[rows[usable]] != EXCLUDED
        if embeddings_field:
            has, stacked = stack_vectors(vectors[0], embeddings_field)
            usable &= has
        there = np.array([bool(embeddings_field) or os.path.exists(path) for path in paths], np.bool_)
        kept = np.flatnonzero(usable & there)
        if len(kept) == 0:
            raise InputError(
                "no sample of the run can be trained on: all are excluded, deleted, without a label or a file."
            )
        rows = rows[kept]
        x: Any = [paths[i] for i in kept]
        if embeddings_field:
            x = stacked[(np.cumsum(has) - 1)[kept]]
        now = np.array([labels[i] for i in kept])
        trusted = ~issues.is_label_issue[rows] | done.reviewed[rows]
        tagged = np.array([tag is not None and tag in (tags[i] or []) for i in kept], np.bool_)
        if tag is not None and not tagged.any():
            raise InputError(f"no sample of the run has the tag {tag!r}.")
        out = held_out(issues.splits)
        only_judged = np.zeros(len(kept), np.bool_) if out is None else out[rows]
        if tag is None and only_judged.any():
            tagged = only_judged
        elif tag is None:
            numbers = np.unique(now, return_inverse=True)[1].astype(np.int64)
            parts = stratified_parts(numbers[trusted], _HELD_OUT, np.random.default_rng(seed))
            tagged[np.flatnonzero(trusted)[parts == 0]] = True
        given = np.array(issues.class_names)[issues.labels[rows]]
        train, test = np.flatnonzero(~tagged & ~only_judged), np.flatnonzero(tagged)
        _check(now, trusted, train, test, tag)
        wrong = np.where(done.reviewed[rows], 0.0, issues.wrong[rows]) if issues.has_signal else None
        return cls(x, given, now, trusted, wrong, train, test, int((usable & ~there).sum()))


def _check(now: npt.NDArray[np.str_], trusted: BoolArray, train: IntArray, test: IntArray, tag: str | None) -> None:
    """Raise InputError where there is nothing to train or to measure on, or a class that could not be learned."""
    if not len(train):
        raise InputError(f"every sample of the run has the tag {tag!r}, so none is left to train on.")
    if not len(test):
        raise InputError("no label is trusted yet, so there is nothing to measure on; review some, or give a test tag.")
    classes = np.unique(now[train])
    if len(classes) < 2:
        raise InputError(f"the samples to train on are all of one class ({classes[0]}); a classifier needs a second.")
    doubtful = np.setdiff1d(classes, now[train][trusted[train]])
    if len(doubtful):
        raise InputError(f"no label of class {str(doubtful[0])!r} is trusted; review some of its samples first.")


def check_output(output: str | None, embeddings_field: str | None) -> Path | None:
    """Return the folder to keep the model in, None for none. Raises InputError where no model can be kept there."""
    if not output:
        return None
    folder = Path(output).expanduser()
    if embeddings_field:
        raise InputError("a model on embeddings is of no use without what made them; leave the folder empty.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; name a new folder.")
    return folder


def _save(trained: CoTeaching, folder: Path) -> None:
    from cvcoteach.coteaching.model_files import save_model

    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, trained.to_model())


def _take(x: Any, rows: IntArray) -> Any:
    return x[rows] if isinstance(x, np.ndarray) else [x[i] for i in rows]
