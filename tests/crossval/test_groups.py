"""Images of a group are never on both sides of a fold."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedGroupKFold

from cvcoteach._validation import InputError
from cvcoteach.crossval.groups import as_groups, grouped_parts, joined
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate, parts_of_round, stratified_parts
from cvcoteach.training.head_trainer import HeadTrainer
from tests.fakes import NearestMeans, Table, clouds


def grouped(n: int, n_groups: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels that mostly follow the group, and groups of very different sizes."""
    rng = np.random.default_rng(seed)
    groups = (n_groups * rng.random(n) ** 2).astype(np.int64)
    mostly = rng.integers(n_classes, size=n_groups)
    return np.where(rng.random(n) < 0.8, mostly[groups], rng.integers(n_classes, size=n)), groups


def spread(labels: np.ndarray, parts: np.ndarray, n_parts: int) -> float:
    """How unevenly the classes lie in the parts: the mean deviation from an equal share, 0 for none."""
    counts = np.zeros((n_parts, labels.max() + 1))
    np.add.at(counts, (parts, labels), 1)
    return float(np.abs(counts / counts.sum(axis=0) - 1 / n_parts).mean())


@pytest.mark.parametrize("n_parts", [2, 5])
def test_no_group_is_in_two_parts_and_classes_are_spread_as_by_scikit_learn_or_better(n_parts: int) -> None:
    ours, theirs = [], []
    for seed in range(8):
        labels, groups = grouped(2000, 200, 6, seed)
        parts = grouped_parts(labels, groups, n_parts, np.random.default_rng(seed))
        assert all(len(np.unique(parts[groups == group])) == 1 for group in np.unique(groups))
        assert len(np.unique(parts)) == n_parts
        folds = StratifiedGroupKFold(n_parts, shuffle=True, random_state=seed).split(labels, labels, groups)
        reference = np.empty(len(labels), np.int64)
        for part, (_, held_out) in enumerate(folds):
            reference[held_out] = part
        ours.append(spread(labels, parts, n_parts))
        theirs.append(spread(labels, reference, n_parts))
    assert np.mean(ours) <= 1.05 * np.mean(theirs)


def test_images_that_are_alone_even_out_the_classes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=1000)
    groups = np.arange(1000)
    groups[:300] = rng.integers(40, size=300)  # pairs and more, of any class
    parts = grouped_parts(labels, groups, 5, rng)
    sizes = np.bincount(parts)
    assert sizes.max() - sizes.min() <= 4
    for label in range(4):
        counts = np.bincount(parts[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_groups_of_one_image_each_change_nothing() -> None:
    labels = np.random.default_rng(0).integers(3, size=100)
    parts = parts_of_round(labels, 5, 7, 2, np.arange(100)[::-1])
    assert (parts == stratified_parts(labels, 5, np.random.default_rng([7, 2]))).all()


def test_half_a_million_images_in_groups_take_seconds() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(100, size=500_000), rng.permutation(np.arange(500_000) // 10)
    started = time.perf_counter()
    grouped_parts(labels, groups, 5, rng)
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("select", ["posterior", "agreement"])
@pytest.mark.parametrize("wrong", [0.1, 0.7])
def test_no_model_judges_a_group_that_it_trained_on(select: Any, wrong: float) -> None:
    x, _, labels = clouds(400, 4, wrong, 3)
    groups = np.random.default_rng(1).integers(60, size=400)
    trainer = Table(NearestMeans(x, 4).fit_predict(np.arange(400), labels, np.arange(400), 0))
    result = IterativeCV(select, seed=1).run(trainer, labels, groups=groups)
    assert len(trainer.asked) > 4
    for fold in trainer.asked:
        assert len(fold.train_idx) > 0
        assert not np.intersect1d(groups[fold.train_idx], groups[fold.eval_idx]).size
    assert np.isfinite(result.pred_probs).all()
    np.testing.assert_allclose(result.pred_probs[result.rounds[0].scored].sum(axis=1), 1, atol=1e-3)


def test_plain_cross_validation_takes_names_of_groups() -> None:
    _, _, labels = clouds(60, 3, 0.1, 0)
    names = np.array([f"patient {i % 12}" for i in range(60)])
    trainer = Table(np.full((60, 3), 1 / 3))
    cross_validate(trainer, labels, groups=names, n_folds=4)
    for fold in trainer.asked:
        assert not np.intersect1d(names[fold.train_idx], names[fold.eval_idx]).size


def clips(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two hundred clips of ten near-identical digits, twenty mislabelled as a whole: features, wrong, given, clip."""
    rng = np.random.default_rng(seed)
    digits, true = load_digits(return_X_y=True)
    chosen = rng.permutation(len(true))[:200]
    given = true[chosen].copy()
    given[:20] = (given[:20] + rng.integers(1, 10, 20)) % 10
    features = np.repeat(digits[chosen], 10, axis=0) + rng.normal(0, 0.5, (2000, 64))
    return features, np.repeat(np.arange(200) < 20, 10), np.repeat(given, 10), np.repeat(np.arange(200), 10)


@pytest.mark.slow
def test_more_clips_mislabelled_as_a_whole_are_found_with_groups() -> None:
    recalls, precisions, without = [], [], []
    for seed in range(4):
        features, wrong, given, clip = clips(seed)
        trainer = HeadTrainer(features, 10, device="cpu", threads=1)
        flags = IterativeCV(seed=seed).run(trainer, given, groups=clip).issues().is_label_issue
        recalls.append(flags[wrong].mean())
        precisions.append(wrong[flags].mean())
        without.append(IterativeCV(seed=seed).run(trainer, given).issues().is_label_issue[wrong].mean())
    assert np.mean(recalls) >= 0.75
    assert np.mean(precisions) >= 0.6
    assert np.mean(without) < np.mean(recalls) - 0.2  # some look strange: nine others are too near, and no more are


def test_groups_that_do_not_fit_get_a_sentence() -> None:
    labels = [0, 1] * 10
    rounds = IterativeCV()
    table = Table(np.full((20, 2), 0.5))
    with pytest.raises(InputError, match=r"groups has 19 rows, but labels has 20; it takes one group for each image"):
        rounds.run(table, labels, groups=range(19))
    with pytest.raises(InputError, match=r"2 of 20 groups are missing, the first is groups\[3\]"):
        rounds.run(table, labels, groups=["a"] * 3 + [None] * 2 + ["b"] * 15)
    with pytest.raises(InputError, match=r"1 of 20 groups is missing, the first is groups\[0\]"):
        rounds.run(table, labels, groups=[np.nan, *range(19)])
    with pytest.raises(InputError, match=r"1 group is fewer than n_folds = 2; each part needs one"):
        rounds.run(table, labels, groups=[0] * 20)
    with pytest.raises(InputError, match=r"groups has shape \(20, 1\)"):
        rounds.run(table, labels, groups=np.zeros((20, 1)))


def test_numbers_of_groups_say_nothing_but_who_belongs_together() -> None:
    assert as_groups(["b", "a", "b", 7], 4).tolist() == [0, 1, 0, 2]
    assert joined(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])).tolist() == [0, 0, 0, 1]
    assert joined(None, np.array([0, 1])).tolist() == [0, 1]
    assert joined(None, None) is None
