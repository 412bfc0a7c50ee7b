"""The report of a run in FiftyOne: the page that `cvcoteach report` makes, with the reviews made so far."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cvcoteach._validation import InputError
from cvcoteach._version import __version__
from cvcoteach.data.sources import Source
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import EXCLUDED
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.edits import catch_up
from cvcoteach.issues.corrections import Corrected
from cvcoteach.issues.summary import figures


def check_file(to: str) -> Path:
    """Return where a page is written. Raises InputError unless it is a new .html in a folder that exists."""
    if not to:
        raise InputError("there is no destination; name an .html file.")
    file = Path(to).expanduser().absolute()
    if file.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{file.name} is not the name of a page; it takes a file that ends in .html.")
    if file.exists():
        raise InputError(f"{file} already exists; name another file.")
    if not file.parent.is_dir():
        raise InputError(f"the folder {file.parent} does not exist; name a file in one that does.")
    return file


def write_report(dataset: Any, to: str, brain_key: str | None = None) -> Path:
    """Write the page of a run and return its file.

    Samples that were deleted are left out. Raises InputError where the file exists or nothing of the run is left.
    """
    # not above: these import more than the App needs at every request
    from cvcoteach.fiftyone.work.subset import issues_of_rows
    from cvcoteach.pipeline.page.report import write_page
    from cvcoteach.pipeline.page.reviews import Reviews
    from cvcoteach.pipeline.results import RunResults
    from cvcoteach.pipeline.run_summary import confusions

    file = check_file(to)
    results = runs.load(dataset, brain_key)
    catch_up(dataset, results)
    names = ["id", "filepath", f"{results.config.label_field}.label"]
    ids, paths, labels = dataset.values(names)
    rows = results.rows(ids)
    kept = np.flatnonzero(rows >= 0)
    if not len(kept):
        raise InputError(f"every sample of the run {results.key!r} was deleted; there is nothing to report.")
    rows, paths, labels = rows[kept], [paths[i] for i in kept], [labels[i] for i in kept]
    issues, done = issues_of_rows(results.issues, rows), browse.reviews(dataset, results)
    n, k = len(rows), issues.n_classes
    unknown = np.broadcast_to(np.float32(1 / k), (n, k))  # a run here keeps no probabilities; no page shows any
    other = np.where(issues.suggested != issues.labels, issues.suggested, (issues.labels + 1) % k)
    found = RunResults(
        folder=Path(dataset.name),
        source=f"{dataset.name} (FiftyOne, run {results.key})",
        paths=tuple(paths),
        pred_probs=unknown,
        pred_probs_round_1=unknown,
        selected=~issues.is_label_issue,
        candidate=issues.is_label_issue,
        round=np.ones(n, np.int64),
        rounds=(),
        summary={**figures(issues), "confusions": confusions(issues)},
        unreadable={},
        alternative=other,
        alternative_prob=np.where(issues.suggested != issues.labels, issues.suggested_prob, 0.0),
        reviewed=np.zeros(n, np.bool_),
        groups=np.full(n, -1),
        found=issues,
    )
    number = {name: row for row, name in enumerate(issues.class_names)}
    now = np.array([number.get(str(label), -1) for label in labels], np.int64)
    decided = done.reviewed[rows]
    excluded = done.status[rows] == EXCLUDED
    corrected = Corrected(
        labels=np.where(decided & (now >= 0), now, issues.labels),
        selected=~issues.is_label_issue | decided,
        candidate=issues.is_label_issue & ~decided,
        excluded=excluded,
        reviewed=decided & ~excluded,
    )
    reviews = Reviews(corrected, np.zeros(n, np.bool_), None) if decided.any() else None
    source = Source(Path(dataset.name), Path(os.sep), tuple(paths), issues.labels, issues.class_names)
    record = {
        "identity": {"label_field": results.config.label_field, **(results.config.settings or {})},
        "versions": {"cvcoteach": __version__},
    }
    write_page(file, found, record, source, reviews)
    return file
