"""Co-teaching: two networks, each taught by the samples that its peer finds easy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cvcoteach._validation import FloatArray, InputError, IntArray, check_at_least
from cvcoteach.training.batches import Pixels, Scaling
from cvcoteach.training.devices import Plan
from cvcoteach.training.loop import Batch, EpochReport, Order, Training, shuffled, smallest_batch
from cvcoteach.training.recipe import Recipe

WARMUP_SHARE = 0.2  # 40 of 200 epochs
LONG_WARMUP_SHARE = 0.4  # 80 of 200, where more than HEAVY_NOISE of the labels are wrong
HEAVY_NOISE = 0.6
RAMP_SHARE = 0.05  # 10 of 200
_LEAST_STEPS = 160  # with fewer a network does not settle, however small the dataset


# -- how much is kept --------------------------------------------------------------------------------------------


def noise_left(noise_rate: float, n_classes: int) -> float:
    """ε_S: share of wrong labels left in the selected set, in [0, 1]; ε̂² / (ε̂² + (K-1)(1-ε̂)²), INCV section 3.

    noise_rate: ε̂ of the whole dataset, in [0, 1).

    Raises InputError for a rate outside [0, 1).
    """
    check_noise_rate(noise_rate)
    wrong = noise_rate**2
    return wrong / (wrong + (n_classes - 1) * (1 - noise_rate) ** 2)


def least_noise_left(noise_rate: float, n_selected: int, n: int) -> float:
    """What ε̂·n wrong labels leave in S at the least, in [0, 1): no more of them can be gone than images are.

    The paper's `noise_left` holds for an S that lost a clean image with every wrong one; a fuller S keeps more.
    """
    return max(0.0, (noise_rate * n - (n - n_selected)) / n_selected)


def noise_outside(noise_rate: float, left: float, n_selected: int, n: int) -> float:
    """Share of wrong labels outside S, in [0, 1]: of ε̂·n wrong ones, those that are not the `left`·n_selected in S."""
    return min(1.0, max(0.0, (noise_rate * n - left * n_selected) / max(1, n - n_selected)))


def keep_rate(epoch: int, noise_rate: float, ramp: float) -> float:
    """R(e) = 1 - ε·min(1, e / E_k): share of a batch that is trained on, in (0, 1].

    epoch: from 0. noise_rate: of what the batches are drawn from, in [0, 1). ramp: E_k > 0, epochs.
    """
    return 1 - noise_rate * min(1.0, epoch / ramp)


def n_kept(n: int, rate: float) -> int:
    """How many of a batch of n that is: rounded down, but one at least, since the mean over nothing is no number."""
    return max(1, math.floor(n * rate + 1e-9))


def check_noise_rate(noise_rate: float) -> None:
    """Raises InputError for a noise rate outside [0, 1)."""
    if not 0 <= noise_rate < 1:
        raise InputError(f"noise_rate is {noise_rate}; it is the share of wrong labels, in [0, 1).")


# -- which batches -----------------------------------------------------------------------------------------------


def mixed(n_selected: int, n_candidate: int, batch_size: int, warmup: int) -> Order:
    """Batches of S alone for `warmup` epochs, then each with a share of C added (INCV, algorithm 2).

    Positions 0..n_selected-1 are S, those after them C. An epoch is one pass over S; a batch B_S is joined by
    |B_C| = min(|B_S|·|C| / |S|, |B_S| / 2) on average, so that none of C comes twice in an epoch.
    """
    selected = shuffled(n_selected, batch_size)

    def order(epoch: int, rng: np.random.Generator) -> list[IntArray]:
        batches = list(selected(epoch, rng))
        n_added = added_of(n_selected, n_candidate) if epoch >= warmup else 0
        added = n_selected + rng.permutation(n_candidate)[:n_added]
        return [np.concatenate(pair) for pair in zip(batches, np.array_split(added, len(batches)), strict=True)]

    return order


def added_of(n_selected: int, n_candidate: int) -> int:
    """How many of C join S in an epoch after the warm-up."""
    return min(n_candidate, n_selected // 2)


def image_passes(n_selected: int, n_candidate: int, warmup: int, epochs: int) -> int:
    """Images that each of the networks is shown in the whole training."""
    return epochs * n_selected + max(0, epochs - warmup) * added_of(n_selected, n_candidate)


def warmup_of(epochs: int, noise_rate: float) -> int:
    """E0: a fifth of the epochs, two fifths where more than 60 % of the labels are wrong; 40 and 80 of 200."""
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
    """Epochs of S and C that show about as many images as `passes`, from one to `most`."""

    def off(epochs: int) -> int:
        e0 = warmup_of(epochs, noise_rate) if warmup is None else warmup
        return abs(image_passes(n_selected, n_candidate, e0, epochs) - passes)

    enough = passes // n_selected + 1
    return min(range(1, (enough if most is None else min(most, enough)) + 1), key=off)


# -- what a batch teaches ----------------------------------------------------------------------------------------


def coteaching_losses(
    losses_a: Tensor, losses_b: Tensor, n_keep: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean loss of each network on the `n_keep` samples that are easiest for its peer (Han et al., NeurIPS 2018).

    losses_a, losses_b: (b,) each sample's own. The mean is over what is kept, and is divided by nothing else.
    weights: (b,) in [0, 1], of the losses in the mean; what is easy, they do not change. None: all 1.
    """
    easy_for_a, easy_for_b = easiest(losses_a, n_keep), easiest(losses_b, n_keep)
    if weights is not None:
        losses_a, losses_b = losses_a * weights, losses_b * weights
    return losses_a[easy_for_b].mean(), losses_b[easy_for_a].mean()


