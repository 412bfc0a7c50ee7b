"""The last word on every label: models trained on clean labels alone, each image judged by those that never saw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from cvcoteach._checks import (
    BoolArray,
    FloatArray,
    InputError,
    IntArray,
    PredProbs,
    as_labels,
    as_pred_probs,
    check_at_least,
    near,
)
from cvcoteach.crossval import (
    CrossValResult,
    Finished,
    Fold,
    FoldKey,
    FoldTrainer,
    OnFold,
    seed_of,
    stratified_parts,
    train_folds,
)
from cvcoteach.issues import FLAG_BELOW, LabelIssues, issues_of
from cvcoteach.transition import Posterior, fit_posterior

Select = Literal["posterior", "agreement"]
SELECT = ("posterior", "agreement")

CREDIT = 0.7
"""Exponent of the posterior: image and label are not independent witnesses, since people err where models err.

Chosen by calibration on the labels aggre and random2 of CIFAR-10N; 1 would take the two for independent.
"""

LEAST_FLAGGED = 0.25
"""No label is flagged that is less probably wrong than this, whatever the expected F1 would gain."""


@dataclass(frozen=True, eq=False)
class FinalScores:
    """What models trained on S say about every image, S included, and what follows for its label."""

    labels: IntArray
    """(n,) given labels."""
    pred_probs: PredProbs
    """(n, K) out of sample: the mean over the repeats."""
    selected: BoolArray
    """(n,) S: what the models learned from, each without the fold it judges."""
    posterior: Posterior
    """Of these probabilities, before its credit is cut."""
    label_quality: FloatArray
    """(n,) probability that the given label is right, in [0, 1]."""
    is_label_issue: BoolArray
    """(n,) flagged; see `flags_of_best_f1`."""
    suggested: IntArray
    """(n,) the most probable true class."""
    suggested_prob: FloatArray
    """(n,) its probability, in [0, 1]."""

    @property
    def wrong(self) -> FloatArray:
        """(n,) probability that the given label is wrong, in [0, 1]."""
        return 1 - self.label_quality

    def issues(self, class_names: Sequence[str] | None = None) -> LabelIssues:
        """All of it as label issues. class_names: (K,), or their numbers."""
        return replace(
            issues_of(self.posterior, class_names=class_names, flags=self.is_label_issue),
            label_quality=self.label_quality,
            suggested_prob=self.suggested_prob,
        )


@dataclass(frozen=True)
class FinalScoring:
    """Scores every image out of sample by models trained on S: cross-validation inside S.

    An image of S is judged by the models of the fold that left it out, one outside S by all of them. That mends
    INCV's one-way street, where a wrong label once in S is never looked at again.

    S holds what the posterior of round 1 takes for right ("posterior"), or what INCV selected ("agreement", as in the
    paper). Each class keeps at least two images a fold to learn from, its least doubtful ones.

    S keeps some wrong labels, so the probabilities are read as those of models trained on noisy labels.
    """

    select: Select = "posterior"
    n_folds: int = 5
    repeats: int = 2
    """Cross-validations with other splits and seeds, averaged."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("n_folds", self.n_folds, 2)
        check_at_least("repeats", self.repeats, 1)
        if self.select not in SELECT:
            raise InputError(f"select is {self.select!r}; {near(str(self.select), SELECT)}")

    @property
    def n_trainings(self) -> int:
        """Models trained."""
        return self.n_folds * self.repeats

    def after(
        self,
        result: CrossValResult,
        trainer: FoldTrainer,
        *,
        finished: Finished | None = None,
        on_fold: OnFold | None = None,
    ) -> FinalScores:
        """Scores after INCV, from the probabilities of its round 1 and, for "agreement", its S.

        Arguments and errors as of `run`.
        """
        number = len(result.rounds) + 1
        pred_probs = result.rounds[0].pred_probs
        selected = result.selected if self.select == "agreement" else None
        return self.run(trainer, result.labels, pred_probs, selected, number=number, finished=finished, on_fold=on_fold)

    def run(
        self,
        trainer: FoldTrainer,
        labels: npt.ArrayLike,
        pred_probs: npt.ArrayLike,
        selected: npt.ArrayLike | None = None,
        *,
        number: int = 2,
        finished: Finished | None = None,
        on_fold: OnFold | None = None,
    ) -> FinalScores:
        """Train, score, judge.

        labels: (n,) given, whole numbers 0..K-1.
        pred_probs: (n, K) out of sample, of models trained on the given labels, as round 1 of INCV has them.
        selected: (n,) bool, the S of "agreement".
        number: of the round in `finished` and `on_fold`, which are as of `IterativeCV.run`.

        Raises InputError for what does not fit, or is missing for `select`.
        """
        y, k = as_labels(labels, np.shape(pred_probs)[-1] if np.ndim(pred_probs) == 2 else None)
        first = as_pred_probs(pred_probs, (len(y), k))
        if self.select == "posterior":
            s = self._learnable(y, _cut(fit_posterior(y, first))[0])
        else:
            s = self._given(y, selected, first)
        probs = self._train(trainer, y, s, k, number, finished, on_fold)
        return final_scores(y, probs, s)

    def _train(
        self,
        trainer: FoldTrainer,
        labels: IntArray,
        selected: BoolArray,
        n_classes: int,
        number: int,
        finished: Finished | None,
        on_fold: OnFold | None,
    ) -> PredProbs:
        """Probabilities of all images (n, K), by models trained on `selected`, averaged over the repeats."""
        folds = {}
        for repeat in range(self.repeats):
            parts = stratified_parts(labels, self.n_folds, np.random.default_rng([self.seed, number, repeat]))
            for part in range(self.n_folds):
                key = FoldKey(number, repeat * self.n_folds + part + 1)
                held_out = parts == part
                train_idx = np.flatnonzero(selected & ~held_out)
                eval_idx = np.flatnonzero(~selected | held_out)
                folds[key] = Fold(train_idx, labels[train_idx], eval_idx, seed_of(self.seed, *key))
        total = np.zeros((len(labels), n_classes), np.float32)
        for key, answer in train_folds(
            trainer, folds, n_classes, n_rounds=number, finished=finished, on_fold=on_fold
        ).items():
            eval_idx = folds[key].eval_idx
            total[eval_idx] += answer / np.where(selected[eval_idx], 1, self.n_folds)[:, None]
        return total / total.sum(axis=1, keepdims=True)

    def _learnable(self, labels: IntArray, quality: FloatArray) -> BoolArray:
        """(n,) what is more probably right than wrong, and of each class the best of it in any case."""
        return (quality >= FLAG_BELOW) | (_rank_in_class(labels, -quality) < 2 * self.n_folds)

    def _given(self, labels: IntArray, selected: npt.ArrayLike | None, pred_probs: PredProbs) -> BoolArray:
        s = np.asarray(selected)
        if s.dtype != np.bool_ or s.shape != labels.shape:
            what = "missing" if selected is None else f"{s.dtype} of shape {s.shape}"
            raise InputError(f"selected is {what}; agreement takes one True or False an image, shape ({len(labels)},).")
        own = pred_probs[np.arange(len(labels)), labels]
        return s | (_rank_in_class(labels, -np.where(s, 1 + own, own)) < 2 * self.n_folds)


