"""The model for many classes: temperature scaling and a sparse transition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.temperature import Likely, fit_temperature, fit_with_quality

K = 40


def known_truth(n: int = 6000, sharpness: float = 0.05, rate: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true posteriors (n, 40), T, and given labels."""
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(K, sharpness), n)
    true = (rng.random(n)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=K - 1)
    transition = noise.transition("asymmetric", rate, K)
    return q, transition, noise.flip_labels(true, transition, rng)


def test_calibrated_probabilities_keep_their_temperature() -> None:
    q, transition, labels = known_truth()
    model = fit_temperature(Likely.of(labels, q), K)
    assert model.temperature == pytest.approx(1, abs=0.15)
    assert np.abs(model.transition() - transition).sum(axis=1).mean() / 2 < 0.1


def test_overconfident_probabilities_are_tempered() -> None:
    q, transition, labels = known_truth()
    sharp = q**3 / (q**3).sum(axis=1, keepdims=True)
    model = fit_temperature(Likely.of(labels, sharp), K)
    assert model.temperature == pytest.approx(3, rel=0.2)
    assert np.abs(model.transition() - transition).sum(axis=1).mean() / 2 < 0.12


def test_before_the_label_probabilities_are_those_of_the_temperature() -> None:
    q, _, labels = known_truth(500)
    model = replace(fit_temperature(Likely.of(labels, q), K), temperature=2.0)
    q = np.maximum(q, 1e-10)
    np.testing.assert_allclose(model.before_label(q), np.sqrt(q) / np.sqrt(q).sum(axis=1, keepdims=True), rtol=1e-6)


def test_expectation_maximisation_without_the_image_itself() -> None:
    strength = 10.0
    rng = np.random.default_rng(1)
    probs, labels = rng.dirichlet(np.full(K, 0.05), 50), rng.integers(K, size=50)
    likely = Likely.of(labels, probs)
    model = replace(fit_temperature(likely, K), strength=strength)

    tempered = np.exp(likely.logs / model.temperature)
    rest = likely.n_others * np.exp(likely.others / model.temperature)
    own = model.likely_posterior(likely)
    for i in range(50):
        joint = []
        for column, true in enumerate(likely.classes[i]):
            pair = np.flatnonzero(model.pairs == true * K + labels[i])
            smooth = model.noise * model.frequency[labels[i]] + (1 - model.noise) * (column == 16)
            others = max((model.counts[pair].sum() if len(pair) else 0) - own[i, column], 0)
            total = max(model.totals[true] - own[i, column], 0)
            c = tempered[i, column] / (tempered[i].sum() + rest[i])
            joint.append(c * (others + strength * smooth) / (total + strength))
        unnamed = rest[i] / (tempered[i].sum() + rest[i]) * model.noise * model.frequency[labels[i]]
        np.testing.assert_allclose(own[i], np.array(joint) / (sum(joint) + unnamed), atol=2e-2)


def test_the_posterior_of_all_classes_is_that_of_the_likely_ones() -> None:
    q, _, labels = known_truth(300)
    likely = Likely.of(labels, q)
    model = fit_temperature(likely, K)
    full, some = model.posterior(labels, q), model.likely_posterior(likely)
    np.testing.assert_allclose(full.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(full[np.arange(300), labels], some[:, -1])


def test_the_quality_that_comes_with_the_fit_is_that_of_the_model() -> None:
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.full(40, 0.1), 2000).astype(np.float32)
    labels = np.where(rng.random(2000) < 0.8, probs.argmax(axis=1), rng.integers(40, size=2000))
    likely = Likely.of(labels, probs)
    model, quality = fit_with_quality(likely, 40)
    np.testing.assert_allclose(quality, model.likely_posterior(likely)[:, -1], rtol=0, atol=1e-12)
