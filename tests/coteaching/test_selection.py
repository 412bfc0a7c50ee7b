"""What is trained on after INCV and the final scoring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvcoteach.coteaching.curriculum import noise_left
from cvcoteach.coteaching.selection import Selection, corrected, selection_after
from cvcoteach.crossval.final_scoring import FinalScores, FinalScoring
from cvcoteach.crossval.incv import CrossValResult, IterativeCV
from tests.fakes import NearestMeans


@pytest.fixture(scope="module")
def found() -> tuple[CrossValResult, FinalScores]:
    """900 images of three classes that overlap, a quarter of the labels wrong."""
    rng = np.random.default_rng(0)
    true = np.arange(900) % 3
    features = rng.normal(size=(900, 2)) + 1.5 * np.array([[0, 0], [2, 0], [0, 2]])[true]
    given = np.where(rng.random(900) < 0.25, (true + rng.integers(1, 3, 900)) % 3, true)
    trainer = NearestMeans(features, 3)
    result = IterativeCV(2, seed=0).run(trainer, given)
    scores = FinalScoring(n_folds=3, repeats=1).after(result, trainer)
    assert scores.posterior.has_signal
    assert scores.posterior.signal.standard_errors > 10
    return result, scores


def test_what_is_not_flagged_is_selected(found) -> None:
    result, scores = found
    selection = selection_after(result, scores)
    issues = scores.issues()
    assert not selection.selected[issues.is_label_issue].any()
    assert selection.selected.sum() == 900 - issues.is_label_issue.sum()
    assert not (selection.candidate & selection.selected).any()
    assert selection.candidate[~selection.selected].tolist() == result.candidate[~selection.selected].tolist()
    assert selection.noise_rate == pytest.approx(scores.wrong.mean())
    curriculum = selection.curriculum(3, 10)
    left, paper = scores.wrong[selection.selected].mean(), noise_left(selection.noise_rate, 3)
    assert curriculum.noise_rate == pytest.approx(max(left, paper))
    assert curriculum.rows.tolist() == [*np.flatnonzero(selection.selected), *np.flatnonzero(selection.candidate)]


def test_a_noise_rate_that_is_given_is_taken(found) -> None:
    result, scores = found
    assert selection_after(result, scores, noise_rate=0.4).noise_rate == 0.4
    assert selection_after(result, None, noise_rate=0.4).noise_rate == 0.4


def test_without_a_final_scoring_everything_is_as_published(found) -> None:
    result, _ = found
    selection = selection_after(result, None)
    assert (selection.selected == result.selected).all()
    assert (selection.candidate == result.candidate).all()
    assert selection.noise_rate == result.noise_rate
    curriculum = selection.curriculum(3, 10)
    e = result.noise_rate
    assert curriculum.noise_rate == pytest.approx(e**2 / (e**2 + 2 * (1 - e) ** 2))
    assert curriculum.mixed_noise_rate == pytest.approx(curriculum.noise_rate)


def test_corrected_all_others_are_trained_on_under_their_most_probable_class_as_far_as_it_is_sure(found) -> None:
    result, scores = found
    plain = selection_after(result, scores)
    selection = corrected(plain, scores.suggested, scores.suggested_prob)
    s = plain.selected
    assert (selection.selected == s).all()
    assert (selection.candidate == ~s).all()
    assert (selection.labels == np.where(s, result.labels, scores.suggested)).all()
    assert (selection.labels[~s] != result.labels[~s]).mean() > 0.9
    assert selection.weights == pytest.approx(np.where(s, 1, scores.suggested_prob))
    assert selection.wrong == pytest.approx(np.where(s, scores.wrong, 1 - scores.suggested_prob))


def test_without_probabilities_nothing_is_corrected(found) -> None:
    result, scores = found
    selection = selection_after(result, None)
    assert corrected(selection, scores.suggested, scores.suggested_prob) is selection


def test_a_posterior_that_explains_nothing_is_not_believed(found) -> None:
    result, scores = found
    useless = replace(scores, posterior=replace(scores.posterior, signal=replace(scores.posterior.signal, share=0.0)))
    selection = selection_after(result, useless)
    assert (selection.selected == ~scores.is_label_issue).all()
    assert selection.noise_rate == result.noise_rate
    assert selection.wrong is None


def test_everything_is_selected_without_candidates() -> None:
    selection = Selection.of_everything(np.arange(6) % 2, 0.3)
    assert selection.selected.all()
    assert not selection.candidate.any()
    curriculum = selection.curriculum(2, 10)
    assert (curriculum.noise_rate, curriculum.mixed_noise_rate, curriculum.warmup) == (0.3, 0.3, 0)
