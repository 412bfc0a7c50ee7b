"""The last word on every label: models trained on labels taken for right judge all images that they never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import (
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
from cvcoteach.crossval.incv import CrossValResult
from cvcoteach.crossval.kfold import stratified_parts
from cvcoteach.crossval.trainer import Finished, Fold, FoldKey, FoldTrainer, OnFold, seed_of, train_folds
from cvcoteach.issues.flags import PROBABLY_WRONG, flags_of
from cvcoteach.issues.label_issues import LabelIssues, issues_of
from cvcoteach.noise_model.posterior import Posterior, fit_posterior

Select = Literal["posterior", "agreement"]
SELECT = ("posterior", "agreement")

SURE = 0.7
"""Where there are several passes, models learn the true class wherever the posterior is at least this sure of it.

Chosen by calibration on the labels random2 of CIFAR-10N, and on parts of them where 25 to 40 % are wrong.
"""

HEAD_PASSES = 2
"""Passes for heads on features, which take seconds."""


@dataclass(frozen=True, eq=False)
class FinalScores:
    """What models trained on S say about every image, S included, and what follows for its label."""

    labels: IntArray
    """(n,) given labels."""
    pred_probs: PredProbs
    """(n, K) out of sample: the mean over repeats and passes."""
    selected: BoolArray
    """(n,) what the models of the last pass learned from, each without the fold it judges."""
    learned: IntArray
    """(n,) the class that each of the selected was learned as."""
    posterior: Posterior
    """Of these probabilities."""
    is_label_issue: BoolArray
    """(n,) flagged; see `issues.flags`."""

    @property
    def label_quality(self) -> FloatArray:
        """(n,) probability that the given label is right, in [0, 1]."""
        return self.posterior.label_quality

    @property
    def wrong(self) -> FloatArray:
        """(n,) probability that the given label is wrong, in [0, 1]."""
        return self.posterior.wrong

    @property
    def suggested(self) -> IntArray:
        """(n,) the most probable true class."""
        return self.posterior.suggested

    @property
    def suggested_prob(self) -> FloatArray:
        """(n,) its probability, in [0, 1]."""
        return self.posterior.suggested_prob

    def issues(self, class_names: Sequence[str] | None = None) -> LabelIssues:
        """All of it as label issues. class_names: (K,), or their numbers."""
        return issues_of(self.posterior, class_names=class_names, flags=self.is_label_issue)


@dataclass(frozen=True)
class FinalScoring:
    """Scores every image out of sample by models trained on S: cross-validation inside S.

    An image of S is judged by the models of the fold that left it out, one outside S by all of them. That mends
    INCV's one-way street, where a wrong label once in S is never looked at again.

    S holds what the posterior of round 1 takes for right ("posterior"), or what INCV selected ("agreement", as in the
    paper). Each class keeps at least two images a fold to learn from, its least doubtful ones.

    With several passes S holds every image whose true class the posterior before the pass is sure of, and it is
    learned as that class. Where many labels are wrong, those that stay in S make the models believe in them; each pass
    leaves fewer, which calibrates the posterior. The passes are averaged. No model learned from an image that it
    judges; but the image's given label had a small part in correcting others.
    """

    select: Select = "posterior"
    n_folds: int = 5
    repeats: int = 1
    """Cross-validations of each pass with other splits and seeds, averaged."""
    passes: int = 1
    """How often all images are scored; more than once for "posterior" only."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("n_folds", self.n_folds, 2)
        check_at_least("repeats", self.repeats, 1)
        check_at_least("passes", self.passes, 1)
        if self.select not in SELECT:
            raise InputError(f"select is {self.select!r}; {near(str(self.select), SELECT)}")

    @property
    def n_trainings(self) -> int:
        """Models trained."""
        return self.n_folds * self.repeats * self._n_passes

    @property
    def _n_passes(self) -> int:
        return self.passes if self.select == "posterior" else 1

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
        number: of the first pass's round in `finished` and `on_fold`, which are as of `IterativeCV.run`.

        Raises InputError for what does not fit, or is missing for `select`.
        """
        y, k = as_labels(labels, np.shape(pred_probs)[-1] if np.ndim(pred_probs) == 2 else None)
        first = as_pred_probs(pred_probs, (len(y), k))
        learned, last = y, number + self._n_passes - 1
        passes: list[PredProbs] = []
        for this in range(number, last + 1):
            if self.select == "agreement":
                s = self._given(y, selected, first)
            elif self.passes == 1:
                s = self._trusted(fit_posterior(y, first))
            else:
                learned, s = self._corrected(fit_posterior(y, passes[-1] if passes else first))
            passes.append(self._train(trainer, y, learned, s, k, this, last, finished, on_fold))
        probs = np.mean(passes, axis=0)
        return FinalScores(y, probs, s, learned, *verdict(y, probs))

    def _train(
        self,
        trainer: FoldTrainer,
        labels: IntArray,
        learned: IntArray,
        selected: BoolArray,
        n_classes: int,
        number: int,
        n_rounds: int,
        finished: Finished | None,
        on_fold: OnFold | None,
    ) -> PredProbs:
        """Probabilities of all images (n, K), by models trained on `selected` as `learned`."""
        folds = {}
        for repeat in range(self.repeats):
            parts = stratified_parts(labels, self.n_folds, np.random.default_rng([self.seed, number, repeat]))
            for part in range(self.n_folds):
                key = FoldKey(number, repeat * self.n_folds + part + 1)
                held_out = parts == part
                train_idx = np.flatnonzero(selected & ~held_out)
                eval_idx = np.flatnonzero(~selected | held_out)
                folds[key] = Fold(train_idx, learned[train_idx], eval_idx, seed_of(self.seed, *key))
        total = np.zeros((len(labels), n_classes), np.float32)
        for key, answer in train_folds(
            trainer, folds, n_classes, n_rounds=n_rounds, finished=finished, on_fold=on_fold
        ).items():
            eval_idx = folds[key].eval_idx
            total[eval_idx] += answer / np.where(selected[eval_idx], 1, self.n_folds)[:, None]
        return total / total.sum(axis=1, keepdims=True)

    def _trusted(self, posterior: Posterior) -> BoolArray:
        """(n,) what is more probably right than wrong, and the best of each class in any case; all without a signal."""
        if not posterior.has_signal:
            return np.ones(len(posterior.labels), np.bool_)
        return (posterior.wrong <= PROBABLY_WRONG) | self._best_of_class(posterior)

    def _corrected(self, posterior: Posterior) -> tuple[IntArray, BoolArray]:
        """The class (n,) to learn each image as, and whether to: the posterior is sure, or it is the best of its class.

        Where there is no signal, nothing is corrected.
        """
        if not posterior.has_signal:
            return posterior.labels, self._trusted(posterior)
        best = self._best_of_class(posterior)
        learned = np.where(best, posterior.labels, posterior.suggested)
        return learned, (posterior.suggested_prob >= SURE) | best

    def _best_of_class(self, posterior: Posterior) -> BoolArray:
        """(n,) the least doubtful images of each class, two a fold: enough to learn it from."""
        return _rank_in_class(posterior.labels, -posterior.label_quality) < 2 * self.n_folds

    def _given(self, labels: IntArray, selected: npt.ArrayLike | None, pred_probs: PredProbs) -> BoolArray:
        s = np.asarray(selected)
        if s.dtype != np.bool_ or s.shape != labels.shape:
            what = "missing" if selected is None else f"{s.dtype} of shape {s.shape}"
            raise InputError(f"selected is {what}; agreement takes one True or False an image, shape ({len(labels)},).")
        own = pred_probs[np.arange(len(labels)), labels]
        return s | (_rank_in_class(labels, -np.where(s, 1 + own, own)) < 2 * self.n_folds)


def verdict(labels: IntArray, pred_probs: PredProbs) -> tuple[Posterior, BoolArray]:
    """The posterior and the flags (n,) that follow from the probabilities (n, K) of the final scoring."""
    posterior = fit_posterior(labels, pred_probs)
    return posterior, flags_of(posterior)


def _rank_in_class(labels: IntArray, doubt: npt.NDArray[np.floating]) -> IntArray:
    """(n,) place of each image among those of its class, by ascending doubt."""
    order = np.lexsort((doubt, labels))
    counts = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
