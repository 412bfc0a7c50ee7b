"""Stratified parts, models that leave one part out each, and plain K-fold cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray, InputError, IntArray, PredProbs, as_count, as_labels
from cvcoteach.crossval.groups import as_groups, grouped_parts, members, n_units
from cvcoteach.crossval.trainer import Finished, Fold, FoldKey, FoldTrainer, OnFold, seed_of, train_folds
from cvcoteach.data.splits import as_splits, held_out
from cvcoteach.noise_model.top_probs import Answer, many, top_probs, whole


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
    splits: npt.ArrayLike | None = None,
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
        splits: (n,) name of the split of each image: models learn from train alone, and all of them judge the others.
        finished: Answers of earlier folds; filled as folds finish.
        on_fold: Called before and after each training.

    Returns:
        (n, K) probabilities, each by a model that never saw the image.

    Raises:
        InputError: For labels that do not fit, fewer images than folds, and a trainer whose answer is no probability.
    """
    y, k = as_labels(labels, n_classes)
    n_folds = as_count("n_folds", n_folds, 2)
    found = None if groups is None else as_groups(groups, len(y))
    out = None if splits is None else held_out(as_splits(splits, len(y)))
    scorer = OutOfSampleScorer(trainer, k, 1, seed, finished, on_fold, found, out)
    scorer.check_enough_images(len(y), n_folds)
    return np.asarray(scorer.score_all(1, scorer.parts(1, y, n_folds), y, scorer.learnable(len(y))))


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
    held_out: BoolArray | None = None
    """(n,) images of other splits than the one learned from, such as test; None where there are none."""
    given: IntArray | None = None
    """(n,) given labels, which no model sees; with them probabilities are `TopProbs` where there are `many`."""
    view: int = 1
    """Which of several trainers it is, from 1."""

    @property
    def learned_from(self) -> IntArray | slice:
        """The images that models may learn from: rows, ascending, or a slice of all."""
        return slice(None) if self.held_out is None else np.flatnonzero(~self.held_out)

    def learnable(self, n: int) -> BoolArray:
        """Return which of n images models may learn from, (n,)."""
        return np.ones(n, np.bool_) if self.held_out is None else ~self.held_out

    def n_units(self, n: int) -> int:
        """Return how many things of n images there are to divide into parts, see `groups.n_units`."""
        rows = self.learned_from
        groups = None if self.groups is None else self.groups[rows]
        return n_units(n if self.held_out is None else int((~self.held_out).sum()), groups)

    def check_enough_images(self, n: int, n_folds: int) -> None:
        """Raise InputError where the images learned from, of n, or their groups cannot fill n_folds parts."""
        units = self.n_units(n)
        if units < n_folds:
            what = "images are" if self.groups is None else "groups are" if units > 1 else "group is"
            where = "" if self.held_out is None else " of the split that is learned from"
            raise InputError(f"{units} {what} fewer than n_folds = {n_folds}{where}; each part needs one.")

    def parts(self, number: int, labels: IntArray, n_folds: int) -> IntArray:
        """Return the part (n,) of each image in a round, as `parts_of_round`; -1 for what is held out."""
        rows = self.learned_from
        groups = None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1]
        parts = np.full(len(labels), -1)
        parts[rows] = parts_of_round(labels[rows], n_folds, self.seed, number, groups)
        return parts

    def score_all(self, number: int, parts: IntArray, learned: IntArray, selected: BoolArray) -> Answer:
        """Score all images by models of `selected`, each without one part.

        A selected image, or one whose group holds a selected image, is scored by the model that left its part out, any
        other image, and all that is held out, by all models that did not train on its group.

        Args:
            number: Round, from 1.
            parts: (n,) part of each image, 0..n_parts-1, -1 for what is held out.
            learned: (n,) class that each image is learned as.
            selected: (n,) S, none of it held out.

        Returns:
            (n, K) probabilities.
        """
        trained_on = [selected & (parts != part) for part in range(int(parts.max()) + 1)]
        unseen = ~selected if self.groups is None else ~members(self.groups, selected)
        scored = [unseen | (parts == part) for part in range(len(trained_on))]
        return self._mean(number, learned, trained_on, self._with_held_out(scored, trained_on))

    def score_candidates(self, number: int, parts: IntArray, labels: IntArray, selected: BoolArray) -> Answer:
        """Score the candidates, and what is held out, by models of `selected` and of all candidates but one part.

        Images of `selected` whose group holds a candidate of that part are left out with it.

        Args:
            number: Round, from 1.
            parts: (n,) part of each candidate, -1 for all other images.
            labels: (n,) given labels.
            selected: (n,) S.

        Returns:
            (n, K) probabilities, 0 where `parts` is -1, save of what is held out; of that where all models trained on
            its group.
        """
        trained_on = [selected | (parts >= 0) & (parts != part) for part in range(int(parts.max()) + 1)]
        scored = [parts == part for part in range(len(trained_on))]
        if self.groups is not None:
            trained_on = [
                train & ~members(self.groups, held_out) for train, held_out in zip(trained_on, scored, strict=True)
            ]
        return self._mean(number, labels, trained_on, self._with_held_out(scored, trained_on))

    def _with_held_out(self, scored: Sequence[BoolArray], trained_on: Sequence[BoolArray]) -> Sequence[BoolArray]:
        """Return what each model scores, what is held out among it, unless the model trained on its group."""
        if self.held_out is None:
            return scored
        if self.groups is None:
            return [each | self.held_out for each in scored]
        return [
            each | (self.held_out & ~members(self.groups, train))
            for each, train in zip(scored, trained_on, strict=True)
        ]

    def _mean(
        self, number: int, learned: IntArray, trained_on: Sequence[BoolArray], scored: Sequence[BoolArray]
    ) -> Answer:
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
            given=self.given,
            finished=self.finished,
            on_fold=self.on_fold,
            view=self.view,
        )
        judged = [(folds[key].eval_idx, answer) for key, answer in answers.items()]
        mean = _MeanOfFolds(judged, np.sum(scored, axis=0, dtype=np.float32), self.n_classes)
        if self.given is not None and many(len(learned), self.n_classes):
            return top_probs(mean, self.given)
        return whole(mean)


@dataclass(frozen=True, eq=False)
class _MeanOfFolds:
    """The mean of the answers for each image, computed as it is read."""

    judged: Sequence[tuple[IntArray, Answer]]
    """Indices of the images of each fold, ascending, and their probabilities."""
    times: npt.NDArray[np.float32]
    """(n,) how many folds judged each image; where none did, the mean is 0."""
    n_classes: int
    """K."""

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.times), self.n_classes

    def __getitem__(self, rows: slice) -> PredProbs:
        total = np.zeros((rows.stop - rows.start, self.n_classes), np.float32)
        for images, answer in self.judged:
            first, end = np.searchsorted(images, (rows.start, rows.stop))
            total[images[first:end] - rows.start] += answer[first:end]
        total /= np.maximum(self.times[rows], 1)[:, None]
        return total
