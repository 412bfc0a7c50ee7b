"""The posterior over true labels, from given labels and anybody's out-of-sample probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from cvcoteach._memory import check_memory
from cvcoteach._validation import FloatArray, InputError, IntArray, PredProbs, as_labels, as_pred_probs, check_rows
from cvcoteach.noise_model.base import NoiseModel, Probs, chunks, most_probable, two_best
from cvcoteach.noise_model.ensemble import fit_mean
from cvcoteach.noise_model.no_signal import NoSignalModel
from cvcoteach.noise_model.overlap import count_as_one, overlap_groups, overlapping_pairs
from cvcoteach.noise_model.signal import Signal, signal_of
from cvcoteach.noise_model.sparse_transition import Transition
from cvcoteach.noise_model.temperature import Likely, TemperatureModel, fit_with_quality
from cvcoteach.noise_model.top_probs import N_KEPT, TopProbs

MAX_FREE_CLASSES = 32
"""Up to here every entry of T and of the calibration is fitted; beyond, T is sparse and smoothed."""

NO_SIGNAL = "The labels carry no signal that these models can see"

_TOLERANCE = 1e-3
_FEWER_CHUNKS = 4
"""Times as many rows as elsewhere, where only the largest probabilities of a row are copied."""
_BYTES_PER_ROW = 800.0
"""Memory that the posterior of many classes takes beside the probabilities."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """The posterior over true labels, given labels and out-of-sample probabilities. Keeps references to both arrays."""

    labels: IntArray
    """(n,) given labels."""
    pred_probs: Probs | TopProbs
    """(n, K) as given."""
    label_quality: FloatArray
    """(n,) probability that the given label is right, in [0, 1]; the self-confidence if no better than chance."""
    signal: Signal
    """How much the probabilities know about the labels."""
    model: NoiseModel
    """The fitted explanation of the given labels."""
    overlaps: IntArray = field(default_factory=lambda: np.empty((0, 2), np.int64), kw_only=True)
    """(m, 2) pairs of classes whose labels cannot be told apart; either counts as right where the other is."""
    stranger: FloatArray | None = field(default=None, kw_only=True)
    """(n,) probability that an image belongs to none of the classes, in [0, 1]; None where nobody looked."""

    @property
    def has_signal(self) -> bool:
        """Whether the probabilities know enough about the labels to tell wrong ones; if not, qualities only rank."""
        return self.signal.found

    @property
    def note(self) -> str:
        """What was fitted, or why there is no signal, in a sentence or two."""
        if self.has_signal:
            return f"Noise model: {self.model.describe()}."
        return f"{NO_SIGNAL}: {self.signal.reason}."

    @property
    def wrong(self) -> FloatArray:
        """(n,) probability that the given label is wrong, in [0, 1]."""
        return 1 - self.label_quality

    @cached_property
    def transition(self) -> Transition:
        """(K, K) T[i, j] = P(given = j | true = i), rows sum to 1; sparse for more than `MANY_CLASSES`."""
        return self.model.transition()

    def with_strangers(self, stranger: FloatArray) -> Self:
        """Return the posterior that knows of images that belong to none of the classes.

        stranger: (n,) probabilities; what they take is missing from every class, the given one included.
        """
        return replace(self, label_quality=self.label_quality * (1 - stranger), stranger=stranger)

    @property
    def prior(self) -> FloatArray:
        """(K,) P(true = i), sums to 1."""
        return self.model.prior()

    @property
    def predicted(self) -> IntArray:
        """(n,) the most probable class by the probabilities as they are."""
        if isinstance(self.pred_probs, TopProbs):
            return self.pred_probs.argmax(axis=1)
        return most_probable(self.pred_probs)

    @property
    def suggested(self) -> IntArray:
        """(n,) the most probable true class."""
        return self._best[0]

    @property
    def suggested_prob(self) -> FloatArray:
        """(n,) its probability, in [0, 1]."""
        return self._best[1]

    @property
    def alternative(self) -> IntArray:
        """(n,) the most probable true class other than the given one."""
        return self._best[2]

    @property
    def alternative_prob(self) -> FloatArray:
        """(n,) its probability, in [0, 1]."""
        return self._best[3]

    @cached_property
    def _best(self) -> tuple[IntArray, FloatArray, IntArray, FloatArray]:
        n = len(self.labels)
        best, prob, other, other_prob = np.empty(n, np.int64), np.empty(n), np.empty(n, np.int64), np.empty(n)
        with threadpool_limits(1):  # as in `fit_posterior`: the same to the bit with any number of threads
            group = overlap_groups(self.overlaps, self.pred_probs.shape[1])
            alone = type(self) is Posterior and not len(self.overlaps)  # others have rows of their own
            if alone and isinstance(self.model, TemperatureModel):
                for rows in _chunks(self.pred_probs):
                    found = self.model.two_best(self.labels[rows], _part(self.pred_probs, rows, clipped=True))
                    best[rows], prob[rows], other[rows], other_prob[rows] = found
            else:
                for part, posterior in self.rows():
                    count_as_one(posterior, self.labels[part], group)
                    best[part], prob[part], other[part], other_prob[part] = two_best(posterior, self.labels[part])
        if self.stranger is not None:
            prob *= 1 - self.stranger
            other_prob *= 1 - self.stranger
        return best, prob, other, other_prob

    def rows(self) -> Iterator[tuple[IntArray | slice, FloatArray]]:
        """Yield the rows of each chunk, and their posterior P(true = k | image, given label), (m, K), rows sum to 1."""
        for rows in chunks(*self.pred_probs.shape):
            yield rows, self.model.posterior(self.labels[rows], self.pred_probs[rows].clip(0, 1))


def noise_transition(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> Transition:
    """Return T[i, j] = P(given = j | true = i), (K, K), rows sum to 1. Arguments and errors as of `fit_posterior`.

    For more than 2,000 classes it is a `SparseTransition`; `numpy.asarray` makes an array of it.
    """
    return fit_posterior(labels, pred_probs).transition


def label_posterior(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> PredProbs:
    """Return P(true = k | image, given label), (n, K), rows sum to 1. Arguments and errors as of `fit_posterior`."""
    fitted = fit_posterior(labels, pred_probs)
    result = np.empty(fitted.pred_probs.shape, np.float32)
    with threadpool_limits(1):
        for rows, posterior in fitted.rows():
            result[rows] = posterior
    return result


def fit_posterior(labels: npt.ArrayLike, pred_probs: npt.ArrayLike | TopProbs) -> Posterior:
    """Undo the label noise in out-of-sample probabilities, whoever's they are.

    Given labels are explained as P(given | image) = Σ_k c_k(image)·T[k, given]. Up to 32 classes, two models that err
    differently are averaged: an affine one, which calibrates c to the labels (`AffineModel`), and one that takes the
    probabilities literally (`RichardsonLucyModel`). The first has all the weight where T explains more of the held-out
    labels than any calibration can; where a calibration does as well, so that likelihood cannot identify T, it has .6.
    Where hardly any label is wrong, one rate for all classes (`UniformNoiseModel`) takes the second one's place. All
    are fitted to at most 20,000 rows. For more classes, c is temperature-scaled and T sparse (`TemperatureModel`).

    Labels that leaked into the probabilities do not teach the affine model (`leakage`). Where labels and models confuse
    the same classes, as people and networks do, the posterior is less certain (`shared_errors`). Where the
    probabilities know nothing about the labels, nothing is fitted; where they know too little to tell wrong labels from
    difficult images, `has_signal` is False too (`Signal.found`). Classes whose labels they cannot tell apart count as
    one (`overlapping_pairs`).

    Args:
        labels: (n,) given, whole numbers 0..K-1.
        pred_probs: (n, K), each row by a model that did not train on it, whether it learned given or cleaned labels. A
            memory map is read in blocks of rows.

    Returns:
        The posterior. Deterministic, the same to the bit with any number of threads. Extra memory: 8 bytes per row and
        some twenty megabytes for up to 32 classes, .8 kB per row for more.

    Raises:
        InputError: For labels or probabilities that do not fit.

    References:
        Goldberger & Ben-Reuven, ICLR 2017; Northcutt, Jiang, Chuang, JAIR 2021; Richardson, J. Opt. Soc. Am. 1972.
    """
    probs = pred_probs if isinstance(pred_probs, TopProbs) else np.asarray(pred_probs)
    if probs.ndim != 2:
        raise InputError(f"pred_probs has shape {probs.shape}; it takes one row per image, shape (n, K).")
    y, k = as_labels(labels, probs.shape[1])
    given = np.asarray(labels)
    y = given if given.dtype == y.dtype else y  # not both: a million labels are eight megabytes
    _check(probs, len(y))
    with threadpool_limits(1):  # these products are too small to share: threads would cost 50 times as much
        signal = signal_of(y, probs)
        if not signal.above_chance:
            return _by_rows(y, probs, signal, NoSignalModel(np.bincount(y, minlength=k) / len(y)))
        if isinstance(probs, TopProbs):
            return _many_classes(y, probs, signal)
        if k > MAX_FREE_CLASSES:
            return _with_overlaps(_many_classes(y, probs, signal))
        fit = fit_mean(y, probs)
        signal = replace(signal, confidence=fit.confidence, evidence=fit.evidence)
        return _with_overlaps(_by_rows(y, probs, signal, fit.model))


def _with_overlaps(found: Posterior) -> Posterior:
    """Return the posterior that counts classes as one whose labels cannot be told apart."""
    k, probs = found.pred_probs.shape[1], found.pred_probs
    if isinstance(probs, TopProbs):  # says too little of most pairs
        return found
    pairs = overlapping_pairs(found.labels, probs)
    if not len(pairs):
        return found
    group = overlap_groups(pairs, k)
    quality = found.label_quality.copy()
    affected = np.flatnonzero(np.isin(found.labels, pairs))
    for part in chunks(len(affected), k):
        rows = affected[part]
        labels = found.labels[rows]
        posterior = found.model.posterior(labels, probs[rows].clip(0, 1))
        count_as_one(posterior, labels, group)
        quality[rows] = posterior[np.arange(len(rows)), labels].clip(0, 1)
    return replace(found, label_quality=quality, overlaps=pairs)


def _chunks(probs: Probs | TopProbs) -> Iterator[slice]:
    """Yield slices that cover the rows, each with few enough numbers to stay in the processor's cache."""
    return chunks(len(probs), -(-(N_KEPT if isinstance(probs, TopProbs) else probs.shape[1]) // _FEWER_CHUNKS))


def _part(probs: Probs | TopProbs, rows: slice, *, clipped: bool = False) -> Probs | TopProbs:
    if isinstance(probs, TopProbs):
        return probs.rows(rows)
    return probs[rows].clip(0, 1) if clipped else probs[rows]


def _by_rows(labels: IntArray, probs: Probs | TopProbs, signal: Signal, model: NoiseModel) -> Posterior:
    quality = np.empty(len(labels))
    for rows in chunks(*probs.shape):
        each = np.arange(rows.stop - rows.start)
        quality[rows] = model.posterior(labels[rows], probs[rows].clip(0, 1))[each, labels[rows]]
    return Posterior(labels, probs, quality.clip(0, 1, out=quality), signal, model)


def _many_classes(labels: IntArray, probs: Probs | TopProbs, signal: Signal) -> Posterior:
    check_memory(_BYTES_PER_ROW * len(labels), f"the posterior of {len(labels):,} images")
    likely = Likely.concatenated([Likely.of(labels[rows], _part(probs, rows)) for rows in _chunks(probs)])
    model, quality = fit_with_quality(likely, probs.shape[1])
    return Posterior(labels, probs, quality.clip(0, 1, out=quality), signal, model)


def _check(probs: Probs | TopProbs, n: int) -> None:
    """Check as `as_pred_probs` does, without its copy."""
    if isinstance(probs, TopProbs):
        check_rows(n, "pred_probs", len(probs))
        return
    fits = probs.dtype.kind in "fiu" and len(probs) == n
    for rows in chunks(*probs.shape) if fits else ():
        chunk = probs[rows]
        off = np.abs(_sums(chunk) - 1).max()
        if not (chunk.min() >= -_TOLERANCE and chunk.max() <= 1 + _TOLERANCE and off <= _TOLERANCE):
            fits = False
            break
    if not fits:
        as_pred_probs(probs, (n, probs.shape[1]))


def _sums(chunk: Probs) -> FloatArray:
    """Return the sum of each row, (m,); of float32 by a product, three times as fast and off by less than 1e-5."""
    if chunk.dtype != np.float32:
        return np.asarray(chunk.sum(axis=1, dtype=np.float64))
    sums = (chunk @ np.ones(chunk.shape[1], np.float32)).astype(np.float64)
    near = np.abs(np.abs(sums - 1) - _TOLERANCE) < _TOLERANCE / 10
    if near.any():
        sums[near] = chunk[near].sum(axis=1, dtype=np.float64)
    return sums
