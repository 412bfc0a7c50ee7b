"""The mean of several noise models: its weights, its exponent, and classes too rare to know."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cvcoteach import fit_posterior
from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.issues.flags import flags_of
from cvcoteach.noise_model import ensemble
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.base import NoiseModel, Probs
from cvcoteach.noise_model.ensemble import MeanModel, fit_mean, inflation_of


@dataclass(frozen=True, eq=False)
class Symmetric:
    """Bayes' rule with a symmetric T: probabilities are true posteriors."""

    rate: float
    k: int = 3

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        joint = probs * self.transition()[:, labels].T
        return joint / joint.sum(axis=1, keepdims=True)

    def before_label(self, probs: Probs) -> FloatArray:
        return np.asarray(probs, np.float64)

    def transition(self) -> FloatArray:
        return noise.transition("symmetric", self.rate, self.k)

    def prior(self) -> FloatArray:
        return np.full(self.k, 1 / self.k)

    def describe(self) -> str:
        return f"symmetric {self.rate:g}"


def mean_of(*rates: float, **changes: float) -> MeanModel:
    """Return the even mean of symmetric models of three classes."""
    members = [Symmetric(rate) for rate in rates]
    return replace(MeanModel(members, [1 / len(rates)] * len(rates), 1.0, 1.0, np.arange(3), 3), **changes)


def rows(n: int = 200, seed: int = 0) -> tuple[IntArray, FloatArray]:
    """Return labels and probabilities of three classes."""
    rng = np.random.default_rng(seed)
    return rng.integers(3, size=n), rng.dirichlet(np.ones(3), n)


def test_members_and_mean_keep_the_contract() -> None:
    assert isinstance(Symmetric(0.1), NoiseModel)
    assert isinstance(mean_of(0.1, 0.3), NoiseModel)


def test_the_posterior_is_the_weighted_mean_of_the_members() -> None:
    labels, probs = rows()
    model = replace(mean_of(0.1, 0.5), weights=[0.7, 0.3])
    expected = 0.7 * Symmetric(0.1).posterior(labels, probs) + 0.3 * Symmetric(0.5).posterior(labels, probs)
    np.testing.assert_allclose(model.posterior(labels, probs), expected)
    np.testing.assert_allclose(model.before_label(probs), probs)
    np.testing.assert_allclose(model.transition(), noise.transition("symmetric", 0.22, 3))
    np.testing.assert_allclose(model.prior(), 1 / 3)
    assert model.describe() == "70% symmetric 0.1 + 30% symmetric 0.5"


def test_an_exponent_makes_the_posterior_less_certain_and_keeps_the_order() -> None:
    labels, probs = rows()
    plain, softer = mean_of(0.2), mean_of(0.2, exponent=0.7, inflation=1.1)
    each = np.arange(len(labels))
    sharp, soft = (model.posterior(labels, probs) for model in (plain, softer))
    np.testing.assert_allclose(soft.sum(axis=1), 1)
    np.testing.assert_array_equal(np.argsort(sharp[each, labels]), np.argsort(soft[each, labels]))
    right = sharp[each, labels]
    odds = (right / (1 - right)) ** 0.7 / 1.1
    np.testing.assert_allclose(soft[each, labels], odds / (1 + odds))
    assert "exponent 0.70" in softer.describe()


def test_an_exponent_shares_the_doubt_out_by_the_powers_of_the_others() -> None:
    labels, probs = rows(1)
    others = [k for k in range(3) if k != labels[0]]
    sharp, soft = (
        model.posterior(labels, probs)[0, others] for model in (mean_of(0.2), mean_of(0.2, exponent=0.7, inflation=1.0))
    )
    assert soft[0] / soft[1] == pytest.approx((sharp[0] / sharp[1]) ** 0.7)


