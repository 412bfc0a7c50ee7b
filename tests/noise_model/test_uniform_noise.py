"""Uniform noise, and when it replaces the deconvolution in the mean."""

from __future__ import annotations

import numpy as np
import pytest

from cvcoteach import fit_posterior
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.ensemble import MeanModel
from cvcoteach.noise_model.richardson_lucy import RichardsonLucyModel
from cvcoteach.noise_model.uniform_noise import UniformNoiseModel, fit_uniform_noise

K = 5


def calibrated(n: int, rate: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels with uniform noise, true classes and calibrated probabilities of them."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(K, 0.05), n)
    true = (rng.random(n)[:, None] > probs.cumsum(axis=1)).sum(axis=1).clip(max=K - 1)
    return noise.flip_labels(true, noise.transition("symmetric", rate, K), rng), true, probs


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_rate_is_found(rate: float) -> None:
    labels, true, probs = calibrated(20_000, rate)
    found = fit_uniform_noise(labels, probs, np.ones(len(labels)))
    assert found.rate == pytest.approx((labels != true).mean(), abs=0.003)
    np.testing.assert_allclose(found.transition().sum(axis=1), 1)
    assert found.prior().sum() == pytest.approx(1)


def test_its_posterior_is_bayes_rule() -> None:
    probs = np.array([[0.6, 0.3, 0.1]])
    model = UniformNoiseModel(0.2, np.full(3, 1 / 3))
    joint = np.array([0.6 * 0.8, 0.3 * 0.1, 0.1 * 0.1])
    np.testing.assert_allclose(model.posterior(np.array([0]), probs)[0], joint / joint.sum())


def test_labels_rank_as_by_self_confidence() -> None:
    labels, _, probs = calibrated(2000, 0.05)
    model = fit_uniform_noise(labels, probs, np.ones(2000))
    quality = model.posterior(labels, probs)[np.arange(2000), labels]
    own = probs[np.arange(2000), labels].clip(1e-6)
    assert (np.diff(quality[np.argsort(own, kind="stable")]) > -1e-5).all()


def members(n: int, rate: float) -> list[type]:
    """Return which models the posterior averages."""
    labels, _, probs = calibrated(n, rate)
    model = fit_posterior(labels, probs).model
    assert isinstance(model, MeanModel)
    return [type(member) for member in model.members]


def test_it_replaces_the_deconvolution_where_hardly_any_label_is_wrong() -> None:
    low = members(20_000, 0.004)
    assert UniformNoiseModel in low
    assert RichardsonLucyModel not in low
    assert UniformNoiseModel not in members(20_000, 0.1)


def test_few_images_do_not_show_that_hardly_any_label_is_wrong() -> None:
    assert UniformNoiseModel not in members(150, 0.004)
