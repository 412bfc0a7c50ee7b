"""Stratified parts, and who scores what in a round."""

from __future__ import annotations

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.crossval.kfold import OutOfSampleScorer, cross_validate, stratified_parts
from cvcoteach.crossval.trainer import FoldKey
from tests.fakes import NearestMeans, Table, clouds


def test_parts_are_even_and_each_class_is_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=1003)
    parts = stratified_parts(labels, 4, rng)
    sizes = np.bincount(parts, minlength=4)
    assert sizes.max() - sizes.min() <= 1
    for label in range(7):
        within = np.bincount(parts[labels == label], minlength=4)
        assert within.max() - within.min() <= 1


def test_each_fold_scores_its_own_part_and_learns_from_all_others() -> None:
    x, _, labels = clouds(100, 3, 0.2, 0)
    trainer = Table(NearestMeans(x, 3).fit_predict(np.arange(100), labels, np.arange(100), 0))
    finished: dict[FoldKey, np.ndarray] = {}
    probs = cross_validate(trainer, labels, n_folds=4, seed=2, finished=finished)
    np.testing.assert_allclose(probs, trainer.pred_probs, atol=1e-7)
    assert sorted(finished) == [FoldKey(1, fold) for fold in (1, 2, 3, 4)]
    parts = stratified_parts(labels, 4, np.random.default_rng([2, 1]))
    for part, fold in enumerate(trainer.asked):
        assert fold.eval_idx.tolist() == np.flatnonzero(parts == part).tolist()
        assert fold.train_idx.tolist() == np.flatnonzero(parts != part).tolist()
        assert fold.train_labels.tolist() == labels[fold.train_idx].tolist()


def test_candidates_are_scored_by_models_of_s_and_of_the_other_candidates() -> None:
    trainer = Table(np.full((6, 2), 0.5))
    parts, selected = np.array([0, 1, 0, -1, -1, -1]), np.array([False, False, False, True, True, False])
    probs = OutOfSampleScorer(trainer, 2, 1, seed=0).score_candidates(1, parts, np.arange(6) % 2, selected)
    assert [fold.train_idx.tolist() for fold in trainer.asked] == [[1, 3, 4], [0, 2, 3, 4]]
    assert [fold.eval_idx.tolist() for fold in trainer.asked] == [[0, 2], [1]]
    assert probs.tolist() == [[0.5, 0.5]] * 3 + [[0, 0]] * 3


def test_what_does_not_fit_plain_cross_validation_is_one_sentence() -> None:
    with pytest.raises(InputError, match="n_folds is 1; it takes 2 or more"):
        cross_validate(Table(np.full((4, 2), 0.5)), [0, 1, 0, 1], n_folds=1)
