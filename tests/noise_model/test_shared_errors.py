"""How far a label counts as evidence beside its image."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from cvcoteach import fit_posterior
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.ensemble import MeanModel
from cvcoteach.noise_model.posterior import Posterior
from cvcoteach.noise_model.shared_errors import SHARED, exponent_of, shared_errors

K = 10


def wavering(n: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True classes, and calibrated probabilities of a model that wavers within five pairs of classes only."""
    rng = np.random.default_rng(seed)
    true = rng.integers(K, size=n)
    probs = np.full((n, K), 0.002)
    sure = np.where(rng.random(n) < 0.6, 0.998, rng.uniform(0.5, 0.9, n))
    right = rng.random(n) < sure
    favoured = np.where(right, true, true ^ 1)  # 0-1, 2-3, ...
    probs[np.arange(n), favoured] = sure
    probs[np.arange(n), favoured ^ 1] = 1 - sure
    return true, probs / probs.sum(axis=1, keepdims=True)


def correlation_of(labels: np.ndarray, true: np.ndarray, probs: np.ndarray) -> float:
    """Return the correlation where the posterior knows the truth."""
    return shared_errors(labels, probs, np.eye(probs.shape[1])[true], np.ones(len(labels)))[0]


def exponent_in(posterior: Posterior) -> float:
    """Return the exponent of a fitted mean."""
    assert isinstance(posterior.model, MeanModel)
    return posterior.model.exponent


def test_labels_flipped_without_a_look_share_no_errors_with_the_model() -> None:
    true, probs = wavering()
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.4, K), np.random.default_rng(1))
    assert abs(correlation_of(labels, true, probs)) < 0.15


def test_labels_that_err_where_the_model_wavers_share_its_errors() -> None:
    true, probs = wavering()
    labels = np.where(np.random.default_rng(1).random(len(true)) < 0.2, true ^ 1, true)
    assert correlation_of(labels, true, probs) > 0.95


def test_two_classes_can_show_nothing_so_labels_count_as_independent() -> None:
    probs = np.random.default_rng(0).dirichlet((1, 1), 50)
    correlation, _ = shared_errors(np.arange(50) % 2, probs, probs, np.ones(50))
    assert math.isnan(correlation)
    assert exponent_of(correlation, 0.2, 2) == 1


def evenly_wavering(true: np.ndarray) -> np.ndarray:
    """Probabilities of a model that is half sure of the true class, and prefers none of the others."""
    others = np.random.default_rng(3).dirichlet(np.ones(K), len(true))
    return 0.5 * np.eye(K)[true] + 0.5 * others


def test_a_long_tail_of_classes_is_no_shared_error() -> None:
    rng = np.random.default_rng(0)
    share = 0.6 ** np.arange(K)
    true = rng.choice(K, 20_000, p=share / share.sum())
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.3, K), rng)
    assert abs(correlation_of(labels, true, evenly_wavering(true))) < 0.3


def test_classes_without_images_are_left_out() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(5, size=6000)
    labels = np.where(rng.random(6000) < 0.3, rng.integers(5, size=6000), true)
    correlation = correlation_of(labels, true, evenly_wavering(true))
    assert abs(correlation) < 0.6  # ten pairs only: noise of .3
    fives = correlation_of(labels, true, evenly_wavering(true)[:, :5])
    assert correlation == pytest.approx(fives, abs=0.2)


@pytest.mark.slow
def test_the_order_of_the_images_does_not_matter() -> None:
    true, probs = wavering(30_000)
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.3, K), np.random.default_rng(1))
    in_turn = np.argsort(np.argsort(true, kind="stable") % 3000, kind="stable")
    one, other = (fit_posterior(labels[rows], probs[rows]) for rows in (np.arange(30_000), in_turn))
    assert one.has_signal
    assert other.has_signal
    assert exponent_in(one) == pytest.approx(exponent_in(other), abs=1e-6)


def test_classes_of_few_images_are_not_counted() -> None:
    true, probs = wavering()
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.2, K), np.random.default_rng(1))
    kept = np.ones(len(true), np.bool_)
    for rare in (0, 3, 7):
        kept[np.flatnonzero((true == rare) | (labels == rare))[20:]] = False
    known = np.eye(K)[true]
    assert shared_errors(labels, probs, known, np.ones(len(labels)))[1] == K
    assert shared_errors(labels[kept], probs[kept], known[kept], np.ones(kept.sum()))[1] == K - 3


