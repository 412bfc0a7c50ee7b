"""What others found -> LabelIssues of a FiftyOne collection's samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._checks import BoolArray, FloatArray, InputError, IntArray, as_pred_probs
from cvcoteach.issues import LabelIssues, posterior_issues
from cvcoteach.storage import RunFolder

if TYPE_CHECKING:
    from cvcoteach.fiftyone.issues import Labelled


def issues_from_folder(folder: Path, data: Labelled) -> tuple[Labelled, LabelIssues, list[str]]:
    """A finished `cvcoteach` run whose images are matched to the samples by path: the matched, their issues, notes.

    Raises InputError for a folder that holds none, an unfinished one, and where no image or no label matches.
    """
    run = RunFolder.read(folder)
    if not run.done:
        raise InputError(f"{folder} holds an unfinished run; the command that began it goes on with it.")
    with np.load(folder / "probabilities.npz", allow_pickle=False) as content:
        paths = content["paths"]
        names = tuple(map(str, content["class_names"]))
        labels, round_1 = content["labels"], content["pred_probs_round_1"]
    issues = _as_in_table(folder, posterior_issues(labels, round_1, class_names=names), paths)
    rows = _match([str(path) for path in paths], str(run.record.get("source", "")), data.paths)
    matched = rows >= 0
    if not matched.any():
        raise InputError(f"no image of {folder} is among the samples; its first is {paths[0]}.")
    picked = data.take(matched)
    there = np.array([*names], dtype=object)[issues.labels[rows[matched]]]
    ours = np.array([*data.class_names], dtype=object)[picked.labels]
    same = there == ours
    if not same.any():
        raise InputError(f"the labels of {folder} are not those of the samples: {there[0]!r} there, {ours[0]!r} here.")
    notes = []
    if (missing := int((~matched).sum())) > 0:
        notes.append(f"{missing:,} samples are not in {folder.name} and were left out.")
    if (other := int((~same).sum())) > 0:
        notes.append(f"{other:,} samples have another label now than in {folder.name} and were left out.")
    return picked.take(same), rows_of(issues, rows[matched][same]), notes


def issues_of(
    found: Any, data: Labelled, pred_probs: npt.ArrayLike | None, class_names: Sequence[str] | None
) -> LabelIssues:
    """A LabelIssues, a mask, indices or a frame of cleanlab's, all in the order of the samples with labels."""
    n = len(data.ids)
    if isinstance(found, LabelIssues):
        if len(found.labels) != n:
            raise InputError(f"the label issues are of {len(found.labels):,} images, but {n:,} samples have labels.")
        return found
    names = tuple(class_names) if class_names is not None else data.class_names
    labels = _relabelled(data, names)
    base = None
    if pred_probs is not None:
        base = posterior_issues(labels, as_pred_probs(pred_probs, (n, len(names))), class_names=names)
    if isinstance(found, pd.DataFrame):
        return _from_frame(found, labels, names, base)
    flags = _as_flags(np.asarray(found), n)
    if base is not None:
        return replace(base, is_label_issue=flags, filter_by="cleanlab")
    return _bare(labels, names, flags, np.where(flags, 0.0, 1.0), labels)


def _as_in_table(folder: Path, issues: LabelIssues, paths: npt.NDArray[Any]) -> LabelIssues:
    """The flags and qualities that the run itself reported."""
    table = pd.read_csv(folder / "issues.csv", dtype={"path": str}).set_index("path").loc[paths.tolist()]
    flags = table["is_label_issue"].to_numpy(np.bool_)
    quality = table["label_quality"].to_numpy(np.float64)
    return replace(issues, is_label_issue=flags, label_quality=quality)


def _match(theirs: Sequence[str], source: str, ours: Sequence[str]) -> IntArray:
    """(n,) the row of each of our files in theirs, -1 where there is none.

    By the file's place; where the run was made in another place (or on another machine), by the end of its path.
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
        ends[end] = -1 if end in ends else row  # two of the same end: neither can be told
    return np.array([ends.get(Path(path).parts[-depth:], -1) for path in ours], np.int64)


def rows_of(issues: LabelIssues, rows: IntArray | BoolArray) -> LabelIssues:
    """The issues of some images, by index or mask; what is about all of them stays."""
    per_image = ("labels", "predicted", "label_quality", "is_label_issue", "suggested", "suggested_prob")
    return replace(issues, **{name: getattr(issues, name)[rows] for name in per_image})


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
        raise InputError("found is neither a mask, indices, a frame of cleanlab's nor a run folder.")
    if len(found) and not (found.min() >= 0 and found.max() < n):
        raise InputError(f"an index is {found.max()}, but {n:,} samples have labels (0-{n - 1}).")
    flags = np.zeros(n, np.bool_)
    flags[found.astype(np.int64)] = True
    return flags


def _from_frame(frame: pd.DataFrame, labels: IntArray, names: Sequence[str], base: LabelIssues | None) -> LabelIssues:
    """`CleanLearning.find_label_issues` (label_quality) or Datalab's `get_issues("label")` (label_score)."""
    score = next((name for name in ("label_quality", "label_score") if name in frame), None)
    if "is_label_issue" not in frame or score is None:
        raise InputError(
            f"the frame has columns {', '.join(map(str, frame))}; is_label_issue and label_quality are needed."
        )
    if len(frame) != len(labels):
        raise InputError(f"the frame has {len(frame):,} rows, but {len(labels):,} samples have labels.")
    flags = frame["is_label_issue"].to_numpy(np.bool_)
    quality = np.clip(frame[score].to_numpy(np.float64), 0, 1)
    if base is not None:
        return replace(base, is_label_issue=flags, filter_by="cleanlab")
    suggested = labels
    if "predicted_label" in frame:
        predicted = frame["predicted_label"].to_numpy()
        numbers = {name: number for number, name in enumerate(names)}
        suggested = (
            predicted.astype(np.int64)
            if predicted.dtype.kind in "iu"
            else np.array([numbers.get(str(name), -1) for name in predicted], np.int64)
        )
        if len(suggested) and not (suggested.min() >= 0 and suggested.max() < len(names)):
            raise InputError("predicted_label names a class that is no label of the samples; give class_names.")
    return _bare(labels, names, flags, quality, suggested)


def _bare(
    labels: IntArray, names: Sequence[str], flags: BoolArray, quality: FloatArray, suggested: IntArray
) -> LabelIssues:
    """Issues of which only flags, scores and suggestions are known."""
    k = len(names)
    joint = np.bincount(suggested * k + labels, minlength=k * k).reshape(k, k) + 1e-3 * np.eye(k)
    return LabelIssues(
        labels=labels,
        predicted=suggested,
        label_quality=quality,
        is_label_issue=flags,
        suggested=suggested,
        suggested_prob=np.where(suggested == labels, quality, 1 - quality),
        transition=joint / joint.sum(axis=1, keepdims=True),
        prior=joint.sum(axis=1) / joint.sum(),
        class_names=tuple(names),
        filter_by="cleanlab",
        fits=False,
        note="The scores came with the flags; they rank, but say nothing about how many labels are wrong.",
    )
