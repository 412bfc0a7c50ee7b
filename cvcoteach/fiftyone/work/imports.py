"""Import label issues found elsewhere as a run: from a run folder of `cvcoteach find-issues`, or from cleanlab."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray, as_pred_probs, counted
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.annotators import MOST
from cvcoteach.fiftyone.store.labelled import Labelled, left_out, read_labels
from cvcoteach.fiftyone.store.runs import DEFAULT_KEY, FindLabelIssuesConfig, FindLabelIssuesResults
from cvcoteach.fiftyone.work.staleness import as_it_is
from cvcoteach.fiftyone.work.subset import issues_of_rows
from cvcoteach.issues.from_posterior import issues_of as issues_of_posterior
from cvcoteach.issues.label_issues import LabelIssues, pairs_counted
from cvcoteach.noise_model.posterior import fit_posterior
from cvcoteach.noise_model.sparse_transition import SparseTransition, Transition
from cvcoteach.noise_model.top_probs import MANY_CLASSES
from cvcoteach.pipeline.results import RunResults

_ALONE = 1e-3  # images, so that a class without any has a row


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

    found: a `cvcoteach` run folder; a LabelIssues; what `cleanlab.filter.find_label_issues` returned (a mask or
    indices); a frame of `CleanLearning.find_label_issues`; a Datalab, or its `get_issues("label")`. All but the folder
    in the order of the samples that have a label.
    pred_probs: (n, K) in that order, to get qualities and suggestions from, where `found` has none.
    class_names: (K,) of the columns; the field's classes in lexicographic order unless given.

    Raises InputError, one sentence, for anything that does not fit.
    """
    runs.check_key(samples._dataset, brain_key, label_field, overwrite=overwrite)
    as_it_was = as_it_is(samples._dataset)
    data = read_labels(samples, label_field, need_files=False)
    if isinstance(found, str | Path):
        data, issues, notes = issues_from_folder(Path(found), data)
        source, annotators = str(found), annotators_in(Path(found))
    else:
        issues = issues_of(found, data, pred_probs, class_names)
        notes, source, annotators = [], "cleanlab", []
    config = FindLabelIssuesConfig(label_field, source, {})
    info: dict[str, Any] = {"notes": [*data.notes, *notes], "summary": {}, **as_it_was}
    if annotators:
        info["annotators"] = annotators
    return runs.save(samples, brain_key, config, data.ids, issues, info)


def issues_from_folder(folder: Path, data: Labelled) -> tuple[Labelled, LabelIssues, list[str]]:
    """Match the images of a finished `cvcoteach` run to the samples by path; return those matched, their issues, notes.

    Raises InputError for a folder without a finished run, and where no image or no label matches.
    """
    results = RunResults.load(folder)
    issues, paths, names = results.issues(), results.paths, results.class_names
    rows = _match(paths, results.source, data.paths)
    matched = rows >= 0
    if not matched.any():
        raise InputError(f"no image of {folder} is among the samples; its first is {paths[0]}.")
    picked = data.take(matched)
    there, ours = np.array(names, dtype=object)[issues.labels[rows[matched]]], picked.names
    same = there == ours
    if not same.any():
        raise InputError(f"the labels of {folder} are not those of the samples: {there[0]!r} there, {ours[0]!r} here.")
    notes = []
    if (missing := int((~matched).sum())) > 0:
        notes.append(left_out(missing, f"not in {folder.name}"))
    if (other := int((~same).sum())) > 0:
        notes.append(left_out(other, f"with another label now than in {folder.name}"))
    return picked.take(same), issues_of_rows(issues, rows[matched][same]), notes


def annotators_in(folder: Path) -> list[dict[str, Any]]:
    """Return a record per annotator of a finished run: annotator, n_labels, agreement, quality; nothing for none."""
    results = RunResults.load(folder)
    if results.found.n_annotators is None:
        return []
    known = results.annotators().head(MOST)
    return [{str(name): value for name, value in one.items()} for one in known.to_dict("records")]


