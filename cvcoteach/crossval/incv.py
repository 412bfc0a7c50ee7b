"""Iterative Noisy Cross-Validation: rounds of cross-validation, each on what the rounds before it selected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from cvcoteach._memory import check_memory
from cvcoteach._validation import (
    InputError,
    IntArray,
    as_labels,
    check_at_least,
    check_classes_repeat,
    near,
    set_counts,
)
from cvcoteach.crossval import agreement as agreement_theory
from cvcoteach.crossval.groups import as_groups, n_units
from cvcoteach.crossval.kfold import OutOfSampleScorer, parts_of_round
from cvcoteach.crossval.result import CrossValResult, Round, Select
from cvcoteach.crossval.selection_rules import keep_and_drop_by_part, what_to_learn
from cvcoteach.crossval.trainer import Finished, FoldTrainer, OnFold
from cvcoteach.crossval.views import View, as_trainers, check_views, finished_of, fused
from cvcoteach.data.splits import Names, as_splits, held_out, rows_by_split
from cvcoteach.issues.flags import PROBABLY_WRONG
from cvcoteach.issues.strangers import strangers
from cvcoteach.noise_model.by_split import fit_by_split
from cvcoteach.noise_model.posterior import Posterior, fit_posterior
from cvcoteach.noise_model.top_probs import Answer, TopProbs, latest, many, mean_of, rows_of

SELECT: tuple[Select, ...] = get_args(Select)

MAX_REMOVE_RATIO = 2.0
_MOST_ROUNDS = 1000
"""Bound of the automatic remove ratio, min(2, ε / (1 - ε)); INCV, algorithm 1."""


@dataclass(frozen=True)
class IterativeCV:
    """Iterative Noisy Cross-Validation, with a choice of the rule that selects.

    In each round models trained from scratch on what was selected so far score images that they did not train on.

    `select="posterior"` scores every image in every round. The first round is plain cross-validation on the given
    labels. From the probabilities so far the posterior over the true labels is computed, and the models of the next
    round learn the labels that it takes for right, or corrected ones where most are wrong (`what_to_learn`). An image
    of S is scored by the model that left its part out, one outside S by all models of the round. That mends the
    one-way street of algorithm 1, where a wrong label once in S is never scored again. No model learned from an image
    that it scores, but the image's given label had a small part in selecting and correcting others.

    `select="agreement"` is the published algorithm 1: the candidates C are split in two, and a model trained on S and
    the rest of C scores each part; images whose prediction is the given label join S, the worst of the others are
    dropped. Unlike in the published code, no label of a scored image ever reaches the trainer, each training starts
    afresh, and the noise pattern need not be known: ε̂ takes it from the confusions of round 1. ε̂ pools the agreement
    of all parts of that round, where the paper reads it off the first: same expectation, less variance.

    References:
        Chen, Liao, Chen, Zhang, Understanding and Utilizing Deep Neural Networks Trained with Noisy Labels, ICML 2019.
    """

    select: Select = "posterior"
    """The rule that selects."""
    n_rounds: int | None = None
    """Number of rounds; None: 3 for "posterior", the paper's 4 for "agreement"."""
    n_folds: int | None = None
    """Folds of every round; None: see `folds`."""
    remove_ratio: float | Literal["auto"] = "auto"
    """Images that "agreement" drops for each one kept, at most; "auto": by ε̂ of round 1."""
    seed: int = 0
    """Of all splits and trainings."""

    def __post_init__(self) -> None:
        if self.select not in SELECT:
            raise InputError(f"select is {self.select!r}; {near(str(self.select), SELECT)}")
        set_counts(self, {"n_rounds": 1, "n_folds": 2, "seed": 0})
        if self.n_rounds is not None and self.n_rounds > _MOST_ROUNDS:
            raise InputError(f"n_rounds is {self.n_rounds:,}; it takes up to {_MOST_ROUNDS:,}.")
        if self.remove_ratio != "auto":
            if isinstance(self.remove_ratio, str):
                raise InputError(f"remove_ratio is {self.remove_ratio!r}; it takes a number from 0 on, or 'auto'.")
            check_at_least("remove_ratio", self.remove_ratio, 0)

    def folds(self, n_images: int) -> tuple[int, ...]:
        """Return the folds of each round on so many images, or groups of images.

        Without `n_folds` that is the paper's 2 for "agreement". For "posterior" it is 2 in round 1, which only has to
        tell most right labels from wrong ones, and 5 later. More folds in round 1 find nothing more, not even in a few
        hundred images (wine, breast cancer and digits of scikit-learn, 2 to 40 % wrong), and take longer.
        """
        if self.select == "agreement":
            return (self.n_folds or 2,) * (self.n_rounds or 4)
        later = self.n_folds or min(5, n_images)
        return (self.n_folds or 2, *(later,) * ((self.n_rounds or 3) - 1))

    def run(
        self,
        trainer: FoldTrainer | Sequence[FoldTrainer],
        labels: npt.ArrayLike,
        *,
        n_classes: int | None = None,
        groups: npt.ArrayLike | None = None,
        splits: npt.ArrayLike | None = None,
        finished: Finished | Sequence[Finished] | None = None,
        on_fold: OnFold | None = None,
    ) -> CrossValResult:
        """Run all rounds; "agreement" ends early where the candidates run out.

        Args:
            trainer: Trains and answers each fold; or, for "posterior", several whose models err differently, such as
                heads on features and networks from scratch. The probabilities of such views are fused
                (`fuse_pred_probs`) round by round, and all learn from the same selection.
            labels: (n,) given labels, whole numbers 0..K-1.
            n_classes: K; None: the largest label + 1.
            groups: (n,) group of each image, of any kind, such as its patient or video: no model judges an image of a
                group that it trained on. None: each image stands alone.
            splits: (n,) name of the split of each image, such as train and test: models learn from train alone, or from
                the largest one where none is called so, and all of them judge the others, whose noise is estimated
                apart.
            finished: Answers of earlier folds by `FoldKey`; a list of them for several trainers. Each new one lands
                there the moment it exists, and one that is there is not trained again. The caller makes sure that they
                belong to the same run.
            on_fold: Called before and after each training.

        Returns:
            What every round saw and decided, and the probabilities and the posterior that follow.

        Raises:
            InputError: For labels or groups that do not fit, classes of one image each, fewer images or groups than
                folds, and a trainer whose answer is no probability; the folds finished by then are in `finished`.
        """
        y, k = as_labels(labels, n_classes)
        check_classes_repeat(y)
        trainers = as_trainers(trainer, len(y))
        check_views(len(trainers), len(y), k, self.select)
        found = None if groups is None else as_groups(groups, len(y))
        names = None if splits is None else as_splits(splits, len(y))
        scorers = [
            OutOfSampleScorer(each, k, 1, self.seed, there, on_fold, found, held_out(names), y, view)
            for view, (each, there) in enumerate(
                zip(trainers, finished_of(finished, len(trainers)), strict=True), start=1
            )
        ]
        folds = self.folds(scorers[0].n_units(len(y)))
        scorers = [replace(scorer, n_rounds=len(folds)) for scorer in scorers]
        scorer = scorers[0]
        scorer.check_enough_images(len(y), max(folds))
        if not many(len(y), k):
            n_arrays = (len(folds) + 1) * len(scorers)
            check_memory(4.0 * len(y) * k * n_arrays, f"the probabilities of {len(y):,} images")
        result = self._by_agreement(scorer, y) if self.select == "agreement" else self._by_posterior(scorers, y)
        posterior = result.posterior
        if names is not None and scorer.held_out is not None:
            probs = result.pred_probs if self.select == "posterior" else result.rounds[0].pred_probs
            posterior = posterior_of(y, probs, names)
        return replace(result, splits=names, posterior=_with_strangers(posterior, scorers))

    def _by_posterior(self, scorers: Sequence[OutOfSampleScorer], labels: IntArray) -> CrossValResult:
        n, first = len(labels), scorers[0]
        inside, learnable = first.learned_from, first.learnable(n)
        folds = self.folds(first.n_units(n))
        learned, selected = labels, learnable
        answers: list[list[Answer]] = [[] for _ in scorers]  # of each view
        rounds: list[Round] = []
        for number, n_folds in enumerate(folds, start=1):
            parts = first.parts(number, labels, n_folds)
            for scorer, of_view in zip(scorers, answers, strict=True):
                of_view.append(scorer.score_all(number, parts, learned, selected))
            probs, _ = fused([of_view[-1] for of_view in answers], labels, inside)
            views = [_evidence(of_view, labels) for of_view in answers]
            evidence, weights = fused(views, labels, inside)
            posterior = fit_posterior(labels[inside], rows_of(evidence, inside))
            before = selected
            if number < len(folds):
                # so many of each class that there are two per part to learn it from
                learned, selected = labels.copy(), np.zeros(n, np.bool_)
                learned[inside], selected[inside] = what_to_learn(posterior, 2 * folds[number])
            agreement, by_agreement = _agreement(labels[inside], rows_of(probs, inside))
            rounds.append(
                Round(
                    scored=np.arange(n),
                    pred_probs=probs,
                    kept=np.flatnonzero(selected & ~before),
                    dropped=np.flatnonzero(before & ~selected),
                    agreement=agreement,
                    noise_rate=float(posterior.wrong.mean()) if posterior.has_signal else by_agreement,
                    selected=selected,
                    candidate=learnable & ~selected,
                    learned=learned,
                )
            )
        return CrossValResult(
            labels=labels,
            pred_probs=evidence,
            last_round=np.full(n, len(rounds)),
            rounds=tuple(rounds),
            select=self.select,
            remove_ratio=0.0,
            posterior=posterior,
            views=tuple(map(View, map(np.asarray, views), weights.tolist())) if len(views) > 1 else (),
        )

    def _by_agreement(self, scorer: OutOfSampleScorer, labels: IntArray) -> CrossValResult:
        n = len(labels)
        selected, candidate = np.zeros(n, np.bool_), scorer.learnable(n)
        last_round = np.zeros(n, np.int64)
        answers: list[tuple[IntArray, Answer]] = []
        ratio = None if self.remove_ratio == "auto" else float(self.remove_ratio)
        rounds: list[Round] = []
        for number, n_folds in enumerate(self.folds(scorer.n_units(n)), start=1):
            scored = np.flatnonzero(candidate)
            groups = None if scorer.groups is None else np.unique(scorer.groups[scored], return_inverse=True)[1]
            if n_units(len(scored), groups) < n_folds:
                break
            parts = np.full(n, -1)
            parts[scored] = parts_of_round(labels[scored], n_folds, self.seed, number, groups)
            answer = scorer.score_candidates(number, parts, labels, selected)
            probs = rows_of(answer, scored)
            agreement, noise_rate = _agreement(labels[scored], probs)
            if ratio is None:  # round 1 decides for all
                ratio = min(MAX_REMOVE_RATIO, noise_rate / (1 - noise_rate)) if noise_rate < 1 else MAX_REMOVE_RATIO
            kept, dropped = keep_and_drop_by_part(labels[scored], probs, parts[scored], ratio)
            selected, candidate = selected.copy(), candidate.copy()
            selected[scored[kept]] = True
            candidate[scored[kept]] = candidate[scored[dropped]] = False
            # what is held out is judged in every round, unless its group lies in S meanwhile
            judged = scored if scorer.held_out is None else np.flatnonzero(answer.max(axis=1) > 0)
            answers.append((judged, rows_of(answer, judged)))
            last_round[judged] = number
            rounds.append(
                Round(
                    scored=judged,
                    pred_probs=answers[-1][1],
                    kept=scored[kept],
                    dropped=scored[dropped],
                    agreement=agreement,
                    noise_rate=noise_rate,
                    selected=selected,
                    candidate=candidate,
                    learned=labels,
                )
            )
        assert ratio is not None  # there are images for round 1
        return CrossValResult(
            labels=labels,
            pred_probs=latest(answers),
            last_round=last_round,
            rounds=tuple(rounds),
            select=self.select,
            remove_ratio=ratio,
            posterior=fit_posterior(labels, rounds[0].pred_probs),
        )


