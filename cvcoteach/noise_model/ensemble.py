"""The mean of several noise models, less certain where labels and models make the same errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.affine import AffineFit, fit_affine
from cvcoteach.noise_model.base import TINY, NoiseModel, Probs, one_hot, shrunk
from cvcoteach.noise_model.leakage import label_targets, leakage
from cvcoteach.noise_model.richardson_lucy import fit_richardson_lucy
from cvcoteach.noise_model.sampling import fitted_rows
from cvcoteach.noise_model.shared_errors import exponent_of, shared_errors
from cvcoteach.noise_model.uniform_noise import fit_uniform_noise

_RARE_WRONG = 0.5
_LEAST_LABELS = 3
_BELIEVED = 0.5
_UNIFORM = 100.0  # images
_LEAST_AFFINE = 0.6
_FAILED = 3.0  # standard errors
_NO_EVIDENCE, _FULL_EVIDENCE = 0.05, 0.3
_BEYOND_CHANCE = 2.0  # standard errors
_ENOUGH_NOISE, _LITTLE_NOISE = 0.03, 0.02
_BEYOND_DISAGREEMENT = 0.1
_LESS_LIKELY = 0.05  # nats per image


@dataclass(frozen=True, eq=False)
class MeanModel:
    """The weighted arithmetic mean of the members' posteriors, raised to a power.

    Classes given to too few images to learn anything about them are unknown to the members. Nobody can tell whether an
    image with such a label belongs to its class: half its posterior stays with the label, the other half goes to the
    classes that its probabilities favour. Where the probabilities give such classes more than one half, as those of a
    model that did not learn from these labels may, they are believed.
    """

    members: Sequence[NoiseModel]
    """Fitted to the probabilities of `classes`."""
    weights: Sequence[float]
    """Weights of the members, sum to 1."""
    exponent: float
    """Exponent of the posterior, in (0, 1]; see `exponent_of`."""
    inflation: float
    """Factor on the odds against the label that comes with the exponent, >= 1; see `inflation_of`."""
    classes: IntArray
    """(c,) classes that the members know, ascending."""
    n_classes: int
    """K."""

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """Return P(true | image, given), (m, K)."""
        if len(self.classes) == self.n_classes:
            return self._known_posterior(labels, probs)
        place = np.full(self.n_classes, -1)
        place[self.classes] = np.arange(len(self.classes))
        known = place[labels] >= 0
        result = np.zeros((len(labels), self.n_classes))
        some = _renormalised(probs[:, self.classes])
        result[np.ix_(known, self.classes)] = self._known_posterior(place[labels[known]], some[known])
        result[np.ix_(~known, self.classes)] = _RARE_WRONG * self._mean(
            [member.before_label(some[~known]) for member in self.members]
        )
        result[np.flatnonzero(~known), labels[~known]] = 1 - _RARE_WRONG
        self._believe_unknown(result, probs)
        return result

    def _believe_unknown(self, result: FloatArray, probs: Probs) -> None:
        """Give classes that the members do not know what the probabilities give them, where that is most of all."""
        unknown = np.setdiff1d(np.arange(self.n_classes), self.classes)
        share = probs[:, unknown].sum(axis=1, dtype=np.float64)
        rows = np.flatnonzero(share > _BELIEVED)
        result[rows] *= 1 - np.minimum(share[rows], 1)[:, None]
        result[np.ix_(rows, unknown)] += probs[np.ix_(rows, unknown)]

    def before_label(self, probs: Probs) -> FloatArray:
        """Return P(true | image), (m, K)."""
        result = np.zeros((len(probs), self.n_classes))
        some = _renormalised(probs[:, self.classes])
        result[:, self.classes] = self._mean([member.before_label(some) for member in self.members])
        self._believe_unknown(result, probs)
        return result

    def transition(self) -> FloatArray:
        """Return T[i, j] = P(given = j | true = i), (K, K); 1 on the diagonal for classes too rare to know."""
        joints = [member.prior()[:, None] * member.transition() for member in self.members]
        joint = self._mean(joints)
        result = np.eye(self.n_classes)
        result[np.ix_(self.classes, self.classes)] = joint / np.maximum(joint.sum(axis=1, keepdims=True), TINY)
        return result

    def prior(self) -> FloatArray:
        """Return P(true = k), (K,)."""
        result = np.zeros(self.n_classes)
        result[self.classes] = self._mean([member.prior() for member in self.members])
        return result

    def describe(self) -> str:
        """Return what was fitted."""
        parts = [f"{weight:.0%} {member.describe()}" for member, weight in zip(self.members, self.weights, strict=True)]
        shared = "" if self.exponent == 1 else f"; labels and models share errors (exponent {self.exponent:.2f})"
        return " + ".join(parts) + shared

    def _known_posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        mean = self._mean([member.posterior(labels, probs) for member in self.members])
        if self.exponent == 1:
            return mean
        each = np.arange(len(labels))
        right = mean[each, labels]
        wrong = np.maximum(1 - right, 0) ** self.exponent * self.inflation
        right **= self.exponent
        mean **= self.exponent
        mean[each, labels] = 0
        mean *= (wrong / np.maximum((right + wrong) * mean.sum(axis=1), TINY))[:, None]
        mean[each, labels] = right / (right + wrong)
        return mean

    def _mean(self, values: Sequence[FloatArray]) -> FloatArray:
        total = self.weights[0] * values[0]
        for weight, value in zip(self.weights[1:], values[1:], strict=True):
            total += weight * value
        return total


@dataclass(frozen=True)
class MeanFit:
    """A fitted mean of models, and how far the data support it."""

    model: MeanModel
    confidence: float
    """Mean probability of the most probable true class by the image alone, in [0, 1]."""
    evidence: float
    """Standard errors by which the transition predicts held-out labels better than calibration alone does."""


def fit_mean(labels: IntArray, probs: Probs) -> MeanFit:
    """Fit an affine and a Richardson-Lucy model to a sample of the rows; weigh them by evidence.

    Where fewer than 2 to 3 % of the labels are wrong, beyond chance, T is a matter of a few labels and the models' own
    errors: uniform noise takes the place of the Richardson-Lucy model, and evidence has no say.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.

    Returns:
        Their mean, and how far to trust it. Where labels leaked, the affine part is the mean of a fit that ignores the
        leaked labels and of one that does not.
    """
    n_classes = probs.shape[1]
    rows, weight, half = fitted_rows(labels, probs)
    classes = np.flatnonzero(np.bincount(labels, minlength=n_classes) >= _LEAST_LABELS)
    if len(classes) < 2:
        classes = np.arange(n_classes)
    place = np.full(n_classes, -1)
    place[classes] = np.arange(len(classes))
    known = (place[labels[rows]] >= 0) & (probs[rows][:, classes].sum(axis=1) >= 1 - _BELIEVED)
    rows, weight, half = rows[known], weight[known], half[known]
    y, some = place[labels[rows]], _renormalised(probs[rows][:, classes].clip(0, 1))

    leaked = leakage(y, some)
    fits = [fit_affine(some, y, label_targets(y, some, leaked), weight, half)]
    if leaked.any():
        fits.append(fit_affine(some, y, one_hot(y, len(classes)), weight, half))
    affine = [fit.model.with_mixing(shrunk(fit.model.mixing, fit.model.share * weight.sum(), _UNIFORM)) for fit in fits]
    literal = fit_richardson_lucy(y, some, weight)
    gain, error, whole = _gains(fits[0])
    share = 0.0 if _failed(fits[0]) else _weight_of_affine(gain, error, whole)
    correlation, n_compared, rates = _errors(y, some, weight, (affine[0], literal))
    share += (1 - share) * _astray(y, some, weight, (affine[0], literal), rates[1]) if share else 0.0
    rate = share * rates[0] + (1 - share) * rates[1]
    little = _ramp(rate + _BEYOND_CHANCE * math.sqrt(rate / weight.sum()), _ENOUGH_NOISE, _LITTLE_NOISE)
    share -= little * max(0.0, share - _LEAST_AFFINE)
    exponent = exponent_of(correlation, rate, n_compared)
    parts: list[tuple[NoiseModel, float]] = [(model, share / len(affine)) for model in affine]
    parts += [(literal, (1 - share) * (1 - little)), (fit_uniform_noise(y, some, weight), (1 - share) * little)]
    members = [model for model, part in parts if part > 0]
    weights = [part for _, part in parts if part > 0]
    mean = MeanModel(members, weights, 1.0, 1.0, classes, n_classes)
    inner = replace(mean, classes=np.arange(len(classes)), n_classes=len(classes))
    confidence = float(inner.before_label(some).max(axis=1) @ weight / weight.sum())
    if exponent < 1:
        inflation = inflation_of(y, inner.posterior(y, some), weight, exponent)
        mean = replace(mean, exponent=exponent, inflation=inflation)
    return MeanFit(mean, confidence, gain / max(error, TINY))


def _gains(fit: AffineFit) -> tuple[float, float, float]:
    """Return gains in held-out log-likelihood, in nats per image.

    These are the mean gain over the best model without noise, its standard error, and the mean gain over the
    probabilities as they came.
    """
    share = fit.weight / fit.weight.sum()
    without = max(fit.calibrated, fit.unchanged, key=lambda values: float(values @ share))
    gain = fit.with_noise - without
    mean = float(gain @ share)
    error = float(np.sqrt((share**2) @ (gain - mean) ** 2))
    return mean, error, float((fit.with_noise - fit.unchanged) @ share)


def _failed(fit: AffineFit) -> bool:
    """Return whether held-out labels are predicted worse than by the probabilities as they came, beyond chance.

    The likelihood then has a bad optimum, as of probabilities that take few different values.
    """
    share = fit.weight / fit.weight.sum()
    gain = fit.with_noise - fit.unchanged
    mean = float(gain @ share)
    return mean < -_FAILED * float(np.sqrt((share**2) @ (gain - mean) ** 2))


def _weight_of_affine(gain: float, error: float, whole: float) -> float:
    """Return .6 to 1, by how much of what the affine model gains in likelihood no calibration without noise can.

    Where a calibration alone does as well, the likelihood cannot identify T, and the affine model gets .6. Arguments as
    `_gains` returns them.
    """
    part = (gain - error) / whole if whole > 0 else 0.0
    return _LEAST_AFFINE + (1 - _LEAST_AFFINE) * _ramp(part, _NO_EVIDENCE, _FULL_EVIDENCE)


def _ramp(value: float, none: float, full: float) -> float:
    """Return 0 at `none`, 1 at `full`, linear between, constant beyond."""
    return float(np.clip((value - none) / (full - none), 0, 1))


def _errors(
    labels: IntArray, probs: Probs, weight: FloatArray, members: Sequence[NoiseModel]
) -> tuple[float, int, list[float]]:
    """Return how far all members find that labels and models share errors, of how many classes, and their rates."""
    correlations, rates = [], []
    for member in members:
        after = member.posterior(labels, probs)
        correlations.append(shared_errors(labels, member.before_label(probs), after, weight))
        rates.append(1 - float(after[np.arange(len(labels)), labels] @ weight / weight.sum()))
    least = int(np.argmin([correlation for correlation, _ in correlations]))  # NaN before any number
    return *correlations[least], rates


def _astray(
    labels: IntArray, probs: Probs, weight: FloatArray, members: tuple[NoiseModel, NoiseModel], rate: float
) -> float:
    """Return how far, 0 to 1, the literal model has taken classes for each other.

    Models that learned from a selection are sure of themselves; taken literally where each class has one other that it
    is mislabelled as, they explain labels by a transition that turns the classes round. Such a fit finds more labels
    wrong than predictions disagree with, and yet the labels are less likely by it than by the affine model. Of
    probabilities whose models learned wrong labels by heart only the first is true.

    Args:
        labels: (m,) given.
        probs: (m, K) out of sample.
        weight: (m,) how many images each row stands for.
        members: The affine model, and the literal one.
        rate: The noise rate by the literal one, in [0, 1].
    """
    total = weight.sum()
    beyond = rate - float((probs.argmax(axis=1) != labels) @ weight / total)
    if beyond <= 0:
        return 0.0
    each = np.arange(len(labels))
    by_affine, by_literal = (
        np.log(np.maximum((member.before_label(probs) @ member.transition())[each, labels], TINY)) @ weight / total
        for member in members
    )
    return _ramp(beyond, 0, _BEYOND_DISAGREEMENT) * _ramp(by_affine - by_literal, 0, _LESS_LIKELY)


def inflation_of(labels: IntArray, posterior: FloatArray, weight: FloatArray, exponent: float) -> float:
    """Return by how much an exponent raises the sum over the classes that were not given, on average.

    (1 - q)^exponent is exact where one other class holds everything; several others, each raised to the power, sum to
    more. One factor for all rows keeps the ranking of the labels: the exponent says how certain they are, not which is
    the worst.

    Args:
        labels: (m,) given.
        posterior: (m, K) before the power.
        weight: (m,) how many images each row stands for.
        exponent: In (0, 1].

    Returns:
        The factor, >= 1: the mean over the labels, weighted by their probability of being wrong.
    """
    each = np.arange(len(labels))
    others = posterior.copy()
    others[each, labels] = 0
    wrong = others.sum(axis=1)
    powers = (others**exponent).sum(axis=1) / np.maximum(wrong, TINY) ** exponent
    total = float((wrong * weight).sum())
    return max(1.0, float((powers * wrong * weight).sum()) / total) if total > 0 else 1.0


def _renormalised(probs: Probs) -> FloatArray:
    some = probs.astype(np.float64)
    total = some.sum(axis=1, keepdims=True)
    return np.where(total > TINY, some / np.maximum(total, TINY), 1 / some.shape[1])
