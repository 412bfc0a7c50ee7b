"""Which labels to flag, given how probably each is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray, check_number, near
from cvcoteach.noise_model.affine import RARE
from cvcoteach.noise_model.posterior import Posterior

FlagFor = Literal["f1", "precision", "recall"]
FLAG_FOR: tuple[FlagFor, ...] = get_args(FlagFor)

PROBABLY_WRONG = 0.5
"""A label above this probability is more probably wrong than right."""

LEAST_FLAGGED = 0.25
"""No label is flagged that is less probably wrong than this, whatever the expected F1 would gain."""

LITTLE_NOISE, ENOUGH_NOISE = 0.03, 0.05
"""Expected shares of wrong labels: up to the first, only labels above one half are flagged for F1; from the second on,
labels down to `LEAST_FLAGGED`; in between, the bound falls linearly.

The posterior takes some of the model's own errors for label errors. Where few labels are wrong these errors are many,
and they have low probabilities. (Chosen on draws 100-104 of examples/benchmarks/small_sure.py.)
"""

_BLOCK = 1 << 16

GOAL = 0.9
"""Expected precision or recall of flags for "precision" or "recall"."""

BEYOND_JUDGMENT = 3
"""Labels of a class up to which nobody can tell right ones from wrong ones, where other classes have many more: models
that score them saw two at most."""

FEW_RIGHT, MOST_LOST = 100, 0.25
"""Of a class with fewer than 100 labels expected to be right, flags take at most a quarter of these: whoever accepts
all of them must not lose the class. (Chosen on draws 10-14 of examples/benchmarks/rare_classes.py.)"""
_LEAST_LOST = 0.5  # expected right labels: of a class whose labels are all wrong, all are flagged


@dataclass(frozen=True)
class FlagRule:
    """A rule that turns probabilities of being wrong into flags.

    Raises InputError for a goal that does not exist and a probability outside (0, 1].
    """

    flag_for: FlagFor = "f1"
    """"f1": the largest expected F1; "precision" or "recall": at least .9 of it expected, with as many flags as that
    allows, or as few as that takes."""
    min_probability: float | None = None
    """Flag every label at least this probably wrong, in (0, 1], instead; None: by `flag_for`."""

    def __post_init__(self) -> None:
        if self.flag_for not in FLAG_FOR:
            raise InputError(f"flag_for is {self.flag_for!r}; {near(str(self.flag_for), FLAG_FOR)}")
        if self.min_probability is not None:
            check_number("min_probability", self.min_probability)
            if not 0 < self.min_probability <= 1:
                raise InputError(
                    f"min_probability is {self.min_probability}; flags take a probability above 0 and up to 1."
                )

    @classmethod
    def named(cls, name: str) -> FlagRule:
        """Return the rule of a name that `str` gave it. Raises InputError for any other."""
        for flag_for in FLAG_FOR:
            if name == flag_for:
                return cls(flag_for)
        try:
            return cls(min_probability=float(name.removeprefix("probability ")))
        except ValueError:
            raise InputError(f"{name!r} is no rule by which labels are flagged.") from None

    def __str__(self) -> str:
        """Return the rule's name, as `LabelIssues.flag_for` has it."""
        return self.flag_for if self.min_probability is None else f"probability {self.min_probability:g}"

    def flags(self, wrong: npt.ArrayLike, labels: IntArray | None = None) -> BoolArray:
        """Flag labels, (n,).

        Args:
            wrong: (n,) probabilities that each label is wrong, in [0, 1], calibrated.
            labels: (n,) given, 0..K-1: rare classes are spared then (`spare_rare_classes`), unless the rule is a
                minimum probability.
        """
        w = np.asarray(wrong, dtype=np.float64)
        if not w.size:
            return np.zeros(0, np.bool_)
        if self.min_probability is not None:
            return w >= self.min_probability
        if self.flag_for == "f1":
            flags = flags_of_best_f1(w)
        else:
            flags = _flags_of_precision(w) if self.flag_for == "precision" else _flags_of_recall(w)
        return flags if labels is None else spare_rare_classes(flags, w, labels)


def flags_of(posterior: Posterior, rule: FlagRule | None = None) -> BoolArray:
    """Flag labels by their posterior, (n,); none where there is no signal. rule: None for the best expected F1."""
    if not posterior.has_signal:
        return np.zeros(len(posterior.labels), np.bool_)
    rule = rule or FlagRule()
    if rule != FlagRule():
        return rule.flags(posterior.wrong, posterior.labels)

    def wrong(rows: slice | IntArray) -> FloatArray:
        return 1 - posterior.label_quality[rows]

    n = len(posterior.labels)
    blocks = [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]
    least = _least_for_best_f1(lambda: map(wrong, blocks), n)
    flags = np.empty(n, np.bool_)
    for rows in blocks:
        flags[rows] = wrong(rows) >= least
    return _spared(flags, wrong, posterior.labels)


def spare_rare_classes(flags: BoolArray, wrong: FloatArray, labels: IntArray) -> BoolArray:
    """Take flags back where they would take a rare class away, (n,).

    A class that is `beyond_judgment` keeps none. Of one with fewer than `FEW_RIGHT` labels expected to be
    right, the least doubtful lose their flags until at most `MOST_LOST` of these are flagged.

    Args:
        flags: (n,).
        wrong: (n,) probabilities that each label is wrong, in [0, 1].
        labels: (n,) given, 0..K-1.
    """
    return _spared(flags, wrong.__getitem__, labels)


