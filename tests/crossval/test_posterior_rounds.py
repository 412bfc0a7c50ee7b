"""Rounds that select by the posterior, over the contract alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvcoteach._validation import InputError, IntArray, PredProbs
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.crossval.result import CrossValResult
from cvcoteach.crossval.trainer import Fold, FoldKey, FoldProgress
from cvcoteach.issues.flags import FlagRule
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.posterior import Posterior, fit_posterior
from cvcoteach.training.sklearn_trainer import SklearnTrainer
from tests.fakes import BatchTable, NearestMeans, Table

K = 3


def blobs(n: int, rate: float, seed: int = 0, spread: float = 0.6, k: int = K) -> tuple[np.ndarray, IntArray, IntArray]:
    """Features (n, k) around a corner for each class, true and given labels."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % k
    features = 2 * np.eye(k)[true] + spread * rng.standard_normal((n, k))
    return features, true, noise.flip_labels(true, noise.transition("symmetric", rate, k), rng)


@dataclass
class Remembering(NearestMeans):
    """Keeps the folds it was asked for."""

    asked: list[Fold] = field(default_factory=list)

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        self.asked.append(Fold(train_idx, train_labels, eval_idx, seed))
        return super().fit_predict(train_idx, train_labels, eval_idx, seed)


def learned_from(folds: list[Fold], n: int) -> np.ndarray:
    """(n,) images that some of these models learned from."""
    mask = np.zeros(n, np.bool_)
    for fold in folds:
        mask[fold.train_idx] = True
    return mask


def assert_same(one: CrossValResult, other: CrossValResult) -> None:
    assert_array_equal(one.pred_probs, other.pred_probs)
    assert_array_equal(one.selected, other.selected)
    assert_array_equal(one.flags, other.flags)


@pytest.mark.parametrize("select", ["posterior", "agreement"])
def test_no_model_scores_an_image_it_learned_from_and_every_training_has_its_own_seed(select: str) -> None:
    features, _, labels = blobs(300, 0.2)
    trainer, incv = Remembering(features, K), IterativeCV(select, seed=3)
    incv.run(trainer, labels)
    assert len(trainer.asked) == sum(incv.folds(300))
    for fold in trainer.asked:
        assert not np.intersect1d(fold.train_idx, fold.eval_idx).size
    assert len({fold.seed for fold in trainer.asked}) == len(trainer.asked)


def test_the_folds_of_each_round_depend_on_the_rule_and_the_number_of_images() -> None:
    assert IterativeCV().folds(1000) == (2, 5, 5)
    assert IterativeCV().folds(3) == (2, 3, 3), "no fold is empty"
    assert IterativeCV(n_rounds=2).folds(1000) == (2, 5)
    assert IterativeCV(n_rounds=1, n_folds=4).folds(1000) == (4,)
    assert IterativeCV("agreement").folds(100) == (2, 2, 2, 2)
    assert IterativeCV("agreement", 2, 3).folds(100) == (3, 3)


def test_plain_cross_validation_is_the_first_round() -> None:
    features, _, labels = blobs(300, 0.3)
    trainer = NearestMeans(features, K)
    first = IterativeCV(n_rounds=1, n_folds=5, seed=4).run(trainer, labels)
    assert_array_equal(first.pred_probs, cross_validate(trainer, labels, n_folds=5, seed=4))
    assert first.selected.all()
    whole = IterativeCV(n_folds=5, seed=4).run(trainer, labels)
    assert_array_equal(whole.rounds[0].pred_probs, first.pred_probs)
    by_agreement = IterativeCV("agreement", n_folds=5, seed=4).run(trainer, labels)
    assert_array_equal(by_agreement.rounds[0].pred_probs, first.pred_probs)


def test_every_image_is_scored_in_every_round() -> None:
    features, _, labels = blobs(300, 0.2)
    result = IterativeCV().run(NearestMeans(features, K), labels)
    assert [len(r.scored) for r in result.rounds] == [300] * 3
    assert (result.last_round == 3).all()
    assert not result.dropped.any()
    assert_array_equal(result.candidate, ~result.selected)


