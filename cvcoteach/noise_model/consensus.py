"""The posterior over true labels where several annotators labelled the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import TINY, chunks
from cvcoteach.noise_model.overlap import count_as_one, overlap_groups
from cvcoteach.noise_model.posterior import Posterior
from cvcoteach.noise_model.sparse_transition import Transition


@dataclass(frozen=True, eq=False)
class ConsensusPosterior(Posterior):
    """What the image shows, by the noise model of the consensus labels, weighed with what every annotator said.

    `labels` are those of the consensus; an annotator's word counts by how often the annotator is right.
    """

    base: Posterior
    """Of the consensus labels, as if one annotator had given them."""
    votes: csr_array
    """(n, K) sum of the log-odds of the annotators that gave each class."""

    @property
    def transition(self) -> Transition:
        """(K, K) T[i, j] = P(consensus = j | true = i), rows sum to 1."""
        return self.base.transition

    @property
    def prior(self) -> FloatArray:
        """(K,) P(true = i), sums to 1."""
        return self.base.prior

    def rows(self) -> Iterator[tuple[IntArray | slice, FloatArray]]:
        """Yield the rows of each chunk, and their posterior P(true = k | image, all labels), (m, K), rows sum to 1."""
        for rows in chunks(*self.pred_probs.shape):
            yield rows, self._of(rows)

    def _of(self, rows: slice) -> FloatArray:
        seen = self.base.model.before_label(np.asarray(self.pred_probs[rows].clip(0, 1)))
        logs = np.log(np.maximum(seen, TINY)) + self.votes[rows].toarray()
        logs -= logs.max(axis=1, keepdims=True)
        result = np.exp(logs)
        return np.asarray(result / result.sum(axis=1, keepdims=True))


def seen_in_images(posterior: Posterior, which: IntArray) -> FloatArray:
    """Return P(true = k | image) of the images `which` (m,), before anybody's label is looked at; rows sum to 1."""
    k = posterior.pred_probs.shape[1]
    result = np.empty((len(which), k))
    with threadpool_limits(1):
        for rows in chunks(len(which), k):
            result[rows] = posterior.model.before_label(posterior.pred_probs[which[rows]].clip(0, 1))
    return result


def with_annotators(base: Posterior, votes: csr_array) -> Posterior:
    """Return the posterior that heeds all annotators; without a signal in the images the one that was given.

    Args:
        base: Of the consensus labels.
        votes: (n, K) sum of the log-odds of the annotators that gave each class, log(a / (1 - a) · (K - 1)) of one who
            is right with probability a and otherwise names any class.
    """
    if not base.has_signal:
        return base
    result = ConsensusPosterior(
        base.labels, base.pred_probs, base.label_quality, base.signal, base.model, base, votes, overlaps=base.overlaps
    )
    group = overlap_groups(base.overlaps, base.pred_probs.shape[1])
    quality = np.empty(len(base.labels))
    with threadpool_limits(1):
        for rows, posterior in result.rows():
            count_as_one(posterior, base.labels[rows], group)
            quality[rows] = posterior[np.arange(len(posterior)), base.labels[rows]]
    result = replace(result, label_quality=quality.clip(0, 1))
    return result if base.stranger is None else result.with_strangers(base.stranger)
