"""What wrong labels do: the noise transition, and the posterior over true labels that undoes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from cvcoteach._validation import FloatArray, InputError, IntArray, PredProbs, as_labels, as_pred_probs, near
from cvcoteach.noise_model.affine import AffineModel, fit_affine
from cvcoteach.noise_model.richardson_lucy import DeconvolvedModel, fit_deconvolved
from cvcoteach.noise_model.shared_errors import SHARED, credit_of, shared_errors
from cvcoteach.noise_model.temperature import Likely, TemperatureModel, fit_temperature

TrainedOn = Literal["noisy", "clean"]

Model = AffineModel | DeconvolvedModel | TemperatureModel

MAX_FREE_CLASSES = 32
"""Up to here every entry of T and of the calibration is fitted; beyond, T is sparse and smoothed."""

_N_FITTED, _N_DRAWN = 20_000, 160_000
_CHUNK_VALUES = 1 << 16
_TOLERANCE = 1e-3
_TINY = 1e-300
_WORTH, _NEARLY = 0.001, 0.005  # nats an image
_EVEN_FITTED, _EVEN_SEEN = 100.0, 30.0  # images


@dataclass(frozen=True, eq=False)
class Posterior:
    """What given labels and out-of-sample probabilities say about the true labels. Holds on to both arrays."""

    labels: IntArray
    """(n,) given labels."""
    pred_probs: npt.NDArray[np.floating]
    """(n, K) as given."""
    label_quality: FloatArray
    """(n,) probability that the given label is right, in [0, 1]; where the model does not fit, the self-confidence."""
    trained_on: TrainedOn
    fits: bool
    """Whether the transition predicts held-out given labels; if not, `label_quality` ranks as self-confidence does."""
    held_out_gain: float
    """Held-out log-likelihood of the given labels over that of the best model without noise, nats an image."""
    note: str
    """One sentence: what was chosen, or why it fell back."""
    model: Model
    credit: float = 1.0
    """Exponent that P(true | image, given) is taken to, in (0, 1]; see `credit_of`."""

    @property
    def wrong(self) -> FloatArray:
        """(n,) probability that the given label is wrong, in [0, 1]."""
        return 1 - self.label_quality

    @property
    def believable(self) -> bool:
        """Whether it explains the given labels better than the probabilities do by themselves."""
        return self.fits and self.held_out_gain > 0

    @property
    def temperature(self) -> float:
        """What the log-probabilities are divided by, > 0."""
        return self.model.temperature

    @property
    def strength(self) -> float:
        """Of the regulariser, as the held-out likelihood chose it."""
        return self.model.strength

    @cached_property
    def transition(self) -> FloatArray:
        """(K, K) T[i, j] = P(given = j | true = i), rows sum to 1."""
        return self.model.transition()

    @property
    def prior(self) -> FloatArray:
        """(K,) P(true = i), sums to 1."""
        return self.model.prior()

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
        with threadpool_limits(1, user_api="blas"):  # as in `fit_posterior`: the same to the bit with any threads
            for rows, posterior in self.rows():
                each = np.arange(len(posterior))
                best[rows], prob[rows] = posterior.argmax(axis=1), posterior.max(axis=1)
                posterior[each, self.labels[rows]] = -1
                other[rows] = posterior.argmax(axis=1)
                other_prob[rows] = posterior[each, other[rows]]
        return best, prob, other, other_prob

    def rows(self) -> Iterator[tuple[slice, FloatArray]]:
        """The posterior P(true = k | image, given label), chunk by chunk: the rows, and (rows, K) that sum to 1."""
        for rows in _chunks(*self.pred_probs.shape):
            probs = self.pred_probs[rows].clip(0, 1)
            if self.fits:
                yield rows, _tempered(self.model.posterior(self.labels[rows], probs), self.credit)
            else:
                yield rows, probs / probs.sum(axis=1, keepdims=True, dtype=np.float64)


def noise_transition(labels: npt.ArrayLike, pred_probs: npt.ArrayLike) -> FloatArray:
    """T[i, j] = P(given = j | true = i), (K, K), rows sum to 1. Arguments and errors as of `fit_posterior`."""
    return fit_posterior(labels, pred_probs).transition


def label_posterior(labels: npt.ArrayLike, pred_probs: npt.ArrayLike, *, trained_on: TrainedOn = "noisy") -> PredProbs:
    """P(true = k | image, given label), (n, K), rows sum to 1. Arguments and errors as of `fit_posterior`."""
    fitted = fit_posterior(labels, pred_probs, trained_on=trained_on)
    result = np.empty(fitted.pred_probs.shape, np.float32)
    for rows, posterior in fitted.rows():
        result[rows] = posterior
    return result


def fit_posterior(labels: npt.ArrayLike, pred_probs: npt.ArrayLike, *, trained_on: TrainedOn = "noisy") -> Posterior:
    """Undo the label noise in out-of-sample probabilities.

    Given labels are explained as P(given | image) = Σ_k c_k(image)·T[k, given]; c, a calibration of the probabilities,
    and T maximise the likelihood. Up to 32 classes both are free (`AffineModel`, fitted on 20,000 rows at most, spread
    over the classes), unless the probabilities are calibrated to the given labels already (`DeconvolvedModel`). For
    more classes, or for probabilities of models trained on clean labels, c is tempered only (`TemperatureModel`).
    Where a model without noise predicts held-out given labels as well, `label_quality` is the probability of the
    given label as it came, and `fits` is False.

    That takes image and label for independent witnesses; see `credited`.

    labels: (n,) given, whole numbers 0..K-1. pred_probs: (n, K), each row by a model that did not train on it.
    trained_on: "noisy" if the models saw given labels (plain K-fold), "clean" if only selected, clean ones.

    Extra memory: 8 bytes a row and about ten megabytes for up to 32 classes, 1.6 kB a row for more.
    Deterministic. Raises InputError for labels or probabilities that do not fit.
    """
    if trained_on not in ("noisy", "clean"):
        raise InputError(f"trained_on is {trained_on!r}; {near(str(trained_on), ('noisy', 'clean'))}")
    probs = np.asarray(pred_probs)
    if probs.ndim != 2:
        raise InputError(f"pred_probs has shape {probs.shape}; it takes one row an image, shape (n, K).")
    y, k = as_labels(labels, probs.shape[1])
    given = np.asarray(labels)
    y = given if given.dtype == y.dtype else y  # not both: a million labels are eight megabytes
    _check(probs, len(y))
    likely = None
    if k > MAX_FREE_CLASSES:
        likely = Likely.concatenated([Likely.of(y[rows], probs[rows]) for rows in _chunks(*probs.shape)])
        model: Model = fit_temperature(likely, k)
        fits = model.gain > 0
    else:
        model, fits = _fit_noisy(y, probs) if trained_on == "noisy" else _fit_clean(y, probs)

    quality = np.empty(len(y))
    with threadpool_limits(1, user_api="blas"):  # as in `fit_affine`
        for rows in _chunks(*probs.shape):
            each = np.arange(rows.stop - rows.start)
            if not fits:
                quality[rows] = probs[rows][each, y[rows]].clip(0, 1)
            elif likely is not None and isinstance(model, TemperatureModel):
                quality[rows] = model.likely_posterior(likely[rows])[:, -1]
            else:
                quality[rows] = model.posterior(y[rows], probs[rows])[each, y[rows]]
    return Posterior(y, probs, quality, trained_on, fits, model.gain, _note(model, fits), model)


def credited(posterior: Posterior) -> Posterior:
    """The posterior for people's labels: people err where models err, so a label confirms its image less.

    It is taken to a power and scaled again, the lower the more alike labels and model are in what they confuse
    (`credit_of`). Beyond 32 classes that cannot be told, and labels count as people's. One that does not fit is left
    as it is.

    For probabilities of models trained on labels that were cleaned: those of noisy labels err like these labels,
    whoever made them.
    """
    if not posterior.fits:
        return posterior
    model = posterior.model
    with threadpool_limits(1, user_api="blas"):  # as in `fit_affine`
        credit = SHARED
        if not isinstance(model, TemperatureModel):
            credit = _credit(posterior.labels, posterior.pred_probs, model)
        result = replace(posterior, credit=credit)
        own = [j[np.arange(len(j)), posterior.labels[rows]] for rows, j in result.rows()]
    return replace(result, label_quality=np.concatenate(own))


def _credit(labels: IntArray, probs: npt.NDArray[np.floating], model: AffineModel | DeconvolvedModel) -> float:
    some = _some_rows(len(labels), _N_FITTED)
    y, p = labels[some], probs[some].clip(0, 1)
    beliefs = ((model.before_label(p[rows]), model.posterior(y[rows], p[rows])) for rows in _chunks(*p.shape))
    return credit_of(*shared_errors(y, p.shape[1], beliefs))


def _tempered(posterior: FloatArray, credit: float) -> FloatArray:
    """(m, K) to the power `credit`, rows that sum to 1."""
    if credit == 1:
        return posterior
    powers = posterior**credit
    return powers / powers.sum(axis=1, keepdims=True)


def _fit_noisy(labels: IntArray, probs: npt.NDArray[np.floating]) -> tuple[Model, bool]:
    """The model, and whether it fits.

    The affine model, if it predicts held-out labels better than the probabilities do, as they are or calibrated, by one
    standard error. If not, they may be calibrated to the given labels, and the likelihood cannot tell T from no
    noise. Then only geometry can: the smallest simplex is taken, if it predicts those labels nearly as well.
    """
    sample, weight = _spread(labels, probs.shape[1])
    labels, probs = labels[sample], probs[sample].clip(0, 1)
    share = weight[1::2] / weight[1::2].sum()

    def gain(values: FloatArray, over: FloatArray) -> tuple[float, float]:
        """Mean and its standard error, nats an image."""
        mean = float((values - over) @ share)
        return mean, float(np.sqrt((share**2) @ (values - over - mean) ** 2))

    affine, with_noise, calibrated = fit_affine(labels, probs, weight)
    own = probs[np.arange(1, len(labels), 2), labels[1::2]].astype(np.float64)
    unchanged = np.log(np.maximum(own, _TINY) / probs[1::2].sum(axis=1))
    without = max(calibrated, unchanged, key=lambda values: values @ share)
    more, error = gain(with_noise, without)
    if more > max(error, _WORTH):
        return replace(
            affine, gain=more, mixing=_evened(affine.mixing, affine.share * weight.sum(), _EVEN_FITTED)
        ), True
    deconvolved, by_geometry = fit_deconvolved(labels, probs, weight)
    mixing = _evened(deconvolved.mixing, deconvolved.share * weight.sum(), _EVEN_SEEN)
    more, error = gain(calibrated, unchanged)
    fits = more < error and abs(gain(by_geometry, unchanged)[0]) < _NEARLY
    return replace(deconvolved, gain=gain(by_geometry, without)[0], mixing=mixing), fits


def _evened(mixing: FloatArray, counts: FloatArray, even: float) -> FloatArray:
    """T (K, K) as it is believed from so many images a class, (K,): `even` more speak for even noise.

    The share of wrong labels of a class is drawn towards that of all classes, and where they go towards all others
    alike. What few images say of rare confusions is mostly chance, and would cost more than it gives; what a fitted
    model says of them is, besides, partly its own confusion.
    """
    k = len(mixing)
    joint = mixing * counts[:, None]
    off = joint * (1 - np.eye(k))
    wrong = off.sum(axis=1)
    rate = (wrong + even * wrong.sum() / joint.sum()) / (counts + even)
    pattern = (off + even / (k - 1)) / (wrong + even)[:, None]
    return np.where(np.eye(k, dtype=bool), 1 - rate[:, None], rate[:, None] * pattern)


def _fit_clean(labels: IntArray, probs: npt.NDArray[np.floating]) -> tuple[Model, bool]:
    some = _some_rows(len(labels), _N_DRAWN)
    model = fit_temperature(Likely.of(labels[some], probs[some]), probs.shape[1])
    return model, model.gain > 0


def _some_rows(n: int, most: int) -> slice | IntArray:
    """All rows, or so many of them at random: every third, say, could be of one class."""
    return slice(None) if n <= most else np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def _chunks(n: int, k: int) -> Iterator[slice]:
    size = max(1, _CHUNK_VALUES // k)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _check(probs: npt.NDArray[np.floating], n: int) -> None:
    """As `as_pred_probs`, without its copy."""
    fits = probs.dtype.kind in "fiu" and len(probs) == n
    for rows in _chunks(*probs.shape) if fits else ():
        chunk = probs[rows]
        off = np.abs(chunk.sum(axis=1, dtype=np.float64) - 1).max()
        if not (chunk.min() >= -_TOLERANCE and chunk.max() <= 1 + _TOLERANCE and off <= _TOLERANCE):
            fits = False
            break
    if not fits:
        as_pred_probs(probs, (n, probs.shape[1]))


def _spread(labels: IntArray, n_classes: int) -> tuple[IntArray, FloatArray]:
    """At most `_N_FITTED` rows, as many of each class as there are up to a common limit, and what each stands for.

    Ordered by given label, at random within it. Drawn from 160,000 rows at most.
    """
    rng = np.random.default_rng(0)
    n = len(labels)
    rows = np.arange(n) if n <= _N_DRAWN else np.unique(rng.integers(n, size=_N_DRAWN))
    rng.shuffle(rows)
    rows = rows[np.argsort(labels[rows], kind="stable")]
    counts = np.bincount(labels[rows], minlength=n_classes)
    left = limit = min(_N_FITTED, len(rows))
    for i, count in enumerate(np.sort(counts)):
        limit = left // (n_classes - i)  # what is left, shared among the larger classes
        if count > limit:
            break
        left -= count
    else:
        limit = int(counts.max())
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    sample = rows[place < limit]
    return sample, (counts / np.maximum(np.minimum(counts, limit), 1))[labels[sample]]


def _note(model: Model, fits: bool) -> str:
    gain = f"{model.gain:+.4f} nats an image on held-out labels"
    if not fits:
        return (
            f"No model of the noise predicts the given labels better ({gain}), so labels are ranked by self-confidence."
        )
    if isinstance(model, DeconvolvedModel):
        return f"The probabilities are calibrated; noise read off their extremes, {model.strength:g} steps ({gain})."
    how = "calibration of all classes" if isinstance(model, AffineModel) else "temperature"
    return f"Noise and {how} fitted to the given labels, regulariser {model.strength:g} ({gain})."
