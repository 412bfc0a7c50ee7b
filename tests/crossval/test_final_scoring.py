"""Scoring of every image, out of sample, after the last round."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cvcoteach._validation import IntArray, PredProbs
from cvcoteach.crossval.final_scoring import FinalScoring
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.crossval.trainer import Fold, FoldKey
from cvcoteach.noise_model import simulate as noise
from tests.fakes import BatchTable, NearestMeans, Table

K = 3


def blobs(n: int, rate: float, seed: int = 0, spread: float = 0.6) -> tuple[np.ndarray, IntArray, IntArray]:
    """Features (n, 3) around a corner for each class, true and given labels."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % K
    features = 2 * np.eye(K)[true] + spread * rng.standard_normal((n, K))
    return features, true, noise.flip_labels(true, noise.transition("symmetric", rate, K), rng)


@dataclass
class Remembering(NearestMeans):
    """Keeps the folds it was asked for."""

    asked: list[Fold] = field(default_factory=list)

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        self.asked.append(Fold(train_idx, train_labels, eval_idx, seed))
        return super().fit_predict(train_idx, train_labels, eval_idx, seed)


def test_no_model_judges_an_image_it_learned_from() -> None:
    features, _, labels = blobs(300, 0.2)
    trainer = Remembering(features, K)
    scoring = FinalScoring(n_folds=3, repeats=2, passes=2)
    scoring.run(trainer, labels, cross_validate(NearestMeans(features, K), labels))
    assert len(trainer.asked) == scoring.n_trainings == 12
    for fold in trainer.asked:
        assert not np.intersect1d(fold.train_idx, fold.eval_idx).size


def test_one_pass_learns_given_labels() -> None:
    features, _, labels = blobs(300, 0.2)
    trainer = Remembering(features, K)
    scores = FinalScoring(n_folds=3).run(trainer, labels, cross_validate(NearestMeans(features, K), labels))
    for fold in trainer.asked:
        assert_array_equal(fold.train_labels, labels[fold.train_idx])
    assert_array_equal(scores.learned, labels)


def test_several_passes_learn_what_the_posterior_is_sure_of_as_it_has_it() -> None:
    features, true, labels = blobs(900, 0.3)
    trainer = Remembering(features, K)
    scores = FinalScoring(n_folds=3, passes=2).run(trainer, labels, cross_validate(NearestMeans(features, K), labels))
    last = trainer.asked[-1]
    taught_anew = last.train_labels != labels[last.train_idx]
    assert taught_anew.sum() > 0.2 * len(last.train_idx)
    assert (last.train_labels == true[last.train_idx])[taught_anew].mean() > 0.95
    assert_array_equal(last.train_labels, scores.learned[last.train_idx])
    assert_array_equal(
        np.unique(np.concatenate([f.train_idx for f in trainer.asked[-3:]])), np.flatnonzero(scores.selected)
    )


def test_the_passes_are_averaged() -> None:
    features, _, labels = blobs(300, 0.3)
    finished: dict[FoldKey, PredProbs] = {}
    trainer = Remembering(features, K)
    first = cross_validate(NearestMeans(features, K), labels)
    scores = FinalScoring(n_folds=3, passes=3).run(trainer, labels, first, finished=finished)
    assert sorted(finished) == [FoldKey(number, fold) for number in (2, 3, 4) for fold in (1, 2, 3)]
    expected = np.zeros((300, K))
    for start, number in ((0, 2), (3, 3), (6, 4)):
        learned = np.zeros(300, np.bool_)
        for fold in trainer.asked[start : start + 3]:
            learned[fold.train_idx] = True
        for i, fold in enumerate(trainer.asked[start : start + 3]):
            answer = finished[FoldKey(number, i + 1)]
            expected[fold.eval_idx] += answer / np.where(learned[fold.eval_idx], 1, 3)[:, None] / 3
    np.testing.assert_allclose(scores.pred_probs, expected, atol=1e-6)


def test_nothing_is_corrected_and_nothing_left_out_without_a_signal() -> None:
    rng = np.random.default_rng(0)
    labels, table = rng.integers(K, size=600), rng.dirichlet(np.full(K, 0.3), 600)
    scores = FinalScoring(n_folds=3, passes=2).run(Table(table), labels, table)
    assert not scores.posterior.has_signal
    assert ((scores.posterior.suggested != labels) & (scores.posterior.suggested_prob > 0.7)).any()
    assert_array_equal(scores.learned, labels)
    assert scores.selected.all()
    assert not scores.is_label_issue.any()


def test_agreement_is_the_papers_selection_in_one_pass() -> None:
    scoring = FinalScoring("agreement", n_folds=3, passes=3)
    labels = np.tile(np.arange(K), 20)
    trainer = Table(np.random.default_rng(0).dirichlet(np.ones(K), 60))
    scoring.run(trainer, labels, trainer.pred_probs, np.ones(60, np.bool_))
    assert len(trainer.asked) == scoring.n_trainings == 3


def test_an_image_of_s_is_judged_once_a_repeat_and_one_outside_by_every_model() -> None:
    features, _, labels = blobs(300, 0.2)
    trainer = Remembering(features, K)
    selected = np.arange(300) % 4 > 0
    scoring = FinalScoring("agreement", n_folds=3, repeats=2)
    scores = scoring.run(trainer, labels, np.full((300, K), 1 / K), selected)
    judged = np.bincount(np.concatenate([fold.eval_idx for fold in trainer.asked]), minlength=300)
    assert_array_equal(judged, np.where(selected, 2, 6))
    assert_array_equal(scores.selected, selected)


