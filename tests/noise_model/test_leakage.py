"""Labels that leaked into the probabilities of their own class."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cvcoteach import fit_posterior
from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.base import one_hot
from cvcoteach.noise_model.ensemble import MeanModel
from cvcoteach.noise_model.leakage import label_targets, leakage

K = 5


def honest(n: int = 4000, rate: float = 0.2, seed: int = 0) -> tuple[FloatArray, IntArray, IntArray]:
    """Return what a perfect model of noisy labels says, the given labels, and the true ones."""
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(K, 0.15), n)
    true = (rng.random(n)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=K - 1)
    transition = noise.transition("symmetric", rate, K)
    return q @ transition, noise.flip_labels(true, transition, rng), true


def leaked(probs: FloatArray, labels: IntArray, of: int = 0) -> FloatArray:
    """Return probabilities that deny class `of` to the images given it, as uneven folds do."""
    result = probs.copy()
    result[labels == of, of] *= 0.1
    result[(labels != of), of] += 0.3 * (probs.argmax(axis=1) == of)[labels != of]
    return result / result.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.4])
def test_honest_probabilities_show_no_leakage(rate: float) -> None:
    probs, labels, _ = honest(rate=rate)
    np.testing.assert_array_equal(leakage(labels, probs), 0)


def test_heavy_noise_that_sure_models_see_through_is_no_leakage() -> None:
    """Models of clean labels, .9 sure and mostly right: only one in four labels is what they say, of every class."""
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=8000)
    labels = noise.flip_labels(true, noise.transition("symmetric", 0.72, K), rng)
    said = np.where(rng.random(len(true)) < 0.9, true, rng.integers(K, size=len(true)))
    probs = 0.9 * np.eye(K)[said] + 0.1 / K
    assert (labels == said).mean() < 0.3
    assert leakage(labels, probs).max() < 0.2


def test_where_every_class_has_leaked_all_have() -> None:
    probs, labels, _ = honest()
    for of in range(K):
        probs = leaked(probs, labels, of)
    assert (leakage(labels, probs) > 0.5).all()


def test_a_class_whose_labels_its_probabilities_contradict_has_leaked() -> None:
    probs, labels, _ = honest()
    found = leakage(labels, leaked(probs, labels))
    assert found[0] > 0.5
    np.testing.assert_array_equal(found[1:], 0)


def test_a_handful_of_images_shows_no_leakage() -> None:
    probs, labels, _ = honest(n=20)
    assert leakage(labels, leaked(probs, labels)).max() < 0.5


def test_targets_are_the_given_labels_where_nothing_leaked() -> None:
    probs, labels, _ = honest(n=50)
    np.testing.assert_array_equal(label_targets(labels, probs, np.zeros(K)), one_hot(labels, K))


def test_targets_of_a_leaked_class_are_its_probabilities() -> None:
    probs, labels, _ = honest(n=50)
    targets = label_targets(labels, probs, np.eye(K)[0])
    np.testing.assert_allclose(targets.sum(axis=0), 1)
    np.testing.assert_allclose(targets[0], probs[:, 0])
    np.testing.assert_allclose(targets[:, labels == 0], probs[labels == 0].T)
    others = labels != 0
    own = targets[labels[others], np.flatnonzero(others)]
    np.testing.assert_allclose(own, 1 - probs[others, 0])


def test_a_leaked_class_is_fitted_with_and_without_its_labels() -> None:
    probs, labels, true = honest()
    spoiled = leaked(probs, labels)
    fitted = fit_posterior(labels, spoiled)
    assert isinstance(fitted.model, MeanModel)
    assert len(fitted.model.members) == 3
    assert sum(fitted.model.weights) == pytest.approx(1)
    assert fitted.model.weights[0] == fitted.model.weights[1]
    wrong = labels != true
    naive = average_precision_score(wrong, -spoiled[np.arange(len(labels)), labels])
    assert average_precision_score(wrong, fitted.wrong) > naive + 0.08
