"""The affine member: against a slow version, its gradient, its starts and the names of its hidden classes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from cvcoteach.noise_model import affine
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.affine import AffineModel, cluster_transition, features, fit_affine, soft_names
from cvcoteach.noise_model.base import as_transition, confident_transition, one_hot, shrunk


def test_the_posterior_is_that_of_the_book() -> None:
    rng = np.random.default_rng(0)
    weights, bias = rng.standard_normal((3, 6)), rng.standard_normal(3)
    mixing, share = rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(3))
    model = AffineModel(weights, bias, mixing, share)
    p, label = np.array([0.2, 0.7, 0.1]), 2
    logs = np.log(p) - np.log(p).mean()
    c = np.exp([weights[i, :3] @ logs + weights[i, 3:] @ logs**2 / 10 + bias[i] for i in range(3)])
    hidden = c * mixing[:, label] / (c @ mixing[:, label])
    expected = [sum(hidden[i] * model.names[i, k] for i in range(3)) for k in range(3)]
    np.testing.assert_allclose(model.posterior(np.array([label]), p[None])[0], expected)
    before = [sum(c[i] / c.sum() * model.names[i, k] for i in range(3)) for k in range(3)]
    np.testing.assert_allclose(model.before_label(p[None])[0], before)


@pytest.mark.parametrize("with_noise", [True, False])
def test_the_gradient_is_that_of_the_likelihood(with_noise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float32", np.float64)  # single precision would drown the differences
    monkeypatch.setattr(affine, "_TINY32", 1e-30)
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(3), 40), rng.integers(2, size=40)  # no label of class 2
    targets = 0.8 * one_hot(labels, 3) + 0.2 * probs.T
    likelihood = affine._Likelihood(features(probs), targets, rng.random(40) + 0.5)
    params = likelihood.start(rng.dirichlet(np.ones(3), 3) if with_noise else None)
    params = params + 0.1 * rng.standard_normal(len(params))
    error = check_grad(lambda x: likelihood._loss(x)[0], lambda x: likelihood._loss(x)[1], params, epsilon=1e-7)
    assert error < 1e-5


def noisy(rate: float, n: int = 6000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a perfect model's probabilities of noisy labels, the labels, and T."""
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(4, 0.1), n)
    true = (rng.random(n)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=3)
    transition = noise.transition("symmetric", rate, 4)
    return q**0.5 / (q**0.5).sum(axis=1, keepdims=True), noise.flip_labels(true, transition, rng), transition


def test_the_fit_finds_the_transition_of_uncalibrated_probabilities() -> None:
    probs, labels, transition = noisy(0.3)
    half = np.arange(len(labels)) % 2
    fit = fit_affine(probs, labels, one_hot(labels, 4), np.ones(len(labels)), half)
    assert np.abs(fit.model.transition() - transition).max() < 0.05
    assert len(fit.with_noise) == len(fit.calibrated) == len(fit.unchanged) == len(fit.weight) == 3000
    assert fit.with_noise.mean() > fit.calibrated.mean() + 0.03
    assert fit.calibrated.mean() > fit.unchanged.mean() + 0.5
    floored = np.maximum(probs[1::2], 1e-6)
    floored /= floored.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fit.unchanged, np.log(floored[np.arange(3000), labels[1::2]]), rtol=1e-5)


def test_without_noise_the_transition_gains_nothing() -> None:
    probs, labels, _ = noisy(0.0)
    half = np.arange(len(labels)) % 2
    fit = fit_affine(probs, labels, one_hot(labels, 4), np.ones(len(labels)), half)
    assert np.diag(fit.model.transition()).min() > 0.97
    assert abs(fit.with_noise.mean() - fit.calibrated.mean()) < 0.01


def test_a_row_of_weight_two_counts_as_two() -> None:
    probs, labels, _ = noisy(0.2, 400)
    once = np.repeat(np.arange(400), np.arange(400) % 2 + 1)
    weighted = confident_transition(labels, probs, np.arange(400) % 2 + 1.0)
    np.testing.assert_allclose(weighted.sum(axis=1), 1)
    likelihoods = (
        affine._Likelihood(features(probs), one_hot(labels, 4), np.arange(400) % 2 + 1.0),
        affine._Likelihood(features(probs[once]), one_hot(labels[once], 4), np.ones(len(once))),
    )
    params = likelihoods[0].start(weighted)
    assert likelihoods[0].mean(params) == pytest.approx(likelihoods[1].mean(params), rel=1e-5)


def test_clusters_find_a_class_most_of_whose_labels_are_wrong() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=3000)
    labels = np.where((true == 2) & (rng.random(3000) < 0.6), rng.integers(2, size=3000), true)
    logs = features(0.9 * np.eye(3)[true] + rng.dirichlet(np.ones(3), 3000) / 10)[:3]
    expected = [[1, 0, 0], [0, 1, 0], [0.3, 0.3, 0.4]]
    np.testing.assert_allclose(cluster_transition(labels, logs), expected, atol=0.03)


def test_classes_keep_their_names_where_most_labels_are_right() -> None:
    np.testing.assert_allclose(soft_names(noise.transition("symmetric", 0.3, 6)), np.eye(6), atol=0.01)


def test_a_class_most_of_whose_labels_went_to_another_shares_both_names() -> None:
    names = soft_names(np.array([[0.4, 0.6, 0], [0.45, 0.55, 0], [0, 0, 1]]))
    assert 0.2 < names[0, 1] < 0.8
    np.testing.assert_allclose(names.sum(axis=0), 1)
    np.testing.assert_allclose(names.sum(axis=1), 1)
    assert names[2, 2] > 0.99


def test_few_images_shrink_the_transition_towards_uniform_noise() -> None:
    transition = np.array([[0.8, 0.2, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]])
    counts = np.full(3, 50.0)
    few, many = (shrunk(transition, factor * counts, 100.0) for factor in (1, 1000))
    np.testing.assert_allclose(many, transition, atol=0.005)
    np.testing.assert_allclose(few.sum(axis=1), 1)
    assert few[0, 2] > 0.03 > many[0, 2]
    assert few[2, 2] < 0.95
    uniform = shrunk(transition, counts, 1e9)
    np.testing.assert_allclose(uniform, 0.9 * np.eye(3) + 0.05 * (1 - np.eye(3)), atol=1e-6)


def test_counts_become_rows_that_sum_to_one() -> None:
    result = as_transition(np.array([[8.0, 2.0], [0.0, 0.0]]))
    np.testing.assert_allclose(result.sum(axis=1), 1)
    np.testing.assert_allclose(result[1], [0.25, 0.75])
