"""Score a classifier on images with right labels, and compare it with another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from cvcoteach._validation import IntArray, PredProbs
from cvcoteach.issues.label_issues import pairs_counted

TOP = 5


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a classifier on test images."""

    top1: float
    """Share of right predictions, in [0, 1]."""
    top5: float | None
    """Share with the right class among the five most probable, in [0, 1]; None with five classes or fewer."""
    per_class: tuple[float, ...]
    """(K,) share of right predictions among the images of each class; NaN for a class without images."""
    confusion: IntArray | csr_array
    """(K, K) number of images of class i that were predicted as j; sparse for more than 2,000 classes."""


def score(pred_probs: PredProbs, labels: IntArray) -> Scores:
    """Return the scores of probabilities (n, K) for images of the classes `labels` (n,)."""
    n, k = pred_probs.shape
    predicted = pred_probs.argmax(axis=1)
    confusion = pairs_counted(labels, predicted, k)
    right, counts = confusion.diagonal(), confusion.sum(axis=1)
    per_class = np.divide(right, counts, out=np.full(k, np.nan), where=counts > 0)
    top5 = None
    if k > TOP:
        best = np.argpartition(-pred_probs, TOP - 1, axis=1)[:, :TOP]
        top5 = float((best == labels[:, None]).any(axis=1).mean())
    return Scores(float(right.sum() / n), top5, tuple(per_class.tolist()), confusion)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The scores of a retrained classifier, and of plain networks, on the same test images."""

    ours: Scores
    """Of the retrained classifier."""
    plain: Scores
    """Of one plain network on all labels as given, uncorrected, with as many image passes."""
    left_out: Scores | None = None
    """Of one plain network on what counts as clean alone, with as many; None: too little counts as clean."""


def per_class_table(compared: Comparison, class_names: Sequence[str]) -> pd.DataFrame:
    """Return one row per class: how many images it has, and the share that each classifier gets right."""
    of_left_out = {} if compared.left_out is None else {"accuracy_left_out": compared.left_out.per_class}
    return pd.DataFrame(
        {
            "class": list(class_names),
            "n_images": compared.ours.confusion.sum(axis=1),
            "accuracy": compared.ours.per_class,
            "accuracy_plain": compared.plain.per_class,
            **of_left_out,
        }
    )


def confusion_table(scores: Scores, class_names: Sequence[str]) -> pd.DataFrame:
    """Return one row per true class, one column per predicted class; of a sparse confusion one row per pair."""
    if isinstance(scores.confusion, csr_array):
        true, predicted = scores.confusion.nonzero()
        names = np.asarray(class_names, dtype=object)
        pairs = {"predicted": names[predicted], "n_images": scores.confusion[true, predicted]}
        return pd.DataFrame(pairs, index=pd.Index(names[true], name="true"))
    return pd.DataFrame(
        scores.confusion, index=pd.Index(class_names, name="true \\ predicted"), columns=list(class_names)
    )


def figures(compared: Comparison) -> dict[str, Any]:
    """Return top-1 and top-5 of all classifiers, for run.json."""
    named = {"": compared.ours, "_plain": compared.plain, "_left_out": compared.left_out}
    result: dict[str, Any] = {"n_images": int(compared.ours.confusion.sum())}
    for name, scores in named.items():
        result[f"top1{name}"] = None if scores is None else round(scores.top1, 4)
        result[f"top5{name}"] = None if scores is None or scores.top5 is None else round(scores.top5, 4)
    return result


def comparison_text(compared: Comparison, class_names: Sequence[str], most: int = 5) -> str:
    """Return a text that compares the classifiers, and the classes in which ours differs most from the plain one."""
    ours, plain, left_out = compared.ours, compared.plain, compared.left_out
    lines = [f"On {int(ours.confusion.sum()):,} test images     retrained   plain   difference"]
    lines.append(_line("right prediction", ours.top1, plain.top1))
    if left_out is not None:
        lines.append(_line("flagged left out, plain", ours.top1, left_out.top1))
    if ours.top5 is not None and plain.top5 is not None:
        lines.append(_line("among the first five", ours.top5, plain.top5))
    gains = np.array(ours.per_class) - np.array(plain.per_class)
    differing = [k for k in np.argsort(-np.abs(np.nan_to_num(gains)), kind="stable").tolist() if abs(gains[k]) > 0]
    lines += [_line(class_names[k], ours.per_class[k], plain.per_class[k]) for k in differing[:most]]
    return "\n".join(lines)


def _line(what: str, ours: float, plain: float) -> str:
    return f"  {what:<23.23} {ours:>9.1%} {plain:>7.1%} {100 * (ours - plain):>+8.1f} points"
