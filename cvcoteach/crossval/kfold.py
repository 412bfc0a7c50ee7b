"""Stratified parts, models that leave one part out each, and plain K-fold cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray, InputError, IntArray, PredProbs, as_labels, check_at_least
from cvcoteach.crossval.groups import as_groups, grouped_parts, members, n_units
from cvcoteach.crossval.trainer import Finished, Fold, FoldKey, FoldTrainer, OnFold, seed_of, train_folds


def stratified_parts(labels: IntArray, n_parts: int, rng: np.random.Generator) -> IntArray:
    """Return a part 0..n_parts-1 for each image, (n,): at random, with each class spread evenly over the parts.

    The sizes of the parts differ by one at most, and so do those of a class within them.
    """
    # numpy sorts 16 bits by radix, several times as fast
    keys = labels.astype(np.uint16) if labels.max(initial=0) < 1 << 16 else labels
    order = rng.permutation(len(labels))
    order = order[np.argsort(keys[order], kind="stable")]
    parts = np.empty(len(labels), np.int64)
    parts[order] = np.arange(len(labels)) % n_parts  # dealt like cards, on across the classes
    return parts


def parts_of_round(labels: IntArray, n_folds: int, seed: int, number: int, groups: IntArray | None = None) -> IntArray:
    """Return the `stratified_parts` (m,) of a round of a run, counted from 1; with `groups` none of them in two parts.

    Groups of one image each change nothing.
    """
    rng = np.random.default_rng([seed, number])
    if groups is None or n_units(len(groups), groups) == len(groups):
        return stratified_parts(labels, n_folds, rng)
    return grouped_parts(labels, groups, n_folds, rng)


def cross_validate(
    trainer: FoldTrainer,
    labels: npt.ArrayLike,
    *,
    n_folds: int = 5,
    seed: int = 0,
    n_classes: int | None = None,
    groups: npt.ArrayLike | None = None,
    finished: Finished | None = None,
    on_fold: OnFold | None = None,
) -> PredProbs:
    """Run plain stratified K-fold cross-validation, the first round of `IterativeCV`.

    Args:
        trainer: Trains and answers each fold.
        labels: (n,) given labels, whole numbers 0..K-1.
        n_folds: Number of parts, 2 or more.
        seed: Of the split and the trainings.
        n_classes: K; None: the largest label + 1.
        groups: (n,) group of each image, of any kind: no model judges an image of a group that it trained on.
        finished: Answers of earlier folds; filled as folds finish.
        on_fold: Called before and after each training.

    Returns:
        (n, K) probabilities, each by a model that never saw the image.

    Raises:
        InputError: For labels that do not fit, fewer images than folds, and a trainer whose answer is no probability.
    """
    y, k = as_labels(labels, n_classes)
    check_at_least("n_folds", n_folds, 2)
    found = None if groups is None else as_groups(groups, len(y))
    check_enough_images(len(y), n_folds, found)
    scorer = OutOfSampleScorer(trainer, k, 1, seed, finished, on_fold, found)
    return scorer.score_all(1, parts_of_round(y, n_folds, seed, 1, found), y, np.ones(len(y), np.bool_))


def check_enough_images(n: int, n_folds: int, groups: IntArray | None = None) -> None:
    """Raise InputError where n images, or their groups, cannot fill n_folds parts."""
    units = n_units(n, groups)
    if units < n_folds:
        what = "images are" if groups is None else "groups are" if units > 1 else "group is"
        raise InputError(f"{units} {what} fewer than n_folds = {n_folds}; each part needs one.")


@dataclass(frozen=True, eq=False)
class OutOfSampleScorer:
    """Trains the models of a round and averages their probabilities of images that they did not train on."""

    trainer: FoldTrainer
    """Trains and answers each fold."""
    n_classes: int
    """K."""
    n_rounds: int
    """Number of rounds of the run, for `on_fold`."""
    seed: int
    """Of the run."""
    finished: Finished | None = None
    """Answers by fold; see `train_folds`."""
    on_fold: OnFold | None = None
    """Called before and after each training."""
    groups: IntArray | None = None
    """(n,) groups 0, 1, …; no model scores an image of a group that it trained on."""
    view: int = 1
    """Which of several trainers it is, from 1."""

    def score_all(self, number: int, parts: IntArray, learned: IntArray, selected: BoolArray) -> PredProbs:
        """Score all images by models of `selected`, each without one part.

        A selected image, or one whose group holds a selected image, is scored by the model that left its part out, any
        other image by all models.

        Args:
            number: Round, from 1.
            parts: (n,) part of each image, 0..n_parts-1.
            learned: (n,) class that each image is learned as.
            selected: (n,) S.

        Returns:
            (n, K) probabilities.
        """
        trained_on = [selected & (parts != part) for part in range(int(parts.max()) + 1)]
        unseen = ~selected if self.groups is None else ~members(self.groups, selected)
        scored = [unseen | (parts == part) for part in range(len(trained_on))]
        return self._mean(number, learned, trained_on, scored)

    def score_candidates(self, number: int, parts: IntArray, labels: IntArray, selected: BoolArray) -> PredProbs:
        """Score the candidates, by models of `selected` and of all candidates but one part.

        Images of `selected` whose group holds a candidate of that part are left out with it.

        Args:
            number: Round, from 1.
            parts: (n,) part of each candidate, -1 for all other images.
            labels: (n,) given labels.
            selected: (n,) S.

        Returns:
            (n, K) probabilities, 0 where `parts` is -1.
        """
        trained_on = [selected | (parts >= 0) & (parts != part) for part in range(int(parts.max()) + 1)]
        scored = [parts == part for part in range(len(trained_on))]
        if self.groups is not None:
            trained_on = [
                train & ~members(self.groups, held_out) for train, held_out in zip(trained_on, scored, strict=True)
            ]
        return self._mean(number, labels, trained_on, scored)

    def _mean(
        self, number: int, learned: IntArray, trained_on: Sequence[BoolArray], scored: Sequence[BoolArray]
    ) -> PredProbs:
        folds = {}
        for fold, (train, evaluate) in enumerate(zip(trained_on, scored, strict=True), start=1):
            rows = np.flatnonzero(train)
            seed = seed_of(self.seed, number, fold)
            folds[FoldKey(number, fold)] = Fold(rows, learned[rows], np.flatnonzero(evaluate), seed)
        answers = train_folds(
            self.trainer,
            folds,
            self.n_classes,
            n_rounds=self.n_rounds,
            finished=self.finished,
            on_fold=self.on_fold,
            view=self.view,
        )
        total = np.zeros((len(learned), self.n_classes), np.float32)
        for key, answer in answers.items():
            total[folds[key].eval_idx] += answer
        times = np.sum(scored, axis=0, dtype=np.float32)
        total /= np.maximum(times, 1)[:, None]
        return total
