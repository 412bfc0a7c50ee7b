"""Images or features ready for training, and all that differs between the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cvcoteach._validation import IntArray
from cvcoteach.training.batches import BatchSource, DeviceImages, FeatureBatches, ImageBatches, room_for
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import choose_device, choose_threads, seeded
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.networks import feature_head
from cvcoteach.training.normalisation import Scaling, scaling_of
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.torch_trainer import TorchTrainer


class Inputs(Protocol):
    """Images or features: what networks are trained on, and how they are built for it."""

    def __len__(self) -> int:
        """Return how many there are."""

    def adapted(self, recipe: Recipe) -> Recipe:
        """Return the recipe with everything decided that depends on the inputs."""

    def plan(
        self,
        recipe: Recipe,
        n_classes: int,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        deterministic: bool = False,
    ) -> ComputePlan:
        """Return how to compute; what is None is chosen."""

    def batches(self, plan: ComputePlan, rows: IntArray) -> BatchSource:
        """Return the inputs as batches, normalised as training on these rows requires."""

    def network(self, n_classes: int, seed: int) -> nn.Module:
        """Return a fresh network for them, on the CPU."""


@dataclass(frozen=True, eq=False)
class ImageInputs:
    """Images, some or all of an array, and the model that is trained on them."""

    pixels: npt.NDArray[np.uint8]
    """(N, size, size, C) uint8, an array or a memory map."""
    models: ModelFactory
    """Builds its networks."""
    rows: IntArray | None = None
    """(n,) the images that are meant; None: all of them."""

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    def adapted(self, recipe: Recipe) -> Recipe:
        """Return the recipe with `flip` decided."""
        return recipe.for_channels(self.pixels.shape[3])

    def plan(
        self,
        recipe: Recipe,
        n_classes: int,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        deterministic: bool = False,
    ) -> ComputePlan:
        """Return the plan that a short probe decides, see `TorchTrainer.plan`."""
        trainer = TorchTrainer(
            self.pixels,
            n_classes,
            recipe,
            models=self.models,
            device=device,
            threads=threads,
            precision=precision,
            deterministic=deterministic,
        )
        return trainer.plan

    def batches(self, plan: ComputePlan, rows: IntArray) -> ImageBatches:
        """Return batches normalised as the weights were trained, or else by the statistics of these rows."""
        return ImageBatches(DeviceImages(self.pixels, plan, self.rows), self._scaling(rows))

    def _scaling(self, rows: IntArray) -> Scaling:
        own = self.models.preprocessing
        if own.mean is not None and own.std is not None:
            return Scaling(own.mean, own.std)
        return scaling_of(self.pixels, rows if self.rows is None else self.rows[rows])

    def network(self, n_classes: int, seed: int) -> nn.Module:
        """Return a fresh network of the model, on the CPU."""
        return self.models.build(n_classes, self.pixels.shape[3], seed=seed)


@dataclass(frozen=True, eq=False)
class FeatureInputs:
    """Standardised features; heads with one hidden layer are trained on them."""

    features: npt.NDArray[np.float32]
    """(n, d) float32, in memory."""

    def __len__(self) -> int:
        return len(self.features)

    def adapted(self, recipe: Recipe) -> Recipe:
        """Return the recipe without augmentation."""
        return replace(recipe, shift=0, flip=False)

    def plan(
        self,
        recipe: Recipe,
        n_classes: int,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        deterministic: bool = False,
    ) -> ComputePlan:
        """Return a plan in float32, if no other precision is asked for."""
        where = choose_device(device)
        resident = room_for(self.features, where)
        dtype = precision or "float32"
        return ComputePlan(
            str(where),
            dtype,
            threads=choose_threads(threads),
            resident=resident,
            captured=where.type == "cuda" and resident and dtype != "float16" and not recipe.hidden,
            deterministic=deterministic,
        )

    def batches(self, plan: ComputePlan, rows: IntArray) -> FeatureBatches:
        """Return batches of the features as they are."""
        return FeatureBatches(self.features, plan)

    def network(self, n_classes: int, seed: int) -> nn.Module:
        """Return a fresh head, on the CPU."""
        with seeded(seed, torch.device("cpu")):
            return feature_head(self.features.shape[1], n_classes)
