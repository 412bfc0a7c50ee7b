"""Where the probabilities know nothing about the labels, no label is called wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import TINY, Probs
from cvcoteach.noise_model.sparse_transition import SparseTransition, Transition
from cvcoteach.noise_model.top_probs import MANY_CLASSES


@dataclass(frozen=True, eq=False)
class NoSignalModel:
    """The probabilities as they came: no noise is claimed and no label contradicted."""

    frequency: FloatArray
    """(K,) of the given labels."""

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """Return (m, K) the probabilities, rows that sum to 1; labels are ignored."""
        return self.before_label(probs)

    def before_label(self, probs: Probs) -> FloatArray:
        """Return (m, K) the probabilities, rows that sum to 1."""
        result = probs.astype(np.float64)
        return result / np.maximum(result.sum(axis=1, keepdims=True), TINY)

    def transition(self) -> Transition:
        """Return (K, K) the identity."""
        k = len(self.frequency)
        if k > MANY_CLASSES:
            nothing = np.zeros(0)
            return SparseTransition(np.ones(k), np.zeros(k), np.array(1.0), nothing.astype(np.int64), nothing)
        return np.eye(k)

    def prior(self) -> FloatArray:
        """Return (K,) frequencies of the given labels."""
        return self.frequency

    def describe(self) -> str:
        """Return that nothing was fitted."""
        return "no noise model"
