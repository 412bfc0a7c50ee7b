"""Fakes for the one contract: trainers one can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cvcoteach._validation import FloatArray, IntArray, PredProbs
from cvcoteach.crossval.trainer import Fold
from cvcoteach.noise_model import simulate as noise


@dataclass
class NearestMeans:
    """Classes by the distance to the mean of their training features; a class without images gets nothing."""

    features: FloatArray
    n_classes: int

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Softmax of minus the squared distance."""
        logits = np.full((len(eval_idx), self.n_classes), -np.inf)
        for label in np.unique(train_labels):
            mean = self.features[train_idx[train_labels == label]].mean(axis=0)
            logits[:, label] = -((self.features[eval_idx] - mean) ** 2).sum(axis=1)
        logits -= logits.max(axis=1, keepdims=True)
        probs = np.exp(logits)
        return (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass
class Table:
    """Answers from a given table (n, K), whatever it was trained on; remembers what it was asked."""

    pred_probs: FloatArray
    asked: list[Fold] = field(default_factory=list)

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """The rows asked for."""
        self.asked.append(Fold(train_idx, train_labels, eval_idx, seed))
        return self.pred_probs[eval_idx].astype(np.float32)


@dataclass
class BatchTable(Table):
    """A table that answers a whole round at once; counts how often."""

    batches: int = 0

    def fit_predict_many(self, folds: Sequence[Fold]) -> list[PredProbs]:
        """One answer a fold."""
        self.batches += 1
        return [self.fit_predict(*fold) for fold in folds]


@dataclass
class NoisyCopier:
    """A fold model whose confusion matrix equals the transition: draws its prediction from T[true label]."""

    true_labels: IntArray
    transition: FloatArray

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Sure of what it drew."""
        rng = np.random.default_rng(seed)
        k = len(self.transition)
        cumulative = np.cumsum(self.transition, axis=1)[self.true_labels[eval_idx]]
        drawn = (rng.random(len(eval_idx))[:, None] > cumulative).sum(axis=1).clip(max=k - 1)
        return np.eye(k, dtype=np.float32)[drawn]


def clouds(n: int, n_classes: int, wrong: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, 3) in K clouds, true labels, given labels with a share `wrong` flipped."""
    rng = np.random.default_rng(seed)
    true = rng.integers(n_classes, size=n)
    centres = rng.normal(size=(n_classes, 3)) * 2
    given_labels = noise.flip_labels(true, noise.transition("symmetric", wrong, n_classes), rng)
    return centres[true] + rng.normal(size=(n, 3)), true, given_labels
