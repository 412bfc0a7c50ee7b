"""What is trained on after cross-validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvcoteach._validation import IntArray
from cvcoteach.coteaching.curriculum import noise_left
from cvcoteach.coteaching.selection import Selection, corrected, selection_after, softened
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.result import CrossValResult
from cvcoteach.noise_model.posterior import label_posterior
from tests.fakes import NearestMeans


@pytest.fixture(scope="module")
def data() -> tuple[NearestMeans, IntArray]:
    """900 images of three classes that overlap, a quarter of the labels wrong."""
    rng = np.random.default_rng(0)
    true = np.arange(900) % 3
    features = rng.normal(size=(900, 2)) + 1.5 * np.array([[0, 0], [2, 0], [0, 2]])[true]
    given = np.where(rng.random(900) < 0.25, (true + rng.integers(1, 3, 900)) % 3, true)
    return NearestMeans(features, 3), given


@pytest.fixture(scope="module")
def found(data) -> CrossValResult:
    """What the posterior selects."""
    result = IterativeCV(n_rounds=2, seed=0).run(*data)
    assert result.posterior.has_signal
    return result


@pytest.fixture(scope="module")
def by_agreement(data) -> CrossValResult:
    """What INCV selects, as published."""
    return IterativeCV("agreement", 2, seed=0).run(*data)


def test_what_is_not_flagged_is_selected_and_what_is_flagged_is_candidate(found) -> None:
    selection = selection_after(found)
    flags = found.issues().is_label_issue
    assert 100 < flags.sum() < 400
    assert selection.selected.tolist() == (~flags).tolist()
    assert selection.candidate.tolist() == flags.tolist()
    assert not selection.as_published
    wrong = found.posterior.wrong
    assert selection.noise_rate == pytest.approx(wrong.mean())
    curriculum = selection.curriculum(3, 10)
    left, paper = wrong[selection.selected].mean(), noise_left(selection.noise_rate, 3)
    assert curriculum.noise_rate == pytest.approx(max(left, paper))
    assert curriculum.rows.tolist() == [*np.flatnonzero(selection.selected), *np.flatnonzero(selection.candidate)]


def test_a_noise_rate_that_is_given_is_taken(found, by_agreement) -> None:
    assert selection_after(found, noise_rate=0.4).noise_rate == 0.4
    assert selection_after(by_agreement, noise_rate=0.4).noise_rate == 0.4


def test_by_agreement_everything_is_as_published(by_agreement) -> None:
    selection = selection_after(by_agreement)
    assert (selection.selected == by_agreement.selected).all()
    assert (selection.candidate == by_agreement.candidate).all()
    assert selection.candidate.sum() < (~selection.selected).sum(), "some were dropped"
    assert selection.noise_rate == by_agreement.noise_rate
    assert selection.as_published
    curriculum = selection.curriculum(3, 10)
    e = by_agreement.noise_rate
    assert curriculum.noise_rate == pytest.approx(e**2 / (e**2 + 2 * (1 - e) ** 2))
    assert curriculum.mixed_noise_rate == pytest.approx(curriculum.noise_rate)


def test_corrected_all_others_are_trained_on_under_their_most_probable_class_as_far_as_it_is_sure(found) -> None:
    plain, posterior = selection_after(found), found.posterior
    selection = corrected(plain, posterior.suggested, posterior.suggested_prob)
    s = plain.selected
    assert (selection.selected == s).all()
    assert (selection.candidate == ~s).all()
    assert (selection.labels == np.where(s, found.labels, posterior.suggested)).all()
    assert (selection.labels[~s] != found.labels[~s]).mean() > 0.9
    assert selection.weights == pytest.approx(np.where(s, 1, posterior.suggested_prob))
    assert selection.wrong == pytest.approx(np.where(s, posterior.wrong, 1 - posterior.suggested_prob))


def test_without_probabilities_nothing_is_corrected(by_agreement) -> None:
    selection, posterior = selection_after(by_agreement), by_agreement.posterior
    assert corrected(selection, posterior.suggested, posterior.suggested_prob) is selection


def test_a_posterior_without_a_signal_is_not_believed(found) -> None:
    useless = replace(found, posterior=replace(found.posterior, signal=replace(found.posterior.signal, share=0.0)))
    selection = selection_after(useless)
    assert selection.selected.all(), "nothing is flagged"
    assert selection.noise_rate == found.noise_rate
    assert selection.wrong is None


def test_everything_is_selected_without_candidates() -> None:
    selection = Selection.of_everything(np.arange(6) % 2, 0.3)
    assert selection.selected.all()
    assert not selection.candidate.any()
    curriculum = selection.curriculum(2, 10)
    assert (curriculum.noise_rate, curriculum.mixed_noise_rate, curriculum.warmup) == (0.3, 0.3, 0)


def test_softened_every_image_is_learned_as_the_posterior_takes_it_and_none_is_left_out(found) -> None:
    posterior = label_posterior(found.labels, found.pred_probs)
    selection = softened(selection_after(found), posterior)
    assert selection.selected.all()
    assert not selection.candidate.any()
    assert selection.soft is not None
    assert selection.soft.tolist() == posterior.tolist()
    assert selection.noise_rate == pytest.approx(found.posterior.wrong.mean())
    curriculum = selection.curriculum(3, 10)
    assert curriculum.rows.tolist() == list(range(900))
    assert [curriculum.keep_rate(epoch) for epoch in (0, 9)] == [1, 1]
    assert selection.epochs(10 * 900) == 10, "as many image passes"
