"""Whether the probabilities know anything about the labels, and enough to tell wrong labels from difficult images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from cvcoteach import fit_posterior
from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.issues.flags import flags_of
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.no_signal import NoSignalModel
from cvcoteach.noise_model.posterior import NO_SIGNAL
from cvcoteach.noise_model.signal import Signal, signal_of


def cross_validated(x: FloatArray, labels: IntArray) -> FloatArray:
    """Return out-of-sample probabilities of a logistic regression, (n, K)."""
    model = LogisticRegression(max_iter=200)
    probs: FloatArray = cross_val_predict(model, x, labels, cv=3, method="predict_proba")
    return probs


def noise_features(n: int, k: int, seed: int) -> tuple[FloatArray, IntArray]:
    """Return features that say nothing about the classes, and labels."""
    return np.random.default_rng(seed).standard_normal((n, 20)), np.arange(n) % k


def shuffled_digits(seed: int) -> tuple[FloatArray, IntArray]:
    """Return real images, and labels in a random order."""
    x, true = load_digits(return_X_y=True)
    return x / 16, np.random.default_rng(seed).permutation(true)


def nothing_learned() -> list[tuple[str, FloatArray, IntArray]]:
    """Return data without a signal: name, probabilities, labels."""
    cases = [
        (f"noise {n} x {k}", *noise_features(n, k, seed))
        for seed, (n, k) in enumerate([(100, 2), (300, 5), (1000, 10)])
    ]
    cases += [(f"shuffled digits {seed}", *shuffled_digits(seed)) for seed in range(2)]
    found = [(name, cross_validated(x, labels), labels) for name, x, labels in cases]
    labels = np.arange(300) % 10
    equal = np.tile(np.random.default_rng(0).dirichlet(np.ones(10)), (300, 1))
    return [*found, ("uniform", np.full((300, 10), 0.1), labels), ("equal rows", equal, labels)]


@pytest.mark.slow
def test_models_that_learned_nothing_leave_no_signal_and_no_flag() -> None:
    for name, probs, labels in nothing_learned():
        fitted = fit_posterior(labels, probs)
        assert not fitted.has_signal, name
        assert isinstance(fitted.model, NoSignalModel), name
        assert fitted.note.startswith(f"{NO_SIGNAL}: the given labels are preferred to chance by"), name
        assert not flags_of(fitted).any(), name


def test_thirty_images_are_too_few_however_good_the_model() -> None:
    labels = np.arange(30) % 3
    probs = 0.97 * np.eye(3)[labels] + 0.01
    few = fit_posterior(labels, probs)
    assert not few.has_signal
    assert few.note == f"{NO_SIGNAL}: 30 images are fewer than the 50 that it takes."
    assert fit_posterior(np.tile(labels, 2), np.tile(probs, (2, 1))).has_signal


def test_without_a_signal_nothing_is_said_about_the_noise() -> None:
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(4), 500), rng.integers(4, size=500)
    fitted = fit_posterior(labels, probs)
    np.testing.assert_array_equal(fitted.transition, np.eye(4))
    np.testing.assert_allclose(fitted.prior, np.bincount(labels) / 500)
    np.testing.assert_allclose(fitted.label_quality, probs[np.arange(500), labels])
    np.testing.assert_array_equal(fitted.suggested, probs.argmax(axis=1))


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.7])
def test_heavy_noise_is_not_mistaken_for_no_signal(rate: float) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(6, size=3000)
    labels = noise.flip_labels(true, noise.transition("symmetric", rate, 6), rng)
    x = 3 * np.eye(6)[true] + rng.standard_normal((3000, 6))
    found = signal_of(labels, cross_validated(x, labels))
    assert found.above_chance
    assert found.standard_errors > 10


def test_perfect_probabilities_have_all_the_signal_there_is() -> None:
    labels = np.arange(1000) % 10
    assert signal_of(labels, np.eye(10)[labels]).share == pytest.approx(1)


def test_uncalibrated_probabilities_keep_their_signal() -> None:
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(4, 0.3), 2000)
    labels = (rng.random(2000)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=3)
    for power in (0.2, 1.0, 5.0):
        sharpened = q**power / (q**power).sum(axis=1, keepdims=True)
        assert signal_of(labels, sharpened).above_chance, power


def test_large_arrays_are_sampled() -> None:
    labels = np.arange(500_000) % 4
    probs = np.full((500_000, 4), 0.2, np.float32)
    probs[np.arange(500_000), labels] = 0.4
    found = signal_of(labels, probs)
    assert (found.n_images, found.n_per_class) == (500_000, 125_000)
    assert found.share == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, True),
        ({"confidence": 0.6}, False),
        ({"agreement": 0.5}, True),
        ({"agreement": 0.5, "confidence": 0.78}, False),
        ({"agreement": 0.5, "confidence": 0.78, "n_per_class": 150.0}, True),
        ({"confidence": 0.6, "evidence": 3.0}, True),
        ({"confidence": 0.6, "n_per_class": 150.0}, True),
        ({"confidence": 0.6, "n_per_class": 150.0, "agreement": 0.2}, False),
        ({"confidence": 0.6, "n_per_class": 2000.0, "agreement": 0.2}, True),
        ({"n_images": 40}, False),
        ({"standard_errors": 2.0}, False),
        ({"share": 0.005}, False),
    ],
)
def test_a_signal_needs_images_a_preference_and_confident_models_or_evidence(
    change: dict[str, float], found: bool
) -> None:
    strong = Signal(
        share=0.8, standard_errors=20.0, n_images=300, n_per_class=30.0, agreement=0.7, confidence=0.9, evidence=0.0
    )
    assert replace(strong, **change).found is found


@pytest.mark.slow
@pytest.mark.parametrize("n", [300, 600])
def test_a_weak_model_of_few_images_does_not_pass_its_own_errors_off_as_wrong_labels(n: int) -> None:
    x, true = load_digits(return_X_y=True)
    labels = noise.flip_labels(true[:n], noise.transition("symmetric", 0.03, 10), np.random.default_rng(0))
    weak, able = (fit_posterior(labels, cross_validated(x[:n, :columns] / 16, labels)) for columns in (12, 64))
    assert not weak.has_signal
    assert "cannot be told from images that are difficult for the models" in weak.note
    assert not flags_of(weak).any()
    assert able.has_signal
    assert able.wrong.mean() == pytest.approx(np.mean(labels != true[:n]), abs=0.03)
