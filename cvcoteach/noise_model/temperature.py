"""For many classes: temperature-scaled probabilities, passed through a sparse transition."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.base import Probs, chunks, two_best
from cvcoteach.noise_model.sparse_transition import SparseTransition, Transition
from cvcoteach.noise_model.top_probs import MANY_CLASSES, TopProbs

Best = tuple[IntArray, FloatArray, IntArray, FloatArray]

N_LIKELY = 16
"""Classes that matter in a row: the most probable ones, besides the given."""

_GROUP = 8
"""Classes of a group whose largest probability is looked at first."""

_FLOOR = 1e-12
_N_TUNED = 20_000
_TINY = 1e-300
_LEAST_NOISE = 0.01  # without any, every given label would be certain, and none worse than another
_STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
_MAX_ROUNDS = 30
_CONVERGED = 1e-5  # nats per image
_BLOCK = 1024  # rows


@dataclass(frozen=True, eq=False)
class Likely:
    """The classes that matter in each row; the last column is the given label."""

    classes: npt.NDArray[np.int32]
    """(n, m) class numbers."""
    logs: npt.NDArray[np.float32]
    """(n, m) log-probabilities over that of the most probable class; -inf in a column that repeats the given label."""
    others: npt.NDArray[np.float32]
    """(n,) log of the mean probability of all other classes, likewise; -inf where there are none."""
    n_others: npt.NDArray[np.int32]
    """(n,) how many other classes there are."""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """(n,) given labels."""
        return self.classes[:, -1]

    def __getitem__(self, rows: slice) -> Likely:
        return Likely(self.classes[rows], self.logs[rows], self.others[rows], self.n_others[rows])

    @staticmethod
    def of(labels: IntArray, probs: Probs | TopProbs) -> Likely:
        """Return the `N_LIKELY` most probable classes of each row of (n, K), and the given one."""
        n, k = probs.shape
        m = min(N_LIKELY, k)
        rows = np.arange(n)[:, None]
        if isinstance(probs, TopProbs):
            top = np.sort(np.argpartition(probs.values, -m, axis=1)[:, -m:], axis=1)
            classes = np.concatenate([probs.classes[rows, top], labels[:, None]], axis=1)
            values = np.concatenate([probs.values[rows, top], probs.at(labels)[:, None]], axis=1).astype(np.float64)
        else:
            classes = np.concatenate([_most_probable(probs, m), labels[:, None]], axis=1)
            values = probs[rows, classes].astype(np.float64)
        highest = values.max(axis=1)
        floor = _FLOOR * highest
        logs = np.log(np.maximum(values, floor[:, None]) / highest[:, None])
        repeated = classes[:, :-1] == labels[:, None]
        logs[:, :-1][repeated] = -np.inf
        n_others = k - m - 1 + repeated.any(axis=1)
        mass = np.maximum(1 - values[:, :-1].sum(axis=1) - np.where(repeated.any(axis=1), 0, values[:, -1]), 0)
        mean = np.maximum(mass / np.maximum(n_others, 1), floor)
        others = np.where(n_others > 0, np.log(mean / highest), -np.inf)
        return Likely(
            classes.astype(np.int32), logs.astype(np.float32), others.astype(np.float32), n_others.astype(np.int32)
        )

    @staticmethod
    def concatenated(parts: Sequence[Likely]) -> Likely:
        """Return the rows of all parts."""
        return Likely(
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.logs for part in parts]),
            np.concatenate([part.others for part in parts]),
            np.concatenate([part.n_others for part in parts]),
        )


def _most_probable(probs: Probs, m: int) -> IntArray:
    """Return the m most probable classes of each row of (n, K), ascending, (n, m).

    Of many classes, the largest of each of K/8 groups are looked at first: m of these reach the m-th largest, so that
    no smaller probability is among the most probable. Few are as large, which saves half the time.
    """
    n, k = probs.shape
    size = k // _GROUP
    if m == k:
        return np.broadcast_to(np.arange(k), (n, k))
    if size < 2 * m:
        return np.sort(np.argpartition(probs, k - m, axis=1)[:, k - m :], axis=1)
    largest = probs[:, : _GROUP * size].reshape(n, _GROUP, size).max(axis=1)
    least = np.partition(largest, size - m, axis=1)[:, size - m]
    row, column = np.divmod(np.flatnonzero(probs >= least[:, None]), k)
    counts = np.bincount(row, minlength=n)
    equal = counts > 2 * m  # many that are as probable as each other, as those of zero are
    width = max(m, int(counts[~equal].max(initial=m)))
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = place < width
    row, column, place = row[kept], column[kept], place[kept]
    values, columns = np.full((n, width), -1, probs.dtype), np.zeros((n, width), np.int64)
    values[row, place], columns[row, place] = probs[row, column], column
    found = np.take_along_axis(columns, np.argpartition(values, width - m, axis=1)[:, width - m :], axis=1)
    found[equal] = np.argpartition(probs[equal], k - m, axis=1)[:, k - m :]
    return np.sort(found, axis=1)


@dataclass(frozen=True, eq=False)
class TemperatureModel:
    """P(given | image) = Σ c_k·T[k, given], c ∝ p^(1/temperature); T from smoothed counts."""

    temperature: float
    """Temperature of the scaling: what log-probabilities are divided by, > 0."""
    noise: float
    """ε of the smooth transition (1 - ε)·1 + ε·given frequencies, in [0, 1]."""
    frequency: FloatArray
    """(K,) frequencies of the given labels."""
    pairs: IntArray
    """(p,) true·K + given of the pairs that occur, ascending."""
    counts: FloatArray
    """(p,) expected images of each pair."""
    totals: FloatArray
    """(K,) expected images of each true class."""
    strength: float
    """Images that the smooth transition counts for, per class."""

    def transition(self) -> Transition:
        """Return T[i, j] = P(given = j | true = i), (K, K), rows sum to 1."""
        k = len(self.totals)
        if k > MANY_CLASSES:
            base, own = self.strength * self.noise * self.frequency, np.array(self.strength * (1 - self.noise))
            return SparseTransition(1 / (self.totals + self.strength), base, own, self.pairs, self.counts)
        result = np.tile(self.strength * self.noise * self.frequency, (k, 1))
        result[np.diag_indices(k)] += self.strength * (1 - self.noise)
        result.ravel()[self.pairs] += self.counts
        result /= self.totals[:, None] + self.strength
        return result

    def prior(self) -> FloatArray:
        """Return P(true = k), (K,), sums to 1."""
        return self.totals / self.totals.sum()

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """Return P(true | image, given), (m, K), for rows that were fitted."""
        likely = Likely.of(labels, probs)
        found = self.likely_posterior(likely)
        others = np.maximum(1 - found.sum(axis=1), 0) / np.maximum(likely.n_others, 1)
        result = np.repeat(others[:, None], probs.shape[1], axis=1)
        rows = np.arange(len(labels))[:, None]
        result[rows, likely.classes[:, :-1]] = found[:, :-1]
        result[rows[:, 0], labels] = found[:, -1]
        return result

    def two_best(self, labels: IntArray, probs: Probs | TopProbs) -> Best:
        """Return what `base.two_best` does of the posterior of rows that were fitted, without its (m, K) numbers."""
        likely = Likely.of(labels, probs)
        found = self.likely_posterior(likely)
        classes, n_classes = likely.classes.astype(np.int64), len(self.totals)
        others = np.maximum(1 - found.sum(axis=1), 0) / np.maximum(likely.n_others, 1)
        found[:, :-1][classes[:, :-1] == labels[:, None]] = -1  # the last column has it
        best, prob = _first_best(classes, found, n_classes)
        found[:, -1] = -1
        other, other_prob = _first_best(classes, found, n_classes)
        rare = np.flatnonzero((likely.n_others > 0) & (others >= other_prob))
        for part in chunks(len(rare), n_classes):  # a class that is not among the likely ones: of equal ones the first
            some = rare[part]
            whole = two_best(self.posterior(labels[some], probs[some]), labels[some])
            best[some], prob[some], other[some], other_prob[some] = whole
        return best, prob, other, other_prob

    def before_label(self, probs: Probs) -> FloatArray:
        """Return P(true = k | image), (m, K): the temperature-scaled probabilities."""
        logs = np.log(np.maximum(probs.astype(np.float64), _FLOOR)) / self.temperature
        logs -= logs.max(axis=1, keepdims=True)
        c: FloatArray = np.exp(logs)
        return c / c.sum(axis=1, keepdims=True)

    def describe(self) -> str:
        """Return what was fitted."""
        uniform = f"uniform noise worth {self.strength:g} images per class"
        return f"temperature {self.temperature:.2f} and a sparse noise transition, smoothed by {uniform}"

    def likely_posterior(self, likely: Likely) -> FloatArray:
        """Return P(true | image, given), (m, columns of `likely`), for rows that were fitted; 0 where repeated.

        What a row lacks to 1 is the probability that the true class is none of these.
        """
        cell = likely.classes.astype(np.int64) * len(self.totals) + likely.labels[:, None]
        at = np.searchsorted(self.pairs, cell).clip(max=len(self.pairs) - 1)
        counts = np.where(self.pairs[at] == cell, self.counts[at], 0)
        return _settled(self, likely, _tempered(likely, 1 / self.temperature), counts)


def _first_best(classes: IntArray, values: FloatArray, n_classes: int) -> tuple[IntArray, FloatArray]:
    """Return the class with the largest value in each row, of equal ones the smallest number, and the value."""
    largest = values.max(axis=1)
    return np.where(values == largest[:, None], classes, n_classes).min(axis=1), largest


def fit_temperature(likely: Likely, n_classes: int) -> TemperatureModel:
    """Return the model of `fit_with_quality`."""
    return fit_with_quality(likely, n_classes)[0]


def fit_with_quality(likely: Likely, n_classes: int) -> tuple[TemperatureModel, FloatArray]:
    """Fit the given labels by maximum likelihood: temperature and smooth noise first, then T by EM.

    Each image is judged by a T counted from all others (its own share is taken out), so that the likelihood is a
    held-out one; it chooses how many images the smooth transition counts for. EM stops where a round gains
    less than 1e-5 nats per image, after 30 rounds at the latest.

    Returns:
        The model, and the probability (n,) that each given label is right, as `likely_posterior` has it.
    """
    n = len(likely.classes)
    frequency = (np.bincount(likely.labels, minlength=n_classes) + 1) / (n + n_classes)
    inverse, noise = _smooth_fit(likely[:: -(-n // _N_TUNED)], frequency)

    pairs, at = _numbered(likely.classes.astype(np.int64) * n_classes + likely.labels[:, None])
    true = pairs // n_classes
    blocks = [slice(start, start + _BLOCK) for start in range(0, n, _BLOCK)]
    c: FloatArray = np.empty(at.shape)
    rest: FloatArray = np.empty(n)
    for rows in blocks:
        c[rows] = _tempered(likely[rows], inverse)
        rest[rows] = _rest(c[rows])
    likelihood: FloatArray = np.empty(n)
    own: FloatArray = np.empty(c.shape)
    best, best_value = None, -np.inf
    for strength in _STRENGTHS:
        counts: FloatArray = np.zeros(len(pairs))
        totals: FloatArray = np.zeros(n_classes)
        own.fill(0)
        value = -np.inf
        for _ in range(_MAX_ROUNDS):
            model = TemperatureModel(1 / inverse, noise, frequency, pairs, counts, totals, strength)
            for rows in blocks:
                part = likely[rows], c[rows], rest[rows], counts.take(at[rows])
                likelihood[rows] = _posterior(model, *part, own[rows])
            last, value = value, float(np.log(likelihood).mean())
            if value < last + _CONVERGED:
                break
            counts = np.bincount(at.ravel(), own.ravel(), minlength=len(pairs)).astype(np.float64, copy=False)
            totals = np.bincount(true, counts, minlength=n_classes).astype(np.float64, copy=False)
        if value > best_value:
            best, best_value = model, value
    assert best is not None
    quality: FloatArray = np.empty(n)
    for rows in blocks:
        quality[rows] = _settled(best, likely[rows], c[rows], best.counts.take(at[rows]))[:, -1]
    return best, quality


def _smooth_fit(likely: Likely, frequency: FloatArray) -> tuple[float, float]:
    """Return 1/temperature, and ε of noise that goes to all classes by their frequency (K,)."""
    mean_of = frequency[likely.labels]

    @functools.lru_cache(maxsize=8)
    def own(log_inverse: float) -> FloatArray:
        return _tempered(likely, float(np.exp(log_inverse)))[:, -1]

    def loss(params: FloatArray) -> float:
        """Return the loss at log 1/temperature and log ε."""
        noise = min(np.exp(params[1]), 1.0)
        return float(-np.log(np.maximum((1 - noise) * own(float(params[0])) + noise * mean_of, _TINY)).mean())

    scales = np.log([0.25, 0.5, 1, 2])
    starts = itertools.product(scales, np.log([0.003, 0.03, 0.1, 0.3, 0.6]))
    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 80}
    start = min(starts, key=lambda each: loss(np.array(each)))
    log_inverse, log_noise = minimize(loss, start, method="Nelder-Mead", options=options).x
    return float(np.exp(log_inverse)), float(np.clip(np.exp(log_noise), _LEAST_NOISE, 1))


def _settled(model: TemperatureModel, likely: Likely, c: FloatArray, counts: FloatArray) -> FloatArray:
    """Return the posterior like `c` (n, m) at its fixed point: what an image says of T must not confirm the image."""
    own, rest = np.zeros(c.shape), _rest(c)
    for _ in range(3):
        _posterior(model, likely, c, rest, counts, own)
    return own


def _numbered(cells: IntArray) -> tuple[IntArray, IntArray]:
    """Return the different numbers among cells (n, m), ascending, and the place of each cell among them, (n, m).

    `numpy.unique` does the same in twice the memory. `cells` is overwritten.
    """
    flat = cells.ravel()
    order = np.argsort(flat)
    ordered = flat[order]
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    numbers = ordered[new]
    np.cumsum(new, out=ordered)
    ordered -= 1
    flat[order] = ordered
    return numbers, cells


def _tempered(likely: Likely, inverse: float) -> FloatArray:
    """Return (n, m); what a row lacks to 1 is spread over the other classes, taken as equally probable."""
    c = np.multiply(likely.logs, inverse, dtype=np.float64)
    np.exp(c, out=c)
    others = likely.n_others * np.exp(inverse * likely.others.astype(np.float64))
    c /= (c.sum(axis=1) + others)[:, None]
    return c


def _rest(c: FloatArray) -> FloatArray:
    """Return what each row of c (n, m) lacks to 1, (n,)."""
    rest: FloatArray = np.maximum(1 - c.sum(axis=1), 0)
    return rest


def _posterior(
    model: TemperatureModel, likely: Likely, c: FloatArray, rest: FloatArray, counts: FloatArray, own: FloatArray
) -> FloatArray:
    """Return the likelihood (n,), and write the posterior, like `c` (n, m), into `own`.

    rest: as `_rest` returns it.
    own: at first the rows' own share of the counts, taken out of these.
    """
    smooth = model.noise * model.frequency.take(likely.labels)
    joint = counts - own
    np.maximum(joint, 0, out=joint)
    joint += (model.strength * smooth)[:, None]
    joint[:, -1] += model.strength * (1 - model.noise)
    np.subtract(model.totals.take(likely.classes), own, out=own)
    np.maximum(own, 0, out=own)
    own += model.strength
    joint /= own
    joint *= c
    likelihood: FloatArray = joint.sum(axis=1)
    likelihood += rest * smooth
    np.maximum(likelihood, _TINY, out=likelihood)
    np.divide(joint, likelihood[:, None], out=own)
    return likelihood
