"""What a user calls X, ready for the training loop: images of any kind, or features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.data.items import Kind, load_any
from cvcoteach.data.items import kind_of as kind_of
from cvcoteach.data.items import labels_of_dataset as labels_of_dataset
from cvcoteach.data.levels import ORDINARY, Levels
from cvcoteach.training.batches import Pixels, Scaling, room_for, scaling_of
from cvcoteach.training.devices import Plan, choose_device, choose_threads
from cvcoteach.training.models import build_model, preprocessing
from cvcoteach.training.networks import feature_head
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.torch_trainer import TorchTrainer


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images or features as the training loop takes them."""

    array: npt.NDArray[Any]
    """(n, size, size, C) uint8; features (n, 1, 1, d) float32, standardised."""
    are_features: bool
    levels: Levels = ORDINARY
    """Black and white of images that were not ordinary bytes."""

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size, C) of each; features (1, 1, d)."""
        return self.array.shape[1:]

    def on(self, plan: Plan) -> Pixels:
        """Batches of them on a device."""
        return Pixels(self.array, plan)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe for them: whether to mirror is settled."""
        return replace(recipe, shift=0, flip=False) if self.are_features else recipe.for_channels(self.shape[2])

    def scaling(self, recipe: Recipe, rows: IntArray) -> Scaling:
        """What the loop is to normalise with: as the weights were trained, else as these rows are."""
        if self.are_features:
            return Scaling((0.0,), (1 / 255,))  # they are standardised already; the loop divides by 255
        wanted = preprocessing(recipe.model, recipe.weights)
        if wanted.mean is not None and wanted.std is not None:
            return Scaling(wanted.mean, wanted.std)
        return scaling_of(self.array, rows)

    def plan(
        self,
        recipe: Recipe,
        n_classes: int,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> Plan:
        """How to compute: images as a short probe says (see `TorchTrainer.plan`), features in float32 by default."""
        if not self.are_features:
            trainer = TorchTrainer(self.array, n_classes, recipe, device=device, threads=threads, precision=precision)
            return trainer.plan
        where = choose_device(device)
        resident = room_for(self.array, where)
        return Plan(str(where), precision or "float32", threads=choose_threads(threads), resident=resident)

    def build(self, recipe: Recipe, n_classes: int, seed: int) -> nn.Module:
        """A fresh network for them, on the CPU."""
        return build_network(self.shape, self.are_features, recipe.model, recipe.weights, n_classes, seed)


def build_network(
    shape: Sequence[int], are_features: bool, model: str, weights: str | None, n_classes: int, seed: int
) -> nn.Module:
    """A fresh network for inputs of that shape; features get a head with one hidden layer, whatever the model."""
    if not are_features:
        return build_model(model, n_classes, shape[2], weights, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return feature_head(shape[2], n_classes)


def features_of(X: npt.NDArray[np.floating[Any]], center: FloatArray, scale: FloatArray) -> Inputs:
    """Features (n, d), less `center` and divided by `scale` (d,) each."""
    standard = ((X - center) / scale).astype(np.float32)
    return Inputs(np.ascontiguousarray(standard)[:, None, None, :], are_features=True)


def standard_of(X: npt.NDArray[np.floating[Any]]) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation (d,) of each feature; a deviation of nothing counts as 1."""
    center, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    return center, np.where(scale > 0, scale, 1.0)


def images_of(
    X: Any,
    kind: Kind,
    size: int | None,
    channels: int | None,
    *,
    own_size: int | None = None,
    levels: Levels | None = None,
) -> Inputs:
    """Return images of any kind as (n, size, size, C) uint8; see `load_any`."""
    images = load_any(X, kind, size=size, channels=channels, own_size=own_size, levels=levels)
    return Inputs(images.pixels, are_features=False, levels=images.levels)