def issues_of(
    found: Any, data: Labelled, pred_probs: npt.ArrayLike | None, class_names: Sequence[str] | None
) -> LabelIssues:
    """Return the issues in `found`: LabelIssues, a mask, indices, a frame or a Datalab, one per labelled sample."""
    n = len(data.ids)
    if isinstance(found, LabelIssues):
        if len(found.labels) != n:
            raise InputError(f"the label issues cover {len(found.labels):,} images, but {n:,} samples have labels.")
        if found.class_names == tuple(map(str, range(found.n_classes))) and np.array_equal(found.labels, data.labels):
            return replace(found, class_names=data.class_names)  # they were found without names
        _check_order("the label issues", np.array(found.class_names, dtype=object)[found.labels], data)
        return found
    if hasattr(found, "get_issues"):
        found = _from_datalab(found)
    names = tuple(class_names) if class_names is not None else data.class_names
    labels = _relabelled(data, names)
    posterior = None
    if pred_probs is not None:
        posterior = fit_posterior(labels, as_pred_probs(pred_probs, (n, len(names))))
    if isinstance(found, pd.DataFrame):
        flags, quality, suggested = _from_frame(found, data, labels, names)
    else:
        flags = _as_flags(np.asarray(found), n)
        quality, suggested = np.where(flags, 0.0, 1.0), labels
    if posterior is not None:
        return issues_of_posterior(posterior, class_names=names, flags=flags, filter_by="cleanlab")
    return _bare(labels, names, flags, quality, suggested)


def _from_datalab(lab: Any) -> pd.DataFrame:
    """Return the Datalab's frame of label issues. Raises InputError where it has not looked for any."""
    try:
        return lab.get_issues("label")
    except ValueError as error:
        raise InputError(
            "the Datalab holds no label issues; find them first: lab.find_issues(pred_probs=…)."
        ) from error


def _match(theirs: Sequence[str], source: str, ours: Sequence[str]) -> IntArray:
    """Return the row of each of our files in theirs (n,), -1 where there is none.

    Matched by the whole path; where the run was made elsewhere (or on another machine), by the end of the path.
    """
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    places = {os.path.realpath(root / path): row for row, path in enumerate(theirs)}
    rows = np.array([places.get(os.path.realpath(path), -1) for path in ours], np.int64)
    if (rows >= 0).any():
        return rows
    depth = min(len(Path(path).parts) for path in theirs)
    ends: dict[tuple[str, ...], int] = {}
    for row, path in enumerate(theirs):
        end = Path(path).parts[-depth:]
        ends[end] = -1 if end in ends else row  # two with the same end cannot be told apart
    return np.array([ends.get(Path(path).parts[-depth:], -1) for path in ours], np.int64)


def _relabelled(data: Labelled, names: Sequence[str]) -> IntArray:
    missing = sorted(set(data.class_names) - set(names))
    if missing:
        raise InputError(f"class_names lacks {missing[0]!r}, a label of the samples.")
    return np.array([names.index(name) for name in data.class_names], np.int64)[data.labels]


def _as_flags(found: npt.NDArray[Any], n: int) -> BoolArray:
    if found.dtype == np.bool_:
        if found.shape != (n,):
            raise InputError(f"the mask has shape {found.shape}, but {n:,} samples have labels.")
        return found
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):
        raise InputError("found is neither a mask, indices, one of cleanlab's frames nor a run folder.")
    if len(found) and not (found.min() >= 0 and found.max() < n):
        odd = found.min() if found.min() < 0 else found.max()
        raise InputError(f"an index is {odd}, but {n:,} samples have labels (0-{n - 1}).")
    flags = np.zeros(n, np.bool_)
    flags[found.astype(np.int64)] = True
    return flags


