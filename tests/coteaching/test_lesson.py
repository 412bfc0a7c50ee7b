"""What is taught after INCV and the final scoring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvcoteach.coteaching.lesson import corrected, lesson_after
from cvcoteach.coteaching.training import noise_left
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
    lesson = lesson_after(result, scores)
    issues = scores.issues()
    assert not lesson.selected[issues.is_label_issue].any()
    assert lesson.selected.sum() == 900 - issues.is_label_issue.sum()
    assert not (lesson.candidate & lesson.selected).any()
    assert lesson.candidate[~lesson.selected].tolist() == result.candidate[~lesson.selected].tolist()
    assert lesson.noise_rate == pytest.approx(scores.wrong.mean())
    curriculum = lesson.curriculum(3, 10)
    left, paper = scores.wrong[lesson.selected].mean(), noise_left(lesson.noise_rate, 3)
    assert curriculum.noise_rate == pytest.approx(max(left, paper))
    assert curriculum.rows.tolist() == [*np.flatnonzero(lesson.selected), *np.flatnonzero(lesson.candidate)]


def test_a_noise_rate_that_is_given_is_taken(found) -> None:
    result, scores = found
    assert lesson_after(result, scores, noise_rate=0.4).noise_rate == 0.4
    assert lesson_after(result, None, noise_rate=0.4).noise_rate == 0.4


def test_without_a_final_scoring_everything_is_as_published(found) -> None:
    result, _ = found
    lesson = lesson_after(result, None)
    assert (lesson.selected == result.selected).all()
    assert (lesson.candidate == result.candidate).all()
    assert lesson.noise_rate == result.noise_rate
    curriculum = lesson.curriculum(3, 10)
    e = result.noise_rate
    assert curriculum.noise_rate == pytest.approx(e**2 / (e**2 + 2 * (1 - e) ** 2))
    assert curriculum.mixed_noise_rate == pytest.approx(curriculum.noise_rate)


def test_corrected_all_others_are_taught_under_their_most_probable_class_as_far_as_it_is_sure(found) -> None:
    result, scores = found
    plain = lesson_after(result, scores)
    lesson = corrected(plain, scores.suggested, scores.suggested_prob)
    s = plain.selected
    assert (lesson.selected == s).all()
    assert (lesson.candidate == ~s).all()
    assert (lesson.labels == np.where(s, result.labels, scores.suggested)).all()
    assert (lesson.labels[~s] != result.labels[~s]).mean() > 0.9
    assert lesson.weights == pytest.approx(np.where(s, 1, scores.suggested_prob))
    assert lesson.wrong == pytest.approx(np.where(s, scores.wrong, 1 - scores.suggested_prob))


def test_without_probabilities_nothing_is_corrected(found) -> None:
    result, scores = found
    lesson = lesson_after(result, None)
    assert corrected(lesson, scores.suggested, scores.suggested_prob) is lesson


def test_a_posterior_without_a_signal_is_not_believed(found) -> None:
    result, scores = found
    useless = replace(scores, posterior=replace(scores.posterior, signal=replace(scores.posterior.signal, share=0.0)))
    lesson = lesson_after(result, useless)
    assert (lesson.selected == ~scores.is_label_issue).all()
    assert lesson.noise_rate == result.noise_rate
    assert lesson.wrong is None
