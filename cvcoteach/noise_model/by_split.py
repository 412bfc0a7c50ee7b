"""A posterior whose noise is estimated for each split of a dataset, since train is often noisier than test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import TINY, NoiseModel, Probs, chunks
from cvcoteach.noise_model.overlap import count_as_one, overlap_groups
from cvcoteach.noise_model.posterior import Posterior, fit_posterior
from cvcoteach.noise_model.scaled import fit_scaled


@dataclass(frozen=True, eq=False)
class PosteriorBySplit(Posterior):
    """The posterior of a dataset with splits; signal and model are those of the split that models learned from."""

    parts: tuple[tuple[IntArray, NoiseModel], ...]
    """The rows of each split, ascending, with the noise model that explains its labels."""

    @cached_property
    def transition(self) -> FloatArray:
        """(K, K) T[i, j] = P(given = j | true = i) of all splits together, rows sum to 1."""
        joint = sum(len(rows) * model.prior()[:, None] * model.transition() for rows, model in self.parts)
        totals = np.sum(joint, axis=1, keepdims=True)
        return np.asarray(np.where(totals > TINY, joint / np.maximum(totals, TINY), self.model.transition()))

    @property
    def prior(self) -> FloatArray:
        """(K,) P(true = i) of all splits together, sums to 1."""
        return np.asarray(sum(len(rows) * model.prior() for rows, model in self.parts) / len(self.labels))

    def rows(self) -> Iterator[tuple[IntArray | slice, FloatArray]]:
        """Yield the rows of each chunk, and their posterior P(true = k | image, given label), (m, K), rows sum to 1."""
        for part, model in self.parts:
            for chunk in chunks(len(part), self.pred_probs.shape[1]):
                rows = part[chunk]
                yield rows, model.posterior(self.labels[rows], self.pred_probs[rows].clip(0, 1))


def fit_by_split(labels: IntArray, probs: Probs, parts: Sequence[IntArray]) -> PosteriorBySplit:
    """Return the posterior with as much noise in each split as its own labels tell.

    The first split is explained as by `fit_posterior`, the others by a multiple of its noise (`fit_scaled`). Without a
    signal in the first one, nothing is claimed about any.

    Args:
        labels: (n,) given, 0..K-1.
        probs: (n, K) by models that did not train on the image.
        parts: Rows of each split, together all n; first the one that the models learned from.
    """
    first = fit_posterior(labels[parts[0]], probs[parts[0]])
    quality = np.empty(len(labels))
    quality[parts[0]] = first.label_quality
    group = overlap_groups(first.overlaps, probs.shape[1])
    models: list[tuple[IntArray, NoiseModel]] = [(parts[0], first.model)]
    with threadpool_limits(1):  # as in `fit_posterior`
        for part in parts[1:]:
            model = fit_scaled(first.model, labels[part], probs[part]) if first.has_signal else first.model
            models.append((part, model))
            for chunk in chunks(len(part), probs.shape[1]):
                rows = part[chunk]
                posterior = model.posterior(labels[rows], probs[rows].clip(0, 1))
                count_as_one(posterior, labels[rows], group)
                quality[rows] = posterior[np.arange(len(rows)), labels[rows]]
    return PosteriorBySplit(
        labels, probs, quality.clip(0, 1), first.signal, first.model, tuple(models), overlaps=first.overlaps
    )
