"""Models learn from train alone, and judge what is held out without ever having trained on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cvcoteach._validation import InputError
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.data.splits import as_splits, held_out, learned_split, rows_by_split
from cvcoteach.noise_model import simulate
from cvcoteach.training.head_trainer import HeadTrainer
from tests.fakes import NearestMeans, Table, clouds


def in_splits(n: int, n_test: int, seed: int = 0) -> np.ndarray:
    """Names of splits, some of them test and val, mixed among train."""
    names = np.array(["test"] * n_test + ["val"] * 20 + ["train"] * (n - n_test - 20))
    return np.random.default_rng(seed).permutation(names)


@pytest.mark.parametrize("select", ["posterior", "agreement"])
@pytest.mark.parametrize("wrong", [0.1, 0.7])
def test_no_model_learns_from_test_and_all_images_are_judged(select: Any, wrong: float) -> None:
    x, _, labels = clouds(400, 4, wrong, 3)
    splits = in_splits(400, 100)
    trainer = Table(NearestMeans(x, 4).fit_predict(np.arange(400), labels, np.arange(400), 0))
    result = IterativeCV(select, seed=1).run(trainer, labels, splits=splits)
    for fold in trainer.asked:
        assert (splits[fold.train_idx] == "train").all()
        assert np.isin(np.flatnonzero(splits != "train"), fold.eval_idx).all()
    assert np.allclose(result.pred_probs.sum(axis=1), 1, atol=1e-5)
    assert not (result.selected | result.candidate | result.dropped)[splits != "train"].any()
    assert (result.held_out == (splits != "train")).all()


@pytest.mark.parametrize("select", ["posterior", "agreement"])
def test_train_is_judged_as_if_test_were_not_there(select: Any) -> None:
    x, _, labels = clouds(400, 4, 0.2, 3)
    splits = in_splits(400, 100)
    train = splits == "train"
    both = IterativeCV(select).run(NearestMeans(x, 4), labels, splits=splits)
    alone = IterativeCV(select).run(NearestMeans(x[train], 4), labels[train])
    assert (both.pred_probs[train] == alone.pred_probs).all()
    assert (both.selected[train] == alone.selected).all()
    assert np.allclose(both.posterior.label_quality[train], alone.posterior.label_quality)
    assert both.noise_rate == alone.noise_rate
    plain = cross_validate(NearestMeans(x, 4), labels, n_folds=2, splits=splits)
    assert (plain == cross_validate(NearestMeans(x, 4), labels, n_folds=2, splits=splits)).all()
    assert (plain[train] == cross_validate(NearestMeans(x[train], 4), labels[train], n_folds=2)).all()


@pytest.mark.parametrize("select", ["posterior", "agreement"])
def test_an_image_of_test_is_not_judged_by_models_that_learned_its_group(select: Any) -> None:
    x, _, labels = clouds(400, 4, 0.1, 3)
    splits, groups = in_splits(400, 100), np.arange(400)
    copies = np.flatnonzero(splits == "test")[:40]
    groups[copies] = np.flatnonzero(splits == "train")[:40]
    trainer = Table(NearestMeans(x, 4).fit_predict(np.arange(400), labels, np.arange(400), 0))
    result = IterativeCV(select).run(trainer, labels, splits=splits, groups=groups)
    for fold in trainer.asked:
        assert not np.intersect1d(groups[fold.train_idx], groups[fold.eval_idx]).size
    assert np.allclose(result.pred_probs.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("n_test", "noisy", "clean"), [(100, 0.2, 0.02), (500, 0.2, 0.02), (500, 0.05, 0.2)])
def test_both_noise_rates_are_told_apart(n_test: int, noisy: float, clean: float) -> None:
    x, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(n_test)
    test = rng.permutation(len(true)) < n_test
    labels = np.where(
        test,
        simulate.flip_labels(true, simulate.transition("symmetric", clean, 10), rng),
        simulate.flip_labels(true, simulate.transition("symmetric", noisy, 10), rng),
    )
    issues = IterativeCV().run(HeadTrainer(x / 16, 10), labels, splits=np.where(test, "test", "train")).issues()
    rates = issues.by_split().set_index("split")["noise_rate"]
    assert list(rates.index) == ["train", "test"]
    assert abs(rates["train"] - (labels != true)[~test].mean()) < 0.03
    assert abs(rates["test"] - (labels != true)[test].mean()) < 0.03
    assert list(issues.to_frame()["split"]) == np.where(test, "test", "train").tolist()


def test_splits_do_not_change_with_names_beside_train() -> None:
    assert learned_split(np.array(["test", "val", "train", "val", "val"])) == "train"
    assert learned_split(np.array(["test", "test", "test", "dev"])) == "dev"
    assert learned_split(np.array(["test2", "test", "test"])) == "test"
    assert learned_split(np.array(["a", "b", "b"])) == "b"
    train = held_out(np.array(["train_1", "Training", "test"]))
    assert train is not None
    assert train.tolist() == [False, False, True]
    assert held_out(np.array(["test", "test"])) is None
    rows = rows_by_split(np.array(["test", "val", "train", "test"]))
    assert [(name, each.tolist()) for name, each in rows.items()] == [("train", [2]), ("val", [1]), ("test", [0, 3])]


def test_splits_that_do_not_fit_are_refused() -> None:
    assert as_splits([0, 1, 1], 3).tolist() == ["0", "1", "1"]
    with pytest.raises(InputError, match="splits has 2 rows, but labels has 3"):
        as_splits(["train", "test"], 3)
    with pytest.raises(InputError, match=r"2 of 3 splits are missing, the first is splits\[1\]"):
        as_splits(["train", None, " "], 3)
    x, _, labels = clouds(40, 4, 0.1, 3)
    splits = ["train"] * 3 + ["test"] * 37
    with pytest.raises(InputError, match=r"3 images are fewer than n_folds = 5 of the split that is learned from"):
        IterativeCV(n_folds=5).run(NearestMeans(x, 4), labels, splits=splits)