def test_a_round_learns_given_labels_that_are_probably_right() -> None:
    features, _, labels = blobs(900, 0.3)
    trainer = Remembering(features, K)
    result = IterativeCV(n_folds=3).run(trainer, labels)
    for number, r in enumerate(result.rounds[:2], start=1):
        folds = trainer.asked[3 * number : 3 * number + 3]
        assert_array_equal(learned_from(folds, 900), r.selected)
        evidence = fit_posterior(labels, result.rounds[number - 1].pred_probs)
        assert_array_equal(r.selected, evidence.wrong <= 0.5)
        for fold in folds:
            assert_array_equal(fold.train_labels, labels[fold.train_idx])
    assert_array_equal(result.selected, learned_from(trainer.asked[-3:], 900))


def test_where_most_labels_are_wrong_models_learn_the_class_that_the_posterior_is_sure_of() -> None:
    features, true, labels = blobs(2400, 0.6, spread=0.5, k=6)
    trainer = Remembering(features, 6)
    result = IterativeCV(n_folds=3).run(trainer, labels)
    assert result.noise_rate == pytest.approx((labels != true).mean(), abs=0.05)
    last = trainer.asked[-1]
    corrected = last.train_labels != labels[last.train_idx]
    assert corrected.mean() > 0.3
    assert (last.train_labels == true[last.train_idx])[corrected].mean() > 0.95
    assert_array_equal(last.train_labels, result.rounds[-1].learned[last.train_idx])
    assert_array_equal(learned_from(trainer.asked[-3:], 2400), result.selected)


def test_the_record_of_a_round_says_what_joined_and_what_left() -> None:
    features, _, labels = blobs(600, 0.3, spread=1.0)
    result = IterativeCV().run(NearestMeans(features, K), labels)
    before = np.ones(600, np.bool_)
    for r in result.rounds:
        after = before.copy()
        after[r.kept], after[r.dropped] = True, False
        assert_array_equal(after, r.selected)
        assert not before[r.kept].any()
        assert before[r.dropped].all()
        assert 0 < r.agreement < 1
        before = r.selected
    assert len(result.rounds[0].dropped) > 100
    assert len(result.rounds[1].kept) > 0, "a label that was left out may come back"
    assert len(result.rounds[-1].kept) == len(result.rounds[-1].dropped) == 0, "nothing learns from the last round"


def test_the_rounds_after_the_first_are_averaged() -> None:
    features, _, labels = blobs(300, 0.3)
    finished: dict[FoldKey, PredProbs] = {}
    trainer = Remembering(features, K)
    result = IterativeCV(n_rounds=3, n_folds=3).run(trainer, labels, finished=finished)
    assert sorted(finished) == [FoldKey(number, fold) for number in (1, 2, 3) for fold in (1, 2, 3)]
    expected = np.zeros((300, K))
    for start, number in ((3, 2), (6, 3)):
        learned = learned_from(trainer.asked[start : start + 3], 300)
        for i, fold in enumerate(trainer.asked[start : start + 3]):
            answer = finished[FoldKey(number, i + 1)]
            expected[fold.eval_idx] += answer / np.where(learned[fold.eval_idx], 1, 3)[:, None] / 2
    assert_allclose(result.pred_probs, expected, atol=1e-6)


def test_an_image_of_s_is_scored_once_and_one_outside_by_every_model() -> None:
    features, _, labels = blobs(300, 0.2)
    trainer = Remembering(features, K)
    result = IterativeCV(n_rounds=2, n_folds=3).run(trainer, labels)
    times = np.bincount(np.concatenate([fold.eval_idx for fold in trainer.asked[3:]]), minlength=300)
    assert_array_equal(times, np.where(result.selected, 1, 3))
    assert (~result.selected).sum() > 30