def final_scores(labels: IntArray, pred_probs: PredProbs, selected: BoolArray) -> FinalScores:
    """What follows for the labels (n,) from probabilities (n, K) of models trained on S, `selected` (n,)."""
    posterior = fit_posterior(labels, pred_probs)
    quality, suggested, suggested_prob = _cut(posterior)
    flags = flags_of_best_f1(1 - quality) if posterior.fits else quality < FLAG_BELOW
    return FinalScores(labels, pred_probs, selected, posterior, quality, flags, suggested, suggested_prob)


def flags_of_best_f1(wrong: npt.ArrayLike) -> BoolArray:
    """Flag the most doubtful labels, as many as give the largest expected F1; (n,).

    wrong: (n,) probabilities that each label is wrong, calibrated. For k flags the expected F1 is about
    2·Σ wrong of the flagged / (k + Σ wrong of all) (Lipton et al., 2014: the threshold is half the best F1, so
    never above ½). Equal probabilities are flagged together, none below `LEAST_FLAGGED`.
    """
    w = np.asarray(wrong, dtype=np.float64)
    ordered = np.sort(w)[::-1]
    hits = np.cumsum(ordered)
    best = int(np.argmax(hits / (np.arange(1, len(w) + 1) + hits[-1])))
    return w >= max(float(ordered[best]), LEAST_FLAGGED)


def _cut(posterior: Posterior) -> tuple[FloatArray, IntArray, FloatArray]:
    """Quality, suggestion and its probability (n,) of the posterior to the power `CREDIT`."""
    n = len(posterior.labels)
    quality, best, best_prob = np.empty(n), np.empty(n, np.int64), np.empty(n)
    for rows, j in posterior.rows():
        if posterior.fits:
            j = j**CREDIT
            j /= j.sum(axis=1, keepdims=True)
        quality[rows] = j[np.arange(len(j)), posterior.labels[rows]]
        best[rows] = j.argmax(axis=1)
        best_prob[rows] = j.max(axis=1)
    return quality, best, best_prob


def _rank_in_class(labels: IntArray, doubt: npt.NDArray[np.floating]) -> IntArray:
    """(n,) place of each image among those of its class, by ascending doubt."""
    order = np.lexsort((doubt, labels))
    counts = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