def test_the_probabilities_are_the_mean_of_the_models_that_judged() -> None:
    labels = np.tile(np.arange(K), 20)
    table = np.random.default_rng(0).dirichlet(np.ones(K), 60)
    selected = np.arange(60) % 4 > 0
    scores = FinalScoring("agreement", n_folds=4, repeats=3).run(Table(table), labels, table, selected)
    np.testing.assert_allclose(scores.pred_probs, table, atol=1e-6)


@pytest.mark.parametrize("select", ["posterior", "agreement"])
def test_wrong_labels_are_found_and_named(select: str) -> None:
    features, true, labels = blobs(900, 0.3)
    trainer = NearestMeans(features, K)
    incv = IterativeCV(n_rounds=2).run(trainer, labels)
    scores = FinalScoring(select, n_folds=3).after(incv, trainer)
    wrong = labels != true
    assert (scores.is_label_issue == wrong).mean() > 0.93
    assert (scores.suggested[wrong] == true[wrong]).mean() > 0.93
    assert (labels == true)[scores.selected].mean() > 0.93


def test_a_wrong_label_once_in_s_is_found() -> None:
    features, true, labels = blobs(600, 0.2, spread=0.3)
    everything = np.ones(600, np.bool_)
    trainer = NearestMeans(features, K)
    scores = FinalScoring("agreement").run(trainer, labels, cross_validate(trainer, labels), everything)
    assert (scores.is_label_issue == (labels != true)).mean() > 0.99


def test_the_issues_hold_the_scores() -> None:
    features, _, labels = blobs(300, 0.2)
    trainer = NearestMeans(features, K)
    scores = FinalScoring(n_folds=3).run(trainer, labels, cross_validate(trainer, labels))
    issues = scores.issues(("a", "b", "c"))
    assert_array_equal(issues.label_quality, scores.label_quality)
    assert_array_equal(issues.is_label_issue, scores.is_label_issue)
    other = np.where(scores.is_label_issue, scores.posterior.alternative_prob, scores.suggested_prob)
    assert_array_equal(issues.suggested_prob, other)
    assert issues.class_names == ("a", "b", "c")


def test_a_class_that_looks_all_wrong_keeps_images_to_learn_from() -> None:
    labels = np.repeat([0, 1, 2], [100, 100, 30])
    table = np.eye(K)[np.where(labels == 2, 1, labels)] * 0.94 + 0.02
    table = np.where(np.arange(230)[:, None] % 7 == 0, np.roll(table, 1, axis=1), table)
    trainer = Table(table)
    FinalScoring(n_folds=2, repeats=1).run(trainer, labels, table)
    assert all(set(fold.train_labels.tolist()) == {0, 1, 2} for fold in trainer.asked)


def test_all_repeats_are_trained_in_one_batch() -> None:
    labels = np.tile(np.arange(K), 40)
    trainer = BatchTable(np.random.default_rng(0).dirichlet(np.ones(K), 120))
    FinalScoring(n_folds=4, repeats=3).run(trainer, labels, trainer.pred_probs)
    assert trainer.batches == 1
    assert len(trainer.asked) == 12


def test_finished_folds_are_not_trained_again() -> None:
    features, _, labels = blobs(300, 0.2)
    first = cross_validate(NearestMeans(features, K), labels)
    finished: dict[FoldKey, PredProbs] = {}
    scoring = FinalScoring(n_folds=3, repeats=2)
    scores = scoring.run(NearestMeans(features, K), labels, first, number=5, finished=finished)
    assert sorted(finished) == [FoldKey(5, i) for i in range(1, 7)]
    del finished[FoldKey(5, 2)]
    trainer = Remembering(features, K)
    again = scoring.run(trainer, labels, first, number=5, finished=finished)
    assert len(trainer.asked) == 1
    assert_array_equal(again.pred_probs, scores.pred_probs)


def test_a_second_pass_that_was_broken_off_goes_on_to_the_same_scores() -> None:
    features, _, labels = blobs(300, 0.2)
    first = cross_validate(NearestMeans(features, K), labels)
    scoring = FinalScoring(n_folds=3, passes=2)
    finished: dict[FoldKey, PredProbs] = {}
    scores = scoring.run(NearestMeans(features, K), labels, first, number=5, finished=finished)
    del finished[FoldKey(6, 2)], finished[FoldKey(6, 3)]
    trainer = Remembering(features, K)
    again = scoring.run(trainer, labels, first, number=5, finished=finished)
    assert len(trainer.asked) == 2
    assert_array_equal(again.pred_probs, scores.pred_probs)
    assert_array_equal(again.is_label_issue, scores.is_label_issue)


def test_the_same_seed_gives_the_same_scores_and_another_seed_others() -> None:
    features, _, labels = blobs(300, 0.2)
    trainer = NearestMeans(features, K)
    first = cross_validate(trainer, labels)
    one, two, other = (FinalScoring(seed=seed).run(trainer, labels, first).pred_probs for seed in (0, 0, 1))
    assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": "likelihood"}, "select is 'likelihood'"),
        ({"n_folds": 1}, "n_folds is 1; it takes 2 or more"),
        ({"repeats": 0}, "repeats is 0; it takes 1 or more"),
        ({"passes": 0}, "passes is 0; it takes 1 or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinalScoring(**settings)


def test_agreement_without_a_selection_is_refused() -> None:
    labels = np.tile(np.arange(K), 20)
    with pytest.raises(ValueError, match="selected is missing; agreement takes one True or False an image"):
        FinalScoring("agreement").run(Table(np.full((60, K), 1 / K)), labels, np.full((60, K), 1 / K))