def easiest(losses: Tensor, n_keep: int) -> Tensor:
    """(n_keep,) positions of the smallest losses."""
    return losses.detach().topk(n_keep, largest=False, sorted=False).indices


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch."""

    epoch: int
    """From 1."""
    stage: Literal["warm-up", "mixed"]
    """"warm-up": batches of S alone; "mixed": with a share of C, where there is any; so is vanilla's from the start."""
    images: int
    """How many images both networks were shown."""
    keep_rate: float
    """R(e), share of each batch that was trained on, in (0, 1]."""
    loss_kept: float
    """Mean cross-entropy of what a network was taught, over both networks."""
    loss_left_out: float
    """Mean cross-entropy of what its peer left out; NaN where nothing was."""
    agreement: float
    """Share of the images of which both networks predict the same class, in [0, 1]."""
    images_per_second: float


class Exchange:
    """The losses of co-teaching, as `Training` asks for them, with a record of what was kept.

    A loss of NaN is never among the smallest, so it is added to what is returned: training is to stop there.
    """

    def __init__(self, rate: Callable[[int], float], weights: Tensor | None = None) -> None:
        """rate: epoch, from 0 -> R(e), in (0, 1]. weights: (m,) in [0, 1], of each row's loss; None: all 1."""
        self.rate, self._weights = rate, weights
        self._sums: Tensor | None = None
        self._images = self._kept = 0

    def __call__(self, logits: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each network on what its peer finds easy, () each."""
        a, b = (functional.cross_entropy(each, batch.targets, reduction="none") for each in logits)
        n_keep = n_kept(len(batch.rows), self.rate(batch.epoch))
        weights = None if self._weights is None else self._weights[batch.rows]
        for_a, for_b = coteaching_losses(a, b, n_keep, weights)
        broken = torch.where((a + b).detach().isfinite(), 0.0, math.nan).sum()
        for_a, for_b = for_a + broken, for_b + broken
        with torch.no_grad():
            kept_a, kept_b = (for_a, for_b) if weights is None else coteaching_losses(a, b, n_keep)
            kept = n_keep * (kept_a + kept_b)
            left_out = a.sum() + b.sum() - kept
            agreed = (logits[0].argmax(dim=1) == logits[1].argmax(dim=1)).sum().float()
            sums = torch.stack([kept, left_out, agreed])
            # on the device: a number asked for in every batch would make a GPU wait
            self._sums = sums if self._sums is None else self._sums + sums
        self._images += len(batch.rows)
        self._kept += n_keep
        return for_a, for_b

    def take_record(self) -> tuple[float, float, float, int]:
        """Mean loss kept, mean loss left out, agreement, images since the last call."""
        assert self._sums is not None
        kept, left_out, agreed = self._sums.tolist()
        images, n_left_out = self._images, self._images - self._kept
        record = (
            kept / (2 * self._kept),
            max(0.0, left_out) / (2 * n_left_out) if n_left_out else math.nan,
            agreed / images,
            images,
        )
        self._sums, self._images, self._kept = None, 0, 0
        return record


# -- the whole training ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Curriculum:
    """What is trained on, when, and how much of it is kept."""

    selected: IntArray
    """(s,) rows that are taken for clean: S."""
    candidate: IntArray
    """(c,) rows that join after the warm-up: C; none for the original co-teaching."""
    noise_rate: float
    """Share of wrong labels in batches of S alone, in [0, 1)."""
    mixed_noise_rate: float
    """Share of wrong labels in batches of S and C, in [0, 1)."""
    warmup: int
    """E0: epochs of S alone."""
    ramp: float
    """E_k: epochs until the keep rate is at its lowest, > 0."""

    def __post_init__(self) -> None:
        check_noise_rate(self.noise_rate)
        check_noise_rate(self.mixed_noise_rate)

    @property
    def rows(self) -> IntArray:
        """(s + c,) S, then C: the order of the targets."""
        return np.concatenate([self.selected, self.candidate])

    def keep_rate(self, epoch: int) -> float:
        """R(e), share of a batch that is trained on, in (0, 1]; epoch from 0."""
        return keep_rate(epoch, self.noise_rate if epoch < self.warmup else self.mixed_noise_rate, self.ramp)

    def passes(self, epochs: int) -> int:
        """Images that each network is shown in so many epochs."""
        return image_passes(len(self.selected), len(self.candidate), self.warmup, epochs)


def vanilla_curriculum(n: int, noise_rate: float, epochs: int, *, ramp: float | None = None) -> Curriculum:
    """The original co-teaching: everything is trained on, and the keep rate falls by the noise rate of everything."""
    return Curriculum(np.arange(n), np.arange(0), noise_rate, noise_rate, 0, _ramp(ramp, epochs))


def incv_curriculum(
    selected: IntArray,
    candidate: IntArray,
    noise_rate: float,
    n: int,
    n_classes: int,
    epochs: int,
    *,
    wrong: FloatArray | None = None,
    as_published: bool = False,
    warmup: int | None = None,
    ramp: float | None = None,
) -> Curriculum:
    """INCV's algorithm 2: S, then S with a share of C.

    What a batch leaves out is the share of wrong labels in it. In S these are the paper's `noise_left`, or
    `least_noise_left`, or what `wrong` says, whichever is most; in C, what `wrong` says, or else `noise_outside`.

    noise_rate: ε̂ of the whole dataset of n images, in [0, 1). wrong: (n,) probability that each label is wrong.
    as_published: the share is the paper's, and remains that of S after C has joined.
    warmup: E0; None: `warmup_of`. ramp: E_k; None: a twentieth of the epochs, the published 10 of 200.
    """
    warmup = warmup_of(epochs, noise_rate) if warmup is None else warmup
    check_at_least("warmup", warmup, 0)
    n_selected, n_added = len(selected), added_of(len(selected), len(candidate))
    left = outside = noise_left(noise_rate, n_classes)
    if not as_published:
        left = max(left, least_noise_left(noise_rate, n_selected, n))
        outside = noise_outside(noise_rate, left, n_selected, n)
        if wrong is not None:
            left = max(left, float(wrong[selected].mean()))
            outside = float(wrong[candidate].mean()) if n_added else 0.0
    mixed_share = (left * n_selected + outside * n_added) / (n_selected + n_added)
    return Curriculum(selected, candidate, left, mixed_share, warmup, _ramp(ramp, epochs))


def _ramp(ramp: float | None, epochs: int) -> float:
    ramp = max(1.0, RAMP_SHARE * epochs) if ramp is None else ramp
    if not ramp > 0:
        raise InputError(f"ramp is {ramp}; it takes a number of epochs above 0.")
    return ramp


class CoTraining:
    """Two networks on their way through a curriculum; from `state_dict` they go on as if they had never stopped."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        pixels: Pixels,
        targets: IntArray,
        curriculum: Curriculum,
        recipe: Recipe,
        scaling: Scaling,
        plan: Plan,
        *,
        weights: FloatArray | None = None,
        seed: int,
    ) -> None:
        """networks: two, on the plan's device, of different initialisation. targets: classes of `curriculum.rows`.

        weights: of the same rows, in [0, 1], of what they teach; None: all 1.

        Raises InputError where the batches are so small that the keep rate leaves less than one image.
        """
        self.recipe = recipe
        self.history: list[Epoch] = []
        self._curriculum = curriculum
        on_device = None if weights is None else torch.as_tensor(weights, dtype=torch.float32).to(plan.torch_device)
        self._exchange = Exchange(curriculum.keep_rate, on_device)
        most = max(curriculum.noise_rate, curriculum.mixed_noise_rate)
        n_selected, n_candidate = len(curriculum.selected), len(curriculum.candidate)
        smallest = smallest_batch(n_selected, recipe.batch_of(n_selected))
        if smallest * (1 - most) < 1:
            raise InputError(
                f"a batch holds {smallest} images, of which nothing is kept at {most:.0%} noise; it takes "
                f"{math.ceil(1 / (1 - most))} or more: a larger batch_size, or more images."
            )
        order = mixed(n_selected, n_candidate, recipe.batch_of(n_selected), curriculum.warmup)
        rows = curriculum.rows
        self._training = Training(
            networks, pixels, rows, targets, recipe, scaling, plan, seed=seed, losses=self._exchange, order=order
        )

    @property
    def networks(self) -> Sequence[nn.Module]:
        """The two."""
        return self._training.networks

    @property
    def epoch(self) -> int:
        """How many are done."""
        return self._training.epoch

    def run_epoch(self) -> EpochReport:
        """Train both through one epoch.

        Raises InputError where a loss is not finite.
        """
        epoch = self.epoch
        report = self._training.run_epoch()
        kept, left_out, agreement, images = self._exchange.take_record()
        stage: Literal["warm-up", "mixed"] = "warm-up" if epoch < self._curriculum.warmup else "mixed"
        rate = self._exchange.rate(epoch)
        speed = report.images_per_second
        self.history.append(Epoch(epoch + 1, stage, images, rate, kept, left_out, agreement, speed))
        return report

    def state_dict(self) -> dict[str, Any]:
        """All that a later `load_state_dict` needs to go on."""
        return {"training": self._training.state_dict(), "history": [asdict(each) for each in self.history]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._training.load_state_dict(state["training"])
        self.history = [Epoch(**each) for each in state["history"]]


def enough_epochs(recipe: Recipe, n: int) -> Recipe:
    """The recipe, with more epochs where n images are so few that they would be under 160 batches.

    A recipe with milestones is left as it is: they are counted in epochs.
    """
    epochs = max(recipe.epochs, -(-_LEAST_STEPS // -(-n // recipe.batch_of(n))))
    return recipe if recipe.milestones else replace(recipe, epochs=epochs)


def two_networks(build: Callable[[int], nn.Module], plan: Plan, seed: int) -> list[nn.Module]:
    """Two networks of different initialisation on the plan's device. build: seed -> a network on the CPU."""
    seeds = np.random.SeedSequence(seed).generate_state(2).tolist()
    return [build(each).to(plan.torch_device).to(memory_format=plan.memory_format) for each in seeds]