def test_the_probabilities_are_the_mean_of_the_models_that_scored() -> None:
    labels = np.tile(np.arange(K), 40)
    table = np.random.default_rng(0).dirichlet(np.ones(K), 120)
    result = IterativeCV(n_folds=4).run(Table(table), labels)
    assert_allclose(result.pred_probs, table, atol=1e-6)
    assert_allclose(result.pred_probs.sum(axis=1), 1, atol=1e-6)


def test_without_a_signal_everything_is_learned_as_given_and_nothing_is_flagged() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(K, size=600)
    trainer = Table(rng.dirichlet(np.full(K, 0.3), 600))
    result = IterativeCV().run(trainer, labels)
    assert not result.posterior.has_signal
    assert not result.flags.any()
    assert result.selected.all()
    for fold in trainer.asked:
        assert_array_equal(fold.train_labels, labels[fold.train_idx])
    assert np.isnan(result.noise_rate)
    # ε̂ of the agreement, since the posterior knows none
    assert result.rounds[-1].noise_rate == pytest.approx(0.6, abs=0.1)


def test_nothing_is_corrected_without_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _, labels = blobs(900, 0.6, spread=0.5, k=6)
    monkeypatch.setattr(Posterior, "has_signal", False)
    result = IterativeCV(n_folds=3).run(NearestMeans(features, 6), labels)
    assert ((result.posterior.suggested != labels) & (result.posterior.suggested_prob > 0.7)).any()
    assert_array_equal(result.rounds[-1].learned, labels)


@pytest.mark.parametrize("select", ["posterior", "agreement"])
def test_wrong_labels_are_found_and_named(select: str) -> None:
    features, true, labels = blobs(900, 0.3)
    result = IterativeCV(select).run(NearestMeans(features, K), labels)
    wrong = labels != true
    assert (result.flags == wrong).mean() > 0.93
    assert (result.posterior.suggested[wrong] == true[wrong]).mean() > 0.93
    assert (labels == true)[result.selected].mean() > 0.93


def test_a_wrong_label_once_in_s_is_found() -> None:
    features, true, labels = blobs(600, 0.2, spread=0.3)
    result = IterativeCV().run(NearestMeans(features, K), labels)
    assert (np.isin(np.arange(600), result.rounds[0].dropped) == (labels != true)).mean() > 0.99
    assert (result.flags == (labels != true)).mean() > 0.99


@pytest.mark.slow
def test_later_rounds_find_more_than_the_first() -> None:
    X, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.1, 10), rng)
    wrong = labels != true
    trainer = SklearnTrainer(make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)), X, 10)
    result = IterativeCV().run(trainer, labels)
    first = fit_posterior(labels, result.rounds[0].pred_probs)
    before, after = (average_precision_score(wrong, p.wrong) for p in (first, result.posterior))
    assert after > before + 0.02
    assert after > 0.97
    assert (result.flags == wrong).mean() > 0.98


def test_the_issues_are_those_of_the_posterior() -> None:
    features, _, labels = blobs(300, 0.2)
    result = IterativeCV().run(NearestMeans(features, K), labels)
    issues = result.issues(("a", "b", "c"))
    again = fit_posterior(labels, result.pred_probs)
    assert_array_equal(issues.label_quality, again.label_quality)
    assert_array_equal(issues.label_quality, result.posterior.label_quality)
    assert_array_equal(issues.is_label_issue, result.flags)
    assert (issues.filter_by, issues.class_names) == ("posterior", ("a", "b", "c"))
    strict = result.issues(rule=FlagRule(min_probability=0.99))
    assert_array_equal(strict.is_label_issue, result.posterior.wrong >= 0.99)


def test_a_class_that_looks_all_wrong_keeps_images_to_learn_from() -> None:
    labels = np.repeat([0, 1, 2], [100, 100, 30])
    table = np.eye(K)[np.where(labels == 2, 1, labels)] * 0.94 + 0.02
    table = np.where(np.arange(230)[:, None] % 7 == 0, np.roll(table, 1, axis=1), table)
    trainer = Table(table)
    result = IterativeCV(n_folds=2).run(trainer, labels)
    assert all(set(fold.train_labels.tolist()) == {0, 1, 2} for fold in trainer.asked)
    assert result.selected[labels == 2].sum() == 4


