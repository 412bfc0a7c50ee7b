"""Strangers are told by the features of a trainer, unless a model sees the given class in them."""

from __future__ import annotations

import numpy as np

from cvcoteach._validation import FloatArray, IntArray, PredProbs
from cvcoteach.crossval.incv import IterativeCV


class Known:
    """A trainer on features whose models answer as they are told."""

    def __init__(self, features: FloatArray, probs: PredProbs) -> None:
        self.features, self.probs = features, probs

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        return self.probs[eval_idx]


def test_strangers_lie_far_out_and_no_model_sees_their_label_in_them() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    features = rng.normal(scale=4, size=(3, 20))[labels] + rng.normal(size=(600, 20))
    probs = np.full((600, 3), 0.02, np.float32)
    probs[np.arange(600), labels] = 0.96
    features[:12] = 30 + rng.normal(size=(12, 20))
    probs[:9] = 1 / 3  # of the twelve that lie far out, three are sure to be what they are called
    labels[:9] = rng.integers(0, 3, 9)
    issues = IterativeCV(n_rounds=1).run(Known(features, probs), labels).issues(["a", "b", "c"])
    assert np.flatnonzero(issues.is_stranger).tolist() == list(range(9))
    assert issues.label_quality[:9].max() < 0.1
    assert (issues.suggested_prob[:9] < 0.5).all()
    assert issues.is_label_issue[:9].all()


def test_a_trainer_without_features_tells_no_strangers() -> None:
    labels = np.arange(60) % 3
    probs = np.full((60, 3), 0.02, np.float32)
    probs[np.arange(60), labels] = 0.96
    trainer = Known(np.zeros((60, 2)), probs)
    del trainer.features
    assert IterativeCV(n_rounds=1).run(trainer, labels).issues().stranger is None