def _from_frame(
    frame: pd.DataFrame, data: Labelled, labels: IntArray, names: Sequence[str]
) -> tuple[BoolArray, FloatArray, IntArray]:
    """Return flags, qualities, suggestions (n,): CleanLearning's frame (label_quality) or Datalab's (label_score)."""
    score = next((name for name in ("label_quality", "label_score") if name in frame), None)
    if "is_label_issue" not in frame or score is None:
        raise InputError(
            f"the frame has columns {', '.join(map(str, frame))}; is_label_issue and label_quality are needed."
        )
    if len(frame) != len(labels):
        raise InputError(f"the frame has {len(frame):,} rows, but {len(labels):,} samples have labels.")
    by_number = "given_label" in frame and np.array_equal(frame["given_label"].to_numpy(), labels)
    if "given_label" in frame and not by_number:
        given = _numbers(frame["given_label"], names, "given_label", by_number)
        _check_order("the frame", np.array(names, dtype=object)[given], data)
    flags = frame["is_label_issue"].to_numpy(np.bool_)
    quality = np.clip(frame[score].to_numpy(np.float64), 0, 1)
    suggested = labels
    if "predicted_label" in frame:
        suggested = _numbers(frame["predicted_label"], names, "predicted_label", by_number)
    return flags, quality, suggested


def _numbers(column: pd.Series[Any], names: Sequence[str], what: str, by_number: bool) -> IntArray:
    """Return class numbers (n,) from numbers, as CleanLearning has, or names, as Datalab; a name may be a numeral."""
    values = column.to_numpy()
    number = {name: k for k, name in enumerate(names)}
    if by_number or (values.dtype.kind in "iu" and not {str(value) for value in np.unique(values)} <= number.keys()):
        numbers = values.astype(np.int64)
    else:
        numbers = np.array([number.get(str(value), -1) for value in values], np.int64)
    odd = (numbers < 0) | (numbers >= len(names))
    if odd.any():
        raise InputError(
            f"{what} of the frame is {values[odd][0]}, which is not a label of the samples; give class_names."
        )
    return numbers


def _check_order(what: str, theirs: npt.NDArray[np.object_], data: Labelled) -> None:
    """Raise InputError where the labels are not the samples' own: every flag would fall on a wrong sample."""
    other = np.flatnonzero(theirs != data.names)
    if len(other):
        row = int(other[0])
        raise InputError(
            f"{what} and the samples differ in {counted(len(other), 'label')}, first in row {row}: "
            f"{theirs[row]!r} there, {data.names[row]!r} here; the order is that of the samples with a label."
        )


def _counted(labels: IntArray, suggested: IntArray, k: int) -> tuple[Transition, FloatArray]:
    """Return P(given = j | suggested = i), (K, K), and P(suggested = i), (K,)."""
    if k > MANY_CLASSES:
        pairs, counts = np.unique(suggested * k + labels, return_counts=True)
        sizes = (np.bincount(suggested, minlength=k) + _ALONE).astype(np.float64)
        found = SparseTransition(1 / sizes, np.zeros(k), np.array(_ALONE), pairs, counts.astype(np.float64))
        return found, sizes / sizes.sum()
    joint = pairs_counted(suggested, labels, k) + _ALONE * np.eye(k)
    return joint / joint.sum(axis=1, keepdims=True), joint.sum(axis=1) / joint.sum()


def _bare(
    labels: IntArray, names: Sequence[str], flags: BoolArray, quality: FloatArray, suggested: IntArray
) -> LabelIssues:
    """Return issues of which only flags, scores and suggestions are known."""
    transition, prior = _counted(labels, suggested, len(names))
    return LabelIssues(
        labels=labels,
        predicted=suggested,
        label_quality=quality,
        is_label_issue=flags,
        suggested=suggested,
        suggested_prob=np.where(suggested == labels, quality, 1 - quality),
        transition=transition,
        prior=prior,
        class_names=tuple(names),
        filter_by="cleanlab",
        has_signal=False,
        note="The scores came with the flags; they rank, but say nothing about how many labels are wrong.",
    )