def test_the_inflation_is_one_for_one_other_class_and_more_for_several() -> None:
    labels = np.zeros(2, np.int64)
    one, several = np.array([[0.4, 0.6, 0.0]] * 2), np.array([[0.4, 0.3, 0.3]] * 2)
    assert inflation_of(labels, one, np.ones(2), 0.7) == pytest.approx(1)
    assert inflation_of(labels, several, np.ones(2), 0.7) == pytest.approx(2**0.3)


def test_a_label_of_a_class_too_rare_to_know_is_half_believed() -> None:
    labels, probs = np.array([3, 0]), np.array([[0.2, 0.5, 0.3, 0.0], [0.8, 0.1, 0.1, 0.0]])
    model = replace(mean_of(0.1), n_classes=4)
    found = model.posterior(labels, probs)
    np.testing.assert_allclose(found[0], [0.1, 0.25, 0.15, 0.5])
    np.testing.assert_allclose(found[1, :3], Symmetric(0.1).posterior(labels[1:], probs[1:, :3])[0])
    np.testing.assert_allclose(model.transition()[3], [0, 0, 0, 1])
    assert model.prior()[3] == 0
    np.testing.assert_allclose(model.before_label(probs)[:, 3], 0)


@pytest.mark.parametrize(
    ("gain", "whole", "weight"),
    [(0.0, 1.0, 0.6), (0.5, 1.0, 1.0), (0.175, 1.0, 0.8), (-1.0, 1.0, 0.6), (0.5, 0.0, 0.6)],
)
def test_the_affine_weight_rises_with_the_evidence(gain: float, whole: float, weight: float) -> None:
    assert ensemble._weight_of_affine(gain, 0.0, whole) == pytest.approx(weight)


def test_the_fit_leaves_out_classes_of_one_or_two_labels() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(4, size=1000)
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.1, 4), rng)
    labels[:2] = 5
    probs = 0.9 * np.eye(6)[true] + rng.dirichlet(np.ones(6), 1000) / 10
    fit = fit_mean(labels, probs)
    np.testing.assert_array_equal(fit.model.classes, [0, 1, 2, 3])
    assert sum(fit.model.weights) == pytest.approx(1)
    assert 0.9 < fit.confidence <= 1
    assert fit.evidence > 2


@pytest.mark.parametrize("n_given", [0, 1, 2, 5])
def test_a_class_that_hardly_any_label_has_is_believed_where_the_probabilities_favour_it(n_given: int) -> None:
    # as of a model that did not learn from these labels; cleanlab 2.9.0 flags none where no label has the class
    true = np.repeat([0, 1, 2], [130, 130, 40])
    probs = np.full((300, 3), 0.02)
    probs[np.arange(300), true] = 0.96
    labels = true.copy()
    labels[260 + n_given :] = np.random.default_rng(0).integers(0, 2, 40 - n_given)
    fitted = fit_posterior(labels, probs)
    np.testing.assert_array_equal(flags_of(fitted), labels != true)
    assert (fitted.alternative[labels != true] == 2).all()
    np.testing.assert_allclose(np.concatenate([rows for _, rows in fitted.rows()]).sum(axis=1), 1)


def test_sure_models_of_labels_that_one_other_class_takes_are_not_taken_literally() -> None:
    rng = np.random.default_rng(0)
    n, k = 6000, 10
    true = rng.integers(0, k, n)
    each, scores = np.arange(n), rng.normal(size=(n, k))
    for step, by in ((0, 2.0), (1, 0.8), (-1, 0.8)):  # the models confuse neighbors too
        scores[each, (true + step) % k] += by
    probs = np.exp(4 * scores)
    probs /= probs.sum(axis=1, keepdims=True)
    given = np.where(rng.random(n) < 0.4, (true + 1) % k, true)

    wrong = fit_posterior(given, probs).wrong

    assert wrong.mean() == pytest.approx(np.mean(given != true), abs=0.04)  # .58 where the mean has a literal share
    assert np.mean((wrong > 0.5) == (given != true)) > 0.81
