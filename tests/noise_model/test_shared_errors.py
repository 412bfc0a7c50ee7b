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
from cvcoteach.noise_model.posterior import credited
from cvcoteach.noise_model.shared_errors import SHARED, credit_of, shared_errors

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


def beliefs(true: np.ndarray, probs: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """In pieces: what the model believes of the images, and the truth."""
    return list(zip(np.array_split(probs, 7), np.array_split(np.eye(K)[true], 7), strict=True))


def test_labels_flipped_without_a_look_share_no_errors_with_the_model() -> None:
    true, probs = wavering()
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.4, K), np.random.default_rng(1))
    correlation, n_classes = shared_errors(labels, K, beliefs(true, probs))
    assert abs(correlation) < 0.15
    assert n_classes == K


def test_labels_that_err_where_the_model_wavers_share_its_errors() -> None:
    true, probs = wavering()
    labels = np.where(np.random.default_rng(1).random(len(true)) < 0.2, true ^ 1, true)
    assert shared_errors(labels, K, beliefs(true, probs))[0] > 0.95


def test_two_classes_can_show_nothing_so_labels_count_as_peoples() -> None:
    probs = np.random.default_rng(0).dirichlet((1, 1), 50)
    labels = np.arange(50) % 2
    correlation, n_classes = shared_errors(labels, 2, [(probs, probs)])
    assert math.isnan(correlation)
    assert credit_of(correlation, n_classes) == SHARED


def evenly_wavering(true: np.ndarray) -> np.ndarray:
    """Probabilities of a model that is half sure of the true class, and prefers none of the others."""
    others = np.random.default_rng(3).dirichlet(np.ones(K), len(true))
    return 0.5 * np.eye(K)[true] + 0.5 * others


def test_a_long_tail_of_classes_is_no_shared_error() -> None:
    rng = np.random.default_rng(0)
    share = 0.6 ** np.arange(K)
    true = rng.choice(K, 20_000, p=share / share.sum())
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.3, K), rng)
    correlation, _ = shared_errors(labels, K, beliefs(true, evenly_wavering(true)))
    assert abs(correlation) < 0.3


def test_classes_without_images_are_left_out() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(5, size=6000)
    labels = np.where(rng.random(6000) < 0.3, rng.integers(5, size=6000), true)
    correlation, n_classes = shared_errors(labels, K, beliefs(true, evenly_wavering(true)))
    assert n_classes == 5
    assert abs(correlation) < 0.6  # ten pairs only: noise of .3


@pytest.mark.slow
def test_the_order_of_the_images_does_not_matter() -> None:
    true, probs = wavering(30_000)
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.3, K), np.random.default_rng(1))
    in_turn = np.argsort(np.argsort(true, kind="stable") % 3000, kind="stable")
    one, other = (credited(fit_posterior(labels[rows], probs[rows])) for rows in (np.arange(30_000), in_turn))
    assert one.fits == other.fits
    assert one.credit == pytest.approx(other.credit, abs=0.05)


def test_four_classes_are_too_few_to_tell() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(4, size=4000)
    labels = np.where(rng.random(4000) < 0.3, rng.integers(4, size=4000), true)
    probs = 0.6 * np.eye(4)[true] + 0.1
    assert math.isnan(shared_errors(labels, 4, [(probs, np.eye(4)[true])])[0])


def test_credit_falls_from_one_to_that_of_shared_errors() -> None:
    credits = [credit_of(correlation, K) for correlation in np.linspace(-1, 1, 81)]
    assert credits == sorted(credits, reverse=True)
    assert (credits[0], credits[-1]) == (1, pytest.approx(SHARED))
    assert credit_of(0, K) == 1
    assert credit_of(0.25, 3) < credit_of(0.25, K)  # three classes show less than ten


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
        found.append(credited(fit_posterior(labels, cross_val_predict(model, x, labels, cv=3, method="predict_proba"))))
    assert all(posterior.fits for posterior in found)
    assert found[0].credit < 0.75
    assert found[1].credit > 0.95


def test_a_credit_tempers_every_probability_of_a_row() -> None:
    true, probs = wavering(2000)
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.3, K), np.random.default_rng(2))
    plain = replace(fit_posterior(labels, probs), fits=True, credit=1.0)
    exact = np.concatenate([j for _, j in plain.rows()])
    expected = exact**0.7 / (exact**0.7).sum(axis=1, keepdims=True)
    tempered = np.concatenate([j for _, j in replace(plain, credit=0.7).rows()])
    np.testing.assert_allclose(tempered, expected, atol=1e-12)


def test_the_quality_follows_the_credit() -> None:
    true, probs = wavering(2000)
    labels = np.where(np.random.default_rng(1).random(2000) < 0.2, true ^ 1, true)
    fitted = replace(fit_posterior(labels, probs), fits=True)
    less = credited(fitted)
    assert less.credit < 1
    rows = np.concatenate([j for _, j in less.rows()])
    np.testing.assert_allclose(less.label_quality, rows[np.arange(2000), labels], atol=1e-12)
    assert credited(replace(fitted, fits=False)).credit == 1
