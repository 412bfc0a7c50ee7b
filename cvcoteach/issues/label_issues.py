"""LabelIssues: which given labels are probably wrong, what they should be, and how they get confused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from cvcoteach._validation import BoolArray, FloatArray, IntArray, counted
from cvcoteach.data.copies import contradictions, first_of_same
from cvcoteach.data.splits import rows_by_split
from cvcoteach.issues import issues_file
from cvcoteach.issues.display import table_html
from cvcoteach.issues.flags import FEW_RIGHT, PROBABLY_WRONG, beyond_judgment
from cvcoteach.issues.strangers import MARKED
from cvcoteach.noise_model.sparse_transition import SparseTransition, Transition, dense
from cvcoteach.noise_model.top_probs import MANY_CLASSES

NOT_SAVED = ("annotators", "index")
"""Fields that stay in memory."""

_NOT_OF_SUBSETS = ("transition", "prior", "overlaps", "duplicate_of", "near_copy_of")
_AT_RISK = 1 / 3
_SPARSE = "transition_"
_LEAST_KEPT = 1e-3  # as cleanlab bounds its own sample weights


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Everything known about every given label. Made by `posterior_issues` or from a finished run."""

    labels: IntArray
    """(n,) given labels, 0..K-1."""
    predicted: IntArray
    """(n,) the class the probabilities favour, before anything is said about noise."""
    label_quality: FloatArray
    """(n,) probability that the given label is right, in [0, 1]: low = doubtful."""
    is_label_issue: BoolArray
    """(n,) flagged as wrong."""
    suggested: IntArray
    """(n,) the most probable true class; of a flagged label the most probable other than the given one."""
    suggested_prob: FloatArray
    """(n,) its probability, in [0, 1]."""
    transition: Transition
    """(K, K) T[i, j] = P(given = j | true = i), rows sum to 1; a `SparseTransition` for more than 2,000 classes."""
    prior: FloatArray
    """(K,) P(true = i), sums to 1."""
    class_names: tuple[str, ...]
    """(K,) the name of each class."""
    filter_by: str
    """The rule behind the flags: "posterior" or "incv"."""
    has_signal: bool
    """Whether qualities are probabilities of a fitted noise model; if not, they only rank, and `note` says why."""
    note: str
    """One sentence on how the probabilities were read."""
    flag_for: str = ""
    """Goal of the posterior's flags, as `FlagRule` names it; empty for flags of another rule."""
    overlaps: IntArray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    """(m, 2) pairs of classes that the models cannot tell apart: a label of one counts as right where the other is."""
    stranger: FloatArray | None = None
    """(n,) probability that the image belongs to none of the classes, in [0, 1]; None without features to tell by."""
    splits: npt.NDArray[np.str_] | None = None
    """(n,) name of the split of each image, such as train or test; None where there are none."""
    n_annotators: IntArray | None = None
    """(n,) how many annotators labelled each image; None where nobody said who did."""
    agreement: FloatArray | None = None
    """(n,) share of them that gave the label, in [0, 1]; None likewise."""
    duplicate_of: IntArray | None = None
    """(n,) the first image with the same content, -1 where there is none before it; None where none are known."""
    near_copy_of: IntArray | None = None
    """(n,) the first image that shows the same picture, but for small changes, -1 likewise; None likewise."""
    annotators: pd.DataFrame | None = None
    """A row per annotator, the least reliable first: annotator, n_labels, agreement, quality. Not saved."""
    index: pd.Index[Any] | None = None
    """(n,) index of the labels, where they came as a pandas Series: that of `to_frame`. Not saved."""

    @property
    def fits(self) -> bool:
        """`has_signal`, by its former name."""
        return self.has_signal

    def __repr__(self) -> str:
        noise = f"expected noise ratio {self.noise_ratio:.3f}" if self.has_signal else "no signal"
        return (
            f"LabelIssues({self.n_issues:,} of {len(self.labels):,} labels flagged by {self.filter_by!r}, "
            f"{self.n_classes} classes, {noise})"
        )

    def _repr_html_(self) -> str:
        """Return the most doubtful labels as a table, for notebooks."""
        return self.to_html()

    def to_html(
        self, names: Sequence[str] | None = None, pictures: Sequence[bytes | None] | None = None, *, most: int = 10
    ) -> str:
        """Return the most doubtful labels as an HTML table.

        Args:
            names: (n,) of the images; None: their numbers.
            pictures: JPEG or PNG bytes of the `most` most doubtful images, as `shown_first` orders them.
            most: Rows at most.
        """
        rows = self.shown_first(most)
        cells = [
            (
                str(i) if names is None else names[i],
                self.class_names[self.labels[i]],
                self.class_names[self.suggested[i]],
                f"{self.label_quality[i]:.3f}",
                "yes" if self.is_label_issue[i] else "",
            )
            for i in rows.tolist()
        ]
        noise = f", expected noise rate {self.noise_ratio:.1%}" if self.has_signal else f". {self.note}"
        title = f"{self.n_issues:,} of {counted(len(self.labels), 'label')} flagged, {self.n_classes:,} classes{noise}"
        return table_html(title, ("image", "given", "suggested", "label quality", "flagged"), cells, pictures)

    def shown_first(self, most: int) -> IntArray:
        """Return the images that tables show, (at most `most`,) indices: the most doubtful, flagged ones first."""
        return np.lexsort((self.label_quality, ~self.is_label_issue))[:most]

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.transition)

    @property
    def n_issues(self) -> int:
        """The number of flagged labels."""
        return int(self.is_label_issue.sum())

    @property
    def n_worth_a_look(self) -> int:
        """The number of flagged labels, as `n_issues`: worth a look, not each more probably wrong than right."""
        return self.n_issues

    @property
    def n_probably_wrong(self) -> int:
        """The number of labels that are more probably wrong than right; 0 where nothing is known about them."""
        return int((self.wrong > PROBABLY_WRONG).sum()) if self.has_signal else 0

    @property
    def wrong(self) -> FloatArray:
        """(n,) probability that the given label is wrong, in [0, 1]; a mere ranking without a signal."""
        return 1 - self.label_quality

    @property
    def noise_ratio(self) -> float:
        """Expected share of wrong labels, in [0, 1], copies together counted once; NaN without a signal."""
        return float(np.average(self.wrong, weights=self.copy_weights)) if self.has_signal else float("nan")

    @property
    def _first_copy(self) -> IntArray:
        """(n,) the first image with the same content, which is its own where there is none."""
        everyone = np.arange(len(self.labels))
        return everyone if self.duplicate_of is None else np.where(self.duplicate_of < 0, everyone, self.duplicate_of)

    @property
    def first_copy(self) -> IntArray:
        """(n,) the first image that shows the same picture, which is its own where there is none."""
        first = self._first_copy
        return first if self.near_copy_of is None else np.where(self.near_copy_of < 0, first, self.near_copy_of)

    @property
    def copy_weights(self) -> FloatArray | None:
        """(n,) one over the number of copies of each image, itself counted; None where there are none."""
        first = self.first_copy
        counts = np.bincount(first, minlength=len(first))
        return np.asarray(1 / counts[first]) if (counts > 1).any() else None

    @property
    def contradiction(self) -> BoolArray:
        """(n,) images that have an exact or a near copy with another label, whatever the model says."""
        return contradictions(self.labels, self.first_copy)

    @property
    def exact_contradiction(self) -> BoolArray:
        """(n,) those of them whose copy is an exact one: one of both labels is wrong, or both."""
        return contradictions(self.labels, self._first_copy)

    @property
    def noise_ratio_per_class(self) -> FloatArray:
        """(K,) expected share of wrong labels among those given each class; NaN for a class that nobody gave.

        All NaN without a signal.
        """
        counts = np.bincount(self.labels, minlength=self.n_classes)
        wrong = np.bincount(self.labels, self.wrong, minlength=self.n_classes)
        return np.where(self.has_signal & (counts > 0), wrong / np.maximum(counts, 1), np.nan)

    @property
    def confident_joint(self) -> IntArray:
        """(K, K) counts of given class (row) and true class (column), as cleanlab's argument of that name.

        Each row sums to the images given that class. Raises InputError where that takes more memory than there is.
        Meaningful where `has_signal`. The way into cleanlab's own tools:
        `CleanLearning(clf, find_label_issues_kwargs={"confident_joint": issues.confident_joint})`.
        """
        counts = np.bincount(self.labels, minlength=self.n_classes)
        joint = (self.prior[:, None] * dense(self.transition)).T
        share = joint / np.maximum(joint.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        return _round_rows(share * counts[:, None], counts)

    @property
    def is_stranger(self) -> BoolArray:
        """(n,) images that probably belong to none of the classes; exclude them before relabeling others."""
        return np.zeros(len(self.labels), np.bool_) if self.stranger is None else self.stranger > MARKED

    @property
    def overlaps_with(self) -> IntArray:
        """(K,) for each class one that it overlaps with, -1 where there is none."""
        result = np.full(self.n_classes, -1)
        result[self.overlaps[:, 1]] = self.overlaps[:, 0]
        result[self.overlaps[:, 0]] = self.overlaps[:, 1]
        return result

    @property
    def at_risk(self) -> IntArray:
        """Classes that fixing labels may wipe out: few labels are right, and more than a third are expected wrong."""
        if not self.has_signal:
            return np.empty(0, np.int64)
        right = np.bincount(self.labels, self.label_quality, minlength=self.n_classes)
        rate = np.nan_to_num(self.noise_ratio_per_class)
        return np.flatnonzero((right < FEW_RIGHT) & (rate > _AT_RISK) & ~np.isin(self._numbers, self.beyond_judgment))

    @property
    def beyond_judgment(self) -> IntArray:
        """Classes with so few labels that nobody can tell right ones from wrong ones."""
        return beyond_judgment(self.labels)

    @property
    def _numbers(self) -> IntArray:
        return np.arange(self.n_classes)

    def subset(self, which: IntArray) -> LabelIssues:
        """Return what is known about some labels, (m,) indices; noise model and class names stay those of all.

        Copies of an image outside of these are copies of the first of them.
        """
        of_labels: dict[str, Any] = {
            name: value[which]
            for name, value in _values(self).items()
            if isinstance(value, np.ndarray) and name not in _NOT_OF_SUBSETS
        }
        exact, near = first_of_same(self._first_copy[which]), first_of_same(self.first_copy[which])
        copies = None if self.duplicate_of is None else np.where(exact == np.arange(len(which)), -1, exact)
        alike = None if self.near_copy_of is None else np.where(near == exact, -1, near)
        index = None if self.index is None else self.index[which]
        return replace(self, **of_labels, duplicate_of=copies, near_copy_of=alike, index=index)

    def worst_first(self, *, flagged_only: bool = True) -> IntArray:
        """Indices from the most doubtful label on: (n_issues,), or (n,) of all. Ties in the order of the images.

        Contradictions come first, whatever the model says, those of exact copies before those of near ones.
        """
        order = np.lexsort((self.label_quality, ~self.contradiction, ~self.exact_contradiction))
        return order[self.is_label_issue[order]] if flagged_only else order

    def confusions(self) -> pd.DataFrame:
        """Count how often each class was given where another is more probable, most frequent first.

        Columns: given, suggested (names), count (flagged labels), share (of those given the class, in [0, 1]) and
        mean_wrong (mean probability that these are wrong). Flags without another more probable class are not counted.
        """
        rows = self.is_label_issue & (self.suggested != self.labels)
        pair = self.labels[rows] * self.n_classes + self.suggested[rows]
        pairs, index, count = np.unique(pair, return_inverse=True, return_counts=True)
        given, suggested = np.divmod(pairs, self.n_classes)
        names = np.asarray(self.class_names, dtype=object)
        frame = pd.DataFrame(
            {
                "given": names[given],
                "suggested": names[suggested],
                "count": count,
                "share": count / np.bincount(self.labels, minlength=self.n_classes)[given],
                "mean_wrong": np.bincount(index, self.wrong[rows], minlength=len(pairs)) / count,
            }
        )
        return frame.sort_values("count", ascending=False, kind="stable", ignore_index=True)

    def to_frame(self) -> pd.DataFrame:
        """One row an image: the four columns of cleanlab's `CleanLearning.find_label_issues`, then ours.

        is_label_issue (bool), label_quality (float64), given_label, predicted_label (int16); suggested_label (int16),
        suggested_prob (float64), given_class, suggested_class (categories, by name), overlap (category: a class that
        the given one overlaps with, NaN for none), stranger (float64, NaN without features to tell by); of several
        splits also split, of several annotators n_annotators and agreement; where there are copies, duplicate_of
        (position of the first exact one, -1 for none before it), contradiction (bool) and near_copy_of likewise.
        """
        names = pd.Index(self.class_names)
        whole = np.int16 if self.n_classes < np.iinfo(np.int16).max else np.int32
        frame = pd.DataFrame(
            {
                "is_label_issue": self.is_label_issue,
                "label_quality": self.label_quality,
                "given_label": self.labels.astype(whole),
                "predicted_label": self.predicted.astype(whole),
                "suggested_label": self.suggested.astype(whole),
                "suggested_prob": self.suggested_prob,
                "given_class": pd.Categorical.from_codes(self.labels, names),
                "suggested_class": pd.Categorical.from_codes(self.suggested, names),
                "overlap": pd.Categorical.from_codes(self.overlaps_with[self.labels], names),
                "stranger": np.nan if self.stranger is None else self.stranger,
            },
            index=self.index,
        )
        if self.splits is not None:
            frame["split"] = self.splits.astype(object)
        if self.n_annotators is not None:
            frame["n_annotators"], frame["agreement"] = self.n_annotators, self.agreement
        if self.copy_weights is not None:
            none = np.full(len(self.labels), -1)
            frame["duplicate_of"] = none if self.duplicate_of is None else self.duplicate_of
            frame["contradiction"] = self.contradiction
            frame["near_copy_of"] = none if self.near_copy_of is None else self.near_copy_of
        return frame

    def by_split(self) -> pd.DataFrame:
        """Return what each split holds, the one that models learned from first; no rows where there are no splits.

        Columns: split, n_images, n_issues (flagged), n_probably_wrong, noise_rate (expected share of wrong labels, in
        [0, 1]; NaN without a signal).
        """
        rows = {} if self.splits is None else rows_by_split(self.splits)
        wrong, weights = self.wrong, self.copy_weights
        return pd.DataFrame(
            [
                (
                    name,
                    len(which),
                    int(self.is_label_issue[which].sum()),
                    int((wrong[which] > PROBABLY_WRONG).sum()) if self.has_signal else 0,
                    float(np.average(wrong[which], weights=None if weights is None else weights[which]))
                    if self.has_signal
                    else float("nan"),
                )
                for name, which in rows.items()
            ],
            columns=["split", "n_images", "n_issues", "n_probably_wrong", "noise_rate"],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything into one file, at `path` as given; a reader sees the old file or the new one."""
        values = _values(self)
        if isinstance(self.transition, SparseTransition):
            del values["transition"]
            values |= {f"{_SPARSE}{name}": array for name, array in self.transition.arrays().items()}
        issues_file.write(Path(path), values)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> LabelIssues:
        """Read what `save` wrote. Raises InputError for any other file, FileNotFoundError for none."""
        values = issues_file.read(path)
        parts = {name.removeprefix(_SPARSE): values.pop(name) for name in [*values] if name.startswith(_SPARSE)}
        with issues_file.fitting(path):
            if parts:
                values["transition"] = SparseTransition.of_arrays(parts, len(values["class_names"]))
            return LabelIssues(**values)


def sample_weights(issues: LabelIssues) -> FloatArray:
    """Return weights (n,) >= 0 with which any classifier learns from the given labels as if they were the true ones.

    P(given label right | image, label) / P(given = k | true = k), the importance weights of Liu & Tao (TPAMI 2016):
    the first part discounts doubtful labels, the second gives classes whose labels got lost their size back. For
    `clf.fit(X, labels, sample_weight=...)` on all images, flagged ones included. All 1 without a signal.
    """
    if not issues.has_signal:
        return np.ones(len(issues.labels))
    kept = np.maximum(issues.transition.diagonal(), _LEAST_KEPT)
    return issues.label_quality / kept[issues.labels]


def pairs_counted(rows: IntArray, columns: IntArray, n_classes: int) -> IntArray | csr_array:
    """Count how often each pair of classes (m,), (m,) occurs, (K, K); sparse for more than 2,000 classes."""
    if n_classes > MANY_CLASSES:
        once = np.ones(len(rows), np.int64)
        counts = csr_array((once, (rows, columns)), shape=(n_classes, n_classes))
        counts.sum_duplicates()
        return counts
    return np.bincount(rows * n_classes + columns, minlength=n_classes**2).reshape(n_classes, n_classes)


def _values(issues: LabelIssues) -> dict[str, Any]:
    return {field.name: getattr(issues, field.name) for field in fields(issues) if field.name not in NOT_SAVED}


def _round_rows(matrix: FloatArray, totals: IntArray) -> IntArray:
    """Whole numbers near `matrix` (K, K) whose rows sum to `totals` (K,): the largest remainders are rounded up."""
    floor = np.floor(matrix).astype(np.int64)
    missing = totals - floor.sum(axis=1)
    rank = np.argsort(np.argsort(floor - matrix, axis=1, kind="stable"), axis=1, kind="stable")
    return floor + (rank < missing[:, None])