def posterior_of(labels: IntArray, probs: Answer, splits: Names | None) -> Posterior:
    """Return the posterior of labels (n,), with the noise of each split, where there are several, estimated apart.

    Args:
        labels: (n,) given, 0..K-1.
        probs: (n, K) by models that did not train on the image.
        splits: (n,) name of the split of each image; None: there are none.
    """
    if splits is None or held_out(splits) is None or isinstance(probs, TopProbs):  # of many classes one has to do
        return fit_posterior(labels, probs)
    return fit_by_split(labels, probs, list(rows_by_split(splits).values()))


def _with_strangers(posterior: Posterior, scorers: Sequence[OutOfSampleScorer]) -> Posterior:
    """Look for images that belong to no class, where there is a signal and a trainer has features (n, d)."""
    n = len(posterior.labels)
    for scorer in scorers:
        features = getattr(scorer.trainer, "features", None)
        if isinstance(features, np.ndarray) and features.ndim == 2 and len(features) == n and posterior.has_signal:
            probs = posterior.pred_probs
            agreed = probs.argmax(axis=1) == posterior.labels
            found = strangers(features, posterior.labels, agreed & (posterior.wrong < PROBABLY_WRONG), scorer.groups)
            # an odd image of a class that models see in it is no stranger
            return posterior.with_strangers(np.where(agreed & (probs.max(axis=1) > 0.5), 0, found))
    return posterior


def _evidence(rounds: Sequence[Answer], labels: IntArray) -> Answer:
    """Return the mean (n, K) of the rounds (n, K) whose models learned from a selection; round 1 while it is alone."""
    return mean_of(rounds[1:] or rounds, labels)


def _agreement(labels: IntArray, pred_probs: Answer) -> tuple[float, float]:
    """Return the share of images whose prediction is the given label, and the noise rate ε̂ that explains it."""
    predicted, k = pred_probs.argmax(axis=1), pred_probs.shape[1]
    share = float((predicted == labels).mean())
    pattern = agreement_theory.observed_concentration(labels, predicted, k)
    return share, agreement_theory.noise_rate_from_agreement(share, k, pattern)
