"""Co-teaching: two networks on their way through a curriculum."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from cvcoteach._validation import FloatArray, InputError, IntArray, PredProbs
from cvcoteach.coteaching.curriculum import PUBLISHED_PACE, Curriculum, Pace, mixed
from cvcoteach.coteaching.losses import Exchange
from cvcoteach.coteaching.selection import Selection
from cvcoteach.training.batches import BatchSource
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.inputs import Inputs
from cvcoteach.training.loop import EpochReport, Training
from cvcoteach.training.orders import smallest_batch
from cvcoteach.training.recipe import Recipe

_LEAST_STEPS = 160  # with fewer, a network does not settle, however small the dataset


@dataclass(frozen=True)
class Epoch:
    """The record of an epoch of Co-teaching."""

    epoch: int
    """From 1."""
    stage: Literal["warm-up", "mixed"]
    """"warm-up": batches of S alone; "mixed": with a share of C, where there is any; so is vanilla's from the start."""
    images: int
    """Images that both networks were shown."""
    keep_rate: float
    """R(e): share of each batch that was trained on, in (0, 1]."""
    loss_kept: float
    """Mean cross-entropy of what was trained on, over both networks."""
    loss_left_out: float
    """Mean cross-entropy of what was left out, over both networks; NaN if nothing was."""
    agreement: float
    """Share of the images for which both networks predict the same class, in [0, 1]."""
    images_per_second: float
    """Above 0."""


class CoTraining:
    """Two networks on their way through a curriculum; resumed from `state_dict`, they continue as if never stopped."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        source: BatchSource,
        targets: IntArray | PredProbs,
        curriculum: Curriculum,
        recipe: Recipe,
        *,
        weights: FloatArray | None = None,
        seed: int,
        note: Callable[[str], None] = warnings.warn,
    ) -> None:
        """Prepare the first epoch.

        Args:
            networks: Two, of different initialisation, on the device of the source's plan.
            source: The images or features that the curriculum's rows count.
            targets: (m,) classes of `curriculum.rows`, or (m, K) their probabilities.
            curriculum: Of the recipe's epochs.
            recipe: With `flip` decided.
            weights: (m,) in [0, 1], of the losses of `curriculum.rows`; None: all 1.
            seed: Decides order, augmentation and dropout.
            note: Called with a sentence where steps are not captured although the plan says so.

        Raises:
            InputError: The batches are so small that the keep rate leaves less than one image, or all weights are 0.
        """
        if weights is not None and not (np.asarray(weights) > 0).any():
            raise InputError(f"all {len(weights):,} weights are 0, so there is nothing to train on.")
        self.recipe, self.source = recipe, source
        self.history: list[Epoch] = []
        self._curriculum = curriculum
        device = source.plan.torch_device
        on_device = None if weights is None else torch.as_tensor(weights, dtype=torch.float32).to(device)
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
            networks, source, rows, targets, recipe, seed=seed, losses=self._exchange, order=order, note=note
        )

    @property
    def networks(self) -> Sequence[nn.Module]:
        """The two networks."""
        return self._training.networks

    @property
    def epoch(self) -> int:
        """Epochs done so far."""
        return self._training.epoch

    def run_epoch(self) -> EpochReport:
        """Train both networks for one epoch.

        Raises:
            InputError: A loss is not finite.
        """
        epoch = self.epoch
        report = self._training.run_epoch()
        kept, left_out, agreement, images = self._exchange.take_record()
        stage: Literal["warm-up", "mixed"] = "warm-up" if epoch < self._curriculum.warmup else "mixed"
        self.history.append(
            Epoch(
                epoch=epoch + 1,
                stage=stage,
                images=images,
                keep_rate=self._exchange.rate(epoch),
                loss_kept=kept,
                loss_left_out=left_out,
                agreement=agreement,
                images_per_second=report.images_per_second,
            )
        )
        return report

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to continue from here."""
        return {"training": self._training.state_dict(), "history": [asdict(each) for each in self.history]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state that `state_dict` returned."""
        self._training.load_state_dict(state["training"])
        self.history = [Epoch(**each) for each in state["history"]]


@dataclass(frozen=True, eq=False)
class CoTeachingTask:
    """Everything that decides the training of two networks, but the machine."""

    inputs: Inputs
    """n images or features."""
    selection: Selection
    """Of the same n."""
    n_classes: int
    """K, at least 2."""
    recipe: Recipe
    """For these inputs, see `Inputs.adapted`."""
    curriculum: Curriculum
    """Of `recipe.epochs` epochs; its rows count the inputs."""
    seed: int
    """Decides initialisation, order, augmentation and dropout."""

    def start(self, plan: ComputePlan, note: Callable[[str], None] = warnings.warn) -> CoTraining:
        """Return the training before its first epoch, with fresh networks.

        Args:
            plan: How it is computed.
            note: Called with a sentence where steps are not captured although the plan says so.

        Raises:
            InputError: The batches are so small that nothing would be kept of them.
        """
        rows, weights, soft = self.curriculum.rows, self.selection.weights, self.selection.soft
        networks = two_networks(lambda seed: self.inputs.network(self.n_classes, seed), plan, self.seed)
        return CoTraining(
            networks,
            self.inputs.batches(plan, self.curriculum.selected),
            self.selection.labels[rows] if soft is None else soft[rows],
            self.curriculum,
            self.recipe,
            weights=None if weights is None else weights[rows],
            seed=self.seed,
            note=note,
        )


def with_epochs(recipe: Recipe, selection: Selection, *, pace: Pace = PUBLISHED_PACE, settle: bool = True) -> Recipe:
    """Return the recipe with as many epochs of S and C as show the images of its own epochs over all images.

    A recipe with milestones is left as it is: they are counted in epochs.

    Args:
        recipe: Its epochs are passes over all images.
        selection: What is selected of them.
        pace: Lengths of warm-up and ramp.
        settle: Whether to add epochs if S is so small that there would be fewer than 160 batches.
    """
    if recipe.milestones:
        return recipe
    recipe = replace(recipe, epochs=selection.epochs(recipe.epochs * len(selection.labels), pace=pace))
    return enough_epochs(recipe, int(selection.selected.sum())) if settle else recipe


def enough_epochs(recipe: Recipe, n: int) -> Recipe:
    """Return the recipe with more epochs if n images are so few that there would be fewer than 160 batches.

    A recipe with milestones is left as it is: they are counted in epochs.
    """
    epochs = max(recipe.epochs, -(-_LEAST_STEPS // -(-n // recipe.batch_of(n))))
    return recipe if recipe.milestones else replace(recipe, epochs=epochs)


def two_networks(build: Callable[[int], nn.Module], plan: ComputePlan, seed: int) -> list[nn.Module]:
    """Return two networks of different initialisation on the plan's device. build: seed -> a network on the CPU."""
    seeds = np.random.SeedSequence(seed).generate_state(2).tolist()
    return [plan.placed(build(each)) for each in seeds]
