"""What models learn next, from a posterior."""

from __future__ import annotations

import numpy as np
import pytest

from cvcoteach.crossval.selection_rules import SURE, keep_and_drop_by_part, what_to_learn
from cvcoteach.noise_model.posterior import Posterior, fit_posterior


def posterior_of(wrong_share: float, n: int = 900) -> Posterior:
    """Three classes, sure probabilities of the true class, the first labels of each class right."""
    true = np.arange(n) % 3
    labels = np.where(np.arange(n) < n * (1 - wrong_share), true, (true + 1 + np.arange(n) // 3 % 2) % 3)
    rng = np.random.default_rng(0)
    logits = 4 * np.eye(3)[true] + 0.8 * rng.normal(size=(n, 3))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    noisy = (1 - 1.5 * wrong_share) * probs + 0.5 * wrong_share
    return fit_posterior(labels, noisy)


def test_labels_that_are_more_probably_right_are_learned_as_given() -> None:
    posterior = posterior_of(0.2)
    learned, selected = what_to_learn(posterior, 0)
    assert 0 < posterior.wrong.mean() <= 0.5
    assert (learned == posterior.labels).all()
    assert (selected == (posterior.wrong <= 0.5)).all()
    assert 0 < selected.sum() < 900


def test_the_least_doubtful_of_each_class_stay_with_their_label() -> None:
    posterior = posterior_of(0.2)
    learned, selected = what_to_learn(posterior, 400)
    assert (learned == posterior.labels).all()
    assert selected.all(), "no class has more than 400 images"
    best = [np.argsort(np.where(posterior.labels == k, posterior.wrong, 2), kind="stable")[:5] for k in range(3)]
    assert what_to_learn(posterior, 5)[1][np.concatenate(best)].all()


def test_where_most_are_wrong_the_most_probable_class_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior = posterior_of(0.2)
    monkeypatch.setattr("cvcoteach.crossval.selection_rules.MOSTLY_WRONG", 0.0)
    learned, selected = what_to_learn(posterior, 2)
    sure = posterior.suggested_prob >= SURE
    assert selected[sure].all()
    assert (learned != posterior.suggested).sum() <= 6
    assert (learned != posterior.labels).sum() > 50


def test_parts_are_kept_and_dropped_one_by_one() -> None:
    labels, parts = np.zeros(6, np.int64), np.array([0, 0, 0, 1, 1, 1])
    own = np.array([0.9, 0.8, 0.1, 0.7, 0.2, 0.3])
    kept, dropped = keep_and_drop_by_part(labels, np.c_[own, 1 - own].astype(np.float32), parts, 1.0)
    assert kept.tolist() == [0, 1, 3]
    assert dropped.tolist() == [2, 4], "of the first part 2 may go, of the second 1"
