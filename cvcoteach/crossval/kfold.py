"""Stratified parts, and plain K-fold cross-validation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray, IntArray, PredProbs, as_labels, check_at_least
from cvcoteach.crossval.trainer import Finished, Fold, FoldKey, FoldTrainer, OnFold, seed_of, train_folds


def stratified_parts(labels: IntArray, n_parts: int, rng: np.random.Generator) -> IntArray:
    """A part 0..n_parts-1 for each image, (n,): at random, with each class spread evenly over the parts.

    Sizes differ by one at most, of the parts as of a class within them.
    """
    # numpy sorts 16 bits by radix, several times as fast
    keys = labels.astype(np.uint16) if labels.max(initial=0) < 1 << 16 else labels
    order = rng.permutation(len(labels))
    order = order[np.argsort(keys[order], kind="stable")]
    parts = np.empty(len(labels), np.int64)
    parts[order] = np.arange(len(labels)) % n_parts  # dealt like cards, on across the classes
    return parts


def cross_validate(
    trainer: FoldTrainer,
    labels: npt.ArrayLike,
    *,
    n_folds: int = 5,
    seed: int = 0,
    n_classes: int | None = None,
    finished: Finished | None = None,
    on_fold: OnFold | None = None,
) -> PredProbs:
    """Plain stratified K-fold cross-validation: (n, K) probabilities, each by a model that never saw the image.

    labels: (n,) whole numbers 0..K-1. finished: results of earlier folds, filled as folds finish.

    Raises InputError for labels that do not fit and for a trainer whose answer is no probability.
    """
    y, k = as_labels(labels, n_classes)
    check_at_least("n_folds", n_folds, 2)
    everything = np.arange(len(y))
    nothing = np.zeros(len(y), np.bool_)
    parts = parts_of(y, n_folds, seed, 1)
    return score_parts(trainer, y, k, nothing, everything, parts, n_folds, seed, 1, 1, finished, on_fold)


def parts_of(labels: IntArray, n_folds: int, seed: int, number: int) -> IntArray:
    return stratified_parts(labels, n_folds, np.random.default_rng([seed, number]))


def score_parts(
    trainer: FoldTrainer,
    labels: IntArray,
    n_classes: int,
    selected: BoolArray,
    scored: IntArray,
    parts: IntArray,
    n_folds: int,
    seed: int,
    number: int,
    n_rounds: int,
    finished: Finished | None,
    on_fold: OnFold | None,
) -> PredProbs:
    """Probabilities of the images `scored` (m, K): trained on `selected` and the other `parts` (m,) of `scored`."""
    folds = {}
    for part in range(n_folds):
        in_training = selected.copy()
        in_training[scored[parts != part]] = True
        train_idx = np.flatnonzero(in_training)
        fold_seed = seed_of(seed, number, part + 1)
        folds[FoldKey(number, part + 1)] = Fold(train_idx, labels[train_idx], scored[parts == part], fold_seed)
    answers = train_folds(trainer, folds, n_classes, n_rounds=n_rounds, finished=finished, on_fold=on_fold)
    probs = np.empty((len(scored), n_classes), np.float32)
    for key, answer in answers.items():
        probs[parts == key.fold - 1] = answer
    return probs
