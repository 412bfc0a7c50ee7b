"""The Richardson-Lucy member: against a slow version, and on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.richardson_lucy import N_STEPS, RichardsonLucyModel, deconvolved, fit_richardson_lucy


def known_truth(n: int, k: int = 5, rate: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return true posteriors q (n, k), T, given labels, and p = q·T."""
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(k, 0.15), n)
    true = (rng.random(n)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=k - 1)
    transition = noise.class_dependent(rate, k, 0.4, rng)
    return q, transition, noise.flip_labels(true, transition, rng), q @ transition


def test_the_posterior_is_that_of_the_book() -> None:
    _, transition, labels, probs = known_truth(30)
    share = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    model = RichardsonLucyModel(transition, share)
    before = model.before_label(probs)
    for row, (p, label) in enumerate(zip(probs, labels, strict=True)):
        c = share.copy()
        for _ in range(N_STEPS):
            c = np.array(
                [c[i] * sum(transition[i, j] * p[j] / (c @ transition[:, j]) for j in range(5)) for i in range(5)]
            )
        expected = c * transition[:, label] / (c @ transition[:, label])
        np.testing.assert_allclose(model.posterior(labels, probs)[row], expected, atol=1e-4)
        np.testing.assert_allclose(before[row], c / c.sum(), atol=1e-4)


def test_deconvolution_comes_nearer_to_the_true_probabilities() -> None:
    q, transition, _, probs = known_truth(500)
    c = deconvolved(probs.T.astype(np.float32), transition, q.mean(axis=0)).T
    np.testing.assert_allclose(c.sum(axis=1), 1, atol=1e-4)
    assert np.abs(c - q).mean() < 0.4 * np.abs(probs - q).mean()


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3])
def test_the_fit_finds_the_transition(rate: float) -> None:
    q, transition, labels, probs = known_truth(8000, rate=rate)
    model = fit_richardson_lucy(labels, probs, np.ones(8000))
    distance = np.abs(model.transition() - transition).sum(axis=1).mean() / 2
    assert distance < 0.08
    np.testing.assert_allclose(model.prior(), q.mean(axis=0), atol=0.05)
    assert model.prior().sum() == pytest.approx(1)


def test_a_row_of_weight_two_counts_as_two() -> None:
    _, _, labels, probs = known_truth(600)
    times = np.arange(600) % 2 + 1
    weighted = fit_richardson_lucy(labels, probs, times.astype(float))
    repeated = fit_richardson_lucy(np.repeat(labels, times), np.repeat(probs, times, axis=0), np.ones(times.sum()))
    # thresholds of the confident joint, where the fit starts, are means over rows
    np.testing.assert_allclose(weighted.transition(), repeated.transition(), atol=0.02)


def test_few_images_keep_the_transition_away_from_certainty() -> None:
    labels = np.arange(60) % 3
    probs = np.eye(3)[labels]
    transition = fit_richardson_lucy(labels, probs, np.ones(60)).transition()
    assert transition.min() > 0.05
    many = fit_richardson_lucy(np.tile(labels, 200), np.tile(probs, (200, 1)), np.ones(12_000)).transition()
    assert many.max(axis=1).min() > 0.99