def _spared(flags: BoolArray, wrong: Callable[[slice | IntArray], FloatArray], labels: IntArray) -> BoolArray:
    """Do what `spare_rare_classes` does in little memory; `wrong` returns the probabilities of some rows."""
    total = _right_of_each(wrong, labels)
    rows = np.flatnonzero(flags)
    rows = rows[~np.isin(labels[rows], beyond_judgment(labels))]
    result = np.zeros(len(flags), np.bool_)
    result[rows] = True
    rows = rows[total[labels[rows]] < FEW_RIGHT]
    if not len(rows):
        return result
    rows = rows[np.lexsort((-wrong(rows), labels[rows]))]
    given, right = labels[rows], 1 - wrong(rows)
    lost = np.cumsum(right)
    first = np.flatnonzero(np.r_[True, given[1:] != given[:-1]])
    before = np.repeat(lost[first] - right[first], np.diff(np.r_[first, len(rows)]))
    result[rows[lost - before > np.maximum(MOST_LOST * total[given], _LEAST_LOST)]] = False
    return result


def _right_of_each(wrong: Callable[[slice | IntArray], FloatArray], labels: IntArray) -> FloatArray:
    """Return the number of labels (K,) of each class that are expected to be right. It takes little memory."""
    total = np.zeros(int(labels.max()) + 1)
    for start in range(0, len(labels), _BLOCK):
        rows = slice(start, start + _BLOCK)
        total += np.bincount(labels[rows], 1 - wrong(rows), minlength=len(total))
    return total


def beyond_judgment(labels: IntArray) -> IntArray:
    """Return the classes with up to `BEYOND_JUDGMENT` labels, fewer than a quarter of the average class."""
    counts = np.bincount(labels)
    return np.flatnonzero((counts > 0) & (counts <= BEYOND_JUDGMENT) & (counts < RARE * counts[counts > 0].mean()))


def flags_of_best_f1(wrong: npt.ArrayLike) -> BoolArray:
    """Flag the most doubtful labels, as many as give the largest expected F1; (n,).

    For k flags the expected F1 is about 2·Σ wrong of the flagged / (k + Σ wrong of all); the best threshold is half of
    the best F1, so never above one half. Equal probabilities are flagged together, none below `least_flagged`.

    Args:
        wrong: (n,) probabilities that each label is wrong, in [0, 1], calibrated.

    References:
        Lipton, Elkan, Naryanaswamy, Optimal thresholding of classifiers to maximize F1 measure, ECML 2014.
    """
    w = np.asarray(wrong, dtype=np.float64)
    return w >= _least_for_best_f1(lambda: iter([w]), len(w))


def _least_for_best_f1(wrong: Callable[[], Iterator[FloatArray]], n: int) -> float:
    """Return the least probability to flag; `wrong` returns all n, block by block. It takes little memory of its own.

    Only labels that may be flagged at all are put in order: for the others no threshold is sought.
    """
    total = math.fsum(float(block.sum()) for block in wrong())
    least = least_flagged(total / n)
    ordered = np.concatenate([block[block >= least] for block in wrong()])
    ordered[::-1].sort()
    best, most, before = least, 0.0, 0.0
    for start in range(0, len(ordered), _BLOCK):
        block = ordered[start : start + _BLOCK]
        hits = np.cumsum(np.concatenate([[before], block]))[1:]
        f1 = hits / (np.arange(start + 1, start + len(block) + 1) + total)
        place = int(np.argmax(f1))
        if f1[place] > most:
            best, most = float(block[place]), float(f1[place])
        before = float(hits[-1])
    return best


def least_flagged(noise_rate: float) -> float:
    """Return the probability below which no label is flagged for F1: one half for little noise, down to one quarter."""
    enough = float(np.clip((noise_rate - LITTLE_NOISE) / (ENOUGH_NOISE - LITTLE_NOISE), 0, 1))
    return PROBABLY_WRONG - (PROBABLY_WRONG - LEAST_FLAGGED) * enough


def _flags_of_precision(wrong: FloatArray) -> BoolArray:
    """Flag as many as leave the mean probability of the flagged at `GOAL`."""
    ordered = np.sort(wrong)[::-1]
    enough = np.flatnonzero(np.cumsum(ordered) >= GOAL * np.arange(1, len(wrong) + 1))
    if not len(enough):
        return np.zeros(len(wrong), np.bool_)
    flags = wrong >= ordered[enough[-1]]
    # equal probabilities are flagged together or not at all
    return flags if float(wrong[flags].mean()) >= GOAL else wrong > ordered[enough[-1]]


def _flags_of_recall(wrong: FloatArray) -> BoolArray:
    """Flag as few as hold `GOAL` of all expected wrong labels."""
    ordered = np.sort(wrong)[::-1]
    hits = np.cumsum(ordered)
    last = int(np.argmax(hits >= GOAL * hits[-1]))
    return (wrong >= ordered[last]) & (wrong > 0)