def test_four_classes_are_too_few_to_tell() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(4, size=4000)
    labels = np.where(rng.random(4000) < 0.3, rng.integers(4, size=4000), true)
    probs = 0.6 * np.eye(4)[true] + 0.1
    assert math.isnan(correlation_of(labels, true, probs))


def test_the_exponent_falls_from_one_to_that_of_shared_errors() -> None:
    exponents = [exponent_of(correlation, 0.1, 20) for correlation in np.linspace(-1, 1, 81)]
    assert exponents == sorted(exponents, reverse=True)
    assert (exponents[0], exponents[-1]) == (1, pytest.approx(SHARED))
    assert exponent_of(0.15, 0.1, 20) == 1
    assert exponent_of(0.25, 0.1, 20) == pytest.approx((1 + SHARED) / 2)


def test_of_much_noise_which_models_learn_less_is_concluded() -> None:
    assert exponent_of(0.3, 0.2, 20) == exponent_of(0.3, 0.4, 20) == 1
    assert exponent_of(0.4, 0.2, 20) == pytest.approx((1 + SHARED) / 2)
    assert exponent_of(0.4, 0.1, 20) < exponent_of(0.4, 0.15, 20) < exponent_of(0.4, 0.2, 20)


def test_of_few_classes_a_correlation_counts_that_is_beyond_chance() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(2, 1000, 20))  # of five classes
    by_chance = np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(*pairs, strict=True)])
    assert np.mean([exponent_of(correlation, 0.1, 5) < 1 for correlation in by_chance]) < 0.1
    assert np.mean([exponent_of(correlation, 0.1, 20) < 1 for correlation in by_chance]) > 0.2
    assert exponent_of(0.7, 0.1, 5) == pytest.approx(SHARED)


def test_of_little_noise_nothing_is_concluded() -> None:
    assert exponent_of(0.9, 0.03, 20) == 1
    assert exponent_of(0.9, 0.035, 20) == pytest.approx((1 + SHARED) / 2)
    assert exponent_of(0.9, 0.04, 20) == pytest.approx(SHARED)


def paired_blobs(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Features of ten classes, of which two each lie close together, and the true classes."""
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=n)
    corners = 5 * np.eye(5)[np.arange(K) // 2]
    corners[:, 0] += 2.2 * (np.arange(K) % 2)
    return corners[true] + rng.standard_normal((n, 5)), true


@pytest.mark.slow
def test_the_posterior_believes_a_label_less_where_errors_are_shared() -> None:
    x, true = paired_blobs()
    rng = np.random.default_rng(2)
    shared = np.where(rng.random(len(true)) < 0.25, true ^ 1, true)
    flipped = noise.flip_labels(true, noise.transition("symmetric", 0.25, K), rng)
    found = []
    for labels in (shared, flipped):
        model = LogisticRegression(max_iter=300)
        found.append(fit_posterior(labels, cross_val_predict(model, x, labels, cv=3, method="predict_proba")))
    assert all(posterior.has_signal for posterior in found)
    assert exponent_in(found[0]) < 0.75
    assert exponent_in(found[1]) > 0.95


def test_the_quality_follows_the_exponent() -> None:
    true, probs = wavering(2000)
    labels = np.where(np.random.default_rng(1).random(2000) < 0.2, true ^ 1, true)
    fitted = fit_posterior(labels, probs)
    assert isinstance(fitted.model, MeanModel)
    assert fitted.model.exponent < 1
    rows = np.concatenate([j for _, j in fitted.rows()])
    np.testing.assert_allclose(fitted.label_quality, rows[np.arange(2000), labels], atol=1e-12)
    plain = replace(fitted.model, exponent=1.0).posterior(labels, probs)[np.arange(2000), labels]
    order = np.argsort(plain, kind="stable")
    assert (np.diff(fitted.label_quality[order]) > -1e-9).all()
    assert np.ptp(fitted.label_quality) < np.ptp(plain)