def test_a_lone_label_keeps_its_class() -> None:
    features, _, labels = blobs(300, 0.1)
    labels[7] = 3
    result = IterativeCV().run(NearestMeans(features, 5), labels, n_classes=5)
    assert result.pred_probs.shape == (300, 5)
    assert result.selected[7]
    assert result.rounds[-1].learned[7] == 3


def test_a_round_is_trained_in_one_batch() -> None:
    labels = np.tile(np.arange(K), 40)
    trainer = BatchTable(np.random.default_rng(0).dirichlet(np.ones(K), 120))
    IterativeCV(n_folds=4).run(trainer, labels)
    assert trainer.batches == 3
    assert len(trainer.asked) == 12


def test_finished_folds_are_not_trained_again() -> None:
    features, _, labels = blobs(300, 0.2)
    finished: dict[FoldKey, PredProbs] = {}
    result = IterativeCV().run(NearestMeans(features, K), labels, finished=finished)
    assert sorted(finished) == [
        *(FoldKey(1, fold) for fold in (1, 2)),
        *(FoldKey(number, fold) for number in (2, 3) for fold in (1, 2, 3, 4, 5)),
    ]
    del finished[FoldKey(2, 2)]
    trainer = Remembering(features, K)
    assert_same(IterativeCV().run(trainer, labels, finished=finished), result)
    assert len(trainer.asked) == 1


@pytest.mark.parametrize("batch", [False, True])
def test_a_run_that_was_broken_off_ends_with_the_same_result(batch: bool) -> None:
    features, _, labels = blobs(200, 0.3)
    everything = np.arange(200)
    table = NearestMeans(features, K).fit_predict(everything, labels, everything, 0)
    kind = BatchTable if batch else Table
    finished: dict[FoldKey, PredProbs] = {}
    whole = IterativeCV(seed=1).run(kind(table), labels, finished=finished)
    rest = {key: answer for key, answer in finished.items() if key < FoldKey(2, 3)}
    told: list[FoldProgress] = []
    trainer = kind(table)
    again = IterativeCV(seed=1).run(trainer, labels, finished=rest, on_fold=told.append)
    assert_same(again, whole)
    assert len(trainer.asked) == (10 if batch else 8), "of a batch that was broken off, all folds are trained again"
    assert [p.key for p in told if p.state == "done"] == [(fold.round, fold.fold) for fold in sorted(finished)][
        2 if batch else 4 :
    ]
    assert {(p.n_rounds, p.key.round, p.n_folds) for p in told} == {(3, 1, 2), (3, 2, 5), (3, 3, 5)}


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    features, _, labels = blobs(300, 0.2)
    trainer = NearestMeans(features, K)
    one, two, other = (IterativeCV(seed=seed).run(trainer, labels) for seed in (0, 0, 1))
    assert_same(one, two)
    assert (one.pred_probs != other.pred_probs).any()


def test_a_handful_of_images_is_enough_to_run_but_no_signal() -> None:
    result = IterativeCV().run(NearestMeans(np.eye(4), 2), [0, 1, 0, 1])
    assert [len(r.scored) for r in result.rounds] == [4] * 3
    assert not result.posterior.has_signal
    assert not result.flags.any()
    assert np.isnan(result.noise_rate)
    with pytest.raises(InputError, match="4 images are fewer than n_folds = 5; each part needs one"):
        IterativeCV(n_folds=5).run(Table(np.full((4, 2), 0.5)), [0, 1, 0, 1])
    with pytest.raises(InputError, match="4 images are fewer than n_folds = 5; each part needs one"):
        cross_validate(Table(np.full((4, 2), 0.5)), [0, 1, 0, 1])
