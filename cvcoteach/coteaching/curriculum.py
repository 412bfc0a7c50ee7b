"""When Co-teaching trains on what: the selected set, then candidates too, and how much of each batch is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvcoteach._validation import FloatArray, InputError, IntArray, check_at_least
from cvcoteach.training.orders import Order, shuffled

WARMUP_SHARE = 0.2  # 40 of 200 epochs
LONG_WARMUP_SHARE = 0.4  # 80 of 200, if more than HEAVY_NOISE of the labels are wrong
HEAVY_NOISE = 0.6
RAMP_SHARE = 0.05  # 10 of 200


# -- how much is kept --------------------------------------------------------------------------------------------


def noise_left(noise_rate: float, n_classes: int) -> float:
    """Return ε_S, the share of wrong labels left in the selected set: ε̂² / (ε̂² + (K-1)(1-ε̂)²), in [0, 1].

    Args:
        noise_rate: ε̂ of the whole dataset, in [0, 1).
        n_classes: K.

    Raises:
        InputError: The rate is outside [0, 1).

    References:
        Chen et al., "Understanding and Utilizing Deep Neural Networks Trained with Noisy Labels" (INCV), ICML 2019,
        section 3.
    """
    check_noise_rate(noise_rate)
    wrong = noise_rate**2
    return wrong / (wrong + (n_classes - 1) * (1 - noise_rate) ** 2)


def least_noise_left(noise_rate: float, n_selected: int, n: int) -> float:
    """Return the smallest share of wrong labels in S that ε̂·n of them allow, in [0, 1): each one gone takes an image.

    The paper's `noise_left` holds for an S that lost a clean image with every wrong one; a larger S keeps more.
    """
    return max(0.0, (noise_rate * n - (n - n_selected)) / n_selected)


def noise_outside(noise_rate: float, left: float, n_selected: int, n: int) -> float:
    """Return the share of wrong labels outside S, in [0, 1]: the ε̂·n wrong ones but for the `left`·n_selected in S."""
    return min(1.0, max(0.0, (noise_rate * n - left * n_selected) / max(1, n - n_selected)))


def keep_rate(epoch: int, noise_rate: float, ramp: float) -> float:
    """Return R(e) = 1 - ε·min(1, e / E_k), the share of a batch that is trained on, in (0, 1].

    Args:
        epoch: From 0.
        noise_rate: ε, the share of wrong labels in what batches are drawn from, in [0, 1).
        ramp: E_k > 0, epochs.
    """
    return 1 - noise_rate * min(1.0, epoch / ramp)


def check_noise_rate(noise_rate: float) -> None:
    """Raise InputError for a noise rate outside [0, 1)."""
    if not 0 <= noise_rate < 1:
        raise InputError(f"noise_rate is {noise_rate}; it is the share of wrong labels, in [0, 1).")


# -- which batches -----------------------------------------------------------------------------------------------


def mixed(n_selected: int, n_candidate: int, batch_size: int, warmup: int) -> Order:
    """Return batches of S alone for `warmup` epochs, then batches with a share of C added (INCV, algorithm 2).

    Positions 0..n_selected-1 are S, the following ones C. An epoch is one pass over S; a batch B_S is joined by
    |B_C| = min(|B_S|·|C| / |S|, |B_S| / 2) on average, so that no image of C comes twice in an epoch.
    """
    selected = shuffled(n_selected, batch_size)

    def order(epoch: int, rng: np.random.Generator) -> list[IntArray]:
        batches = list(selected(epoch, rng))
        n_added = added_of(n_selected, n_candidate) if epoch >= warmup else 0
        added = n_selected + rng.permutation(n_candidate)[:n_added]
        return [np.concatenate(pair) for pair in zip(batches, np.array_split(added, len(batches)), strict=True)]

    return order


def added_of(n_selected: int, n_candidate: int) -> int:
    """Return how many images of C join S in an epoch after the warm-up."""
    return min(n_candidate, n_selected // 2)


def image_passes(n_selected: int, n_candidate: int, warmup: int, epochs: int) -> int:
    """Return how many images each network is shown in the whole training."""
    return epochs * n_selected + max(0, epochs - warmup) * added_of(n_selected, n_candidate)


def warmup_of(epochs: int, noise_rate: float) -> int:
    """Return E0: a fifth of the epochs, or two fifths if over 60 % of the labels are wrong (40 and 80 of 200)."""
    return round((LONG_WARMUP_SHARE if noise_rate > HEAVY_NOISE else WARMUP_SHARE) * epochs)


def matched_epochs(
    n_selected: int,
    n_candidate: int,
    noise_rate: float,
    passes: int,
    *,
    warmup: int | None = None,
    most: int | None = None,
) -> int:
    """Return how many epochs of S and C show about as many images as `passes`, from 1 to `most`."""

    def off(epochs: int) -> int:
        e0 = warmup_of(epochs, noise_rate) if warmup is None else warmup
        return abs(image_passes(n_selected, n_candidate, e0, epochs) - passes)

    enough = passes // n_selected + 1
    return min(range(1, (enough if most is None else min(most, enough)) + 1), key=off)


# -- the curriculum ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pace:
    """The two lengths that pace a curriculum; None where the published shares decide."""

    warmup: int | None = None
    """E0: epochs of S alone, at least 0; None: see `warmup_of`."""
    ramp: float | None = None
    """E_k: epochs until the keep rate is lowest, above 0; None: a twentieth of the epochs, at least 1."""

    def __post_init__(self) -> None:
        if self.warmup is not None:
            check_at_least("warmup", self.warmup, 0)
        if self.ramp is not None and not self.ramp > 0:
            raise InputError(f"ramp is {self.ramp}; it takes a number of epochs above 0.")

    def warmup_in(self, epochs: int, noise_rate: float) -> int:
        """Return E0 of so many epochs."""
        return warmup_of(epochs, noise_rate) if self.warmup is None else self.warmup

    def ramp_in(self, epochs: int) -> float:
        """Return E_k of so many epochs."""
        return max(1.0, RAMP_SHARE * epochs) if self.ramp is None else self.ramp


PUBLISHED_PACE = Pace()


@dataclass(frozen=True, eq=False)
class Curriculum:
    """A schedule of Co-teaching: which labels are trained on, when, and how much of each batch is kept."""

    selected: IntArray
    """(s,) S: rows with labels taken to be right."""
    candidate: IntArray
    """(c,) C: rows that join after the warm-up; empty for the original Co-teaching."""
    noise_rate: float
    """Share of wrong labels in batches of S alone, in [0, 1)."""
    mixed_noise_rate: float
    """Share of wrong labels in batches of S and C, in [0, 1)."""
    warmup: int
    """E0: epochs of S alone."""
    ramp: float
    """E_k: epochs until the keep rate is lowest, above 0."""

    def __post_init__(self) -> None:
        check_noise_rate(self.noise_rate)
        check_noise_rate(self.mixed_noise_rate)

    @property
    def rows(self) -> IntArray:
        """(s + c,) S, then C: the order of targets."""
        return np.concatenate([self.selected, self.candidate])

    def keep_rate(self, epoch: int) -> float:
        """Return R(e), the share of a batch that is trained on, in (0, 1]; epochs count from 0."""
        return keep_rate(epoch, self.noise_rate if epoch < self.warmup else self.mixed_noise_rate, self.ramp)

    def passes(self, epochs: int) -> int:
        """Return how many images each network is shown in so many epochs."""
        return image_passes(len(self.selected), len(self.candidate), self.warmup, epochs)


def vanilla_curriculum(n: int, noise_rate: float, epochs: int, *, pace: Pace = PUBLISHED_PACE) -> Curriculum:
    """Return the curriculum of the original Co-teaching: all images from the start, less the noise rate of them all."""
    return Curriculum(np.arange(n), np.arange(0), noise_rate, noise_rate, 0, pace.ramp_in(epochs))


def incv_curriculum(
    selected: IntArray,
    candidate: IntArray,
    noise_rate: float,
    epochs: int,
    *,
    n: int,
    n_classes: int,
    wrong: FloatArray | None = None,
    as_published: bool = False,
    pace: Pace = PUBLISHED_PACE,
) -> Curriculum:
    """Return the curriculum of INCV's algorithm 2: S, then S with a share of C.

    A batch leaves out the share of wrong labels in it. In S, that is the largest of the paper's `noise_left`,
    `least_noise_left` and what `wrong` says; in C, what `wrong` says, or else `noise_outside`.

    Args:
        selected: (s,) S.
        candidate: (c,) C.
        noise_rate: ε̂ of the whole dataset, in [0, 1).
        epochs: Of the training.
        n: Images in the whole dataset.
        n_classes: K.
        wrong: (n,) probability that each label is wrong, in [0, 1]; None: not known.
        as_published: Use the paper's share for S, and keep it after C has joined.
        pace: Lengths of warm-up and ramp.
    """
    warmup = pace.warmup_in(epochs, noise_rate)
    n_selected, n_added = len(selected), added_of(len(selected), len(candidate))
    left = outside = noise_left(noise_rate, n_classes)
    if not as_published:
        left = max(left, least_noise_left(noise_rate, n_selected, n))
        outside = noise_outside(noise_rate, left, n_selected, n)
        if wrong is not None:
            left = max(left, float(wrong[selected].mean()))
            outside = float(wrong[candidate].mean()) if n_added else 0.0
    mixed_share = (left * n_selected + outside * n_added) / (n_selected + n_added)
    return Curriculum(selected, candidate, left, mixed_share, warmup, pace.ramp_in(epochs))
