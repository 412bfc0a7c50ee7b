"""Folds by PyTorch: a fresh network for each, trained on its part and asked about the rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cvcoteach._checks import IntArray, PredProbs
from cvcoteach.training.augment import Pixels, as_pixels, normalise, room_for
from cvcoteach.training.devices import Plan, choose_device, choose_threads, probe, set_threads
from cvcoteach.training.loop import PRESETS, OnEpoch, Recipe, Training, predict
from cvcoteach.training.models import build_model


class TorchTrainer:
    """A `FoldTrainer` that trains a network of `recipe` from a fresh initialisation for each fold."""

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        n_classes: int,
        recipe: Recipe = PRESETS["fast"],
        *,
        device: str | None = None,
        plan: Plan | None = None,
        threads: int | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        """pixels: (n, H, W, C) uint8 with C 1 or 3, an array or a memory map.

        plan: as an earlier trainer's `plan`, for identical results; None: made by a short probe when needed.
        device, threads: chosen by themselves if None, and taken from `plan` if there is one.

        Raises InputError for pixels of another kind and a device that this machine does not have.
        """
        self._array = as_pixels(pixels)
        self._n_classes = n_classes
        self.recipe = recipe
        self._on_epoch = on_epoch
        self._device = choose_device(plan.device if plan else device)
        self._threads = plan.threads if plan else choose_threads(threads)
        self._plan = plan
        self._pixels: Pixels | None = None
        self._flip = recipe.flip if recipe.flip is not None else self._array.shape[3] == 3

    @property
    def plan(self) -> Plan:
        """How the folds are computed; probed on first use."""
        if self._plan is None:
            set_threads(self._threads)
            with torch.device("cpu"):
                model = self._build(seed=0)
            rows = np.arange(min(self.recipe.batch_size, len(self._array)))
            raw = torch.from_numpy(np.array(self._array[rows]))
            images = normalise(raw, *self._statistics(rows), Plan())
            plan = probe(model, images, device=self._device, threads=self._threads)
            self._plan = replace(plan, resident=room_for(self._array, self._device))
        return self._plan

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Train afresh on `train_idx` with `train_labels` (m,), give the probabilities of `eval_idx`: (e, K).

        Raises InputError where the loss is not finite.
        """
        plan = self.plan
        set_threads(plan.threads)
        if self._pixels is None:
            self._pixels = Pixels(self._array, plan)
        mean, std = self._statistics(train_idx)
        network = self._build(seed).to(plan.torch_device).to(memory_format=plan.memory_format)
        training = Training(
            [network],
            self._pixels,
            train_idx,
            train_labels,
            self.recipe,
            plan,
            seed=seed,
            flip=self._flip,
            mean=mean,
            std=std,
        )
        for _ in range(self.recipe.epochs):
            report = training.run_epoch()
            if self._on_epoch is not None:
                self._on_epoch(report)
        mirror = self.recipe.tta and self._flip
        return predict(network, self._pixels, eval_idx, plan, mirror=mirror, mean=mean, std=std)

    def _build(self, seed: int) -> nn.Module:
        return build_model(self.recipe.model, self._n_classes, self._array.shape[3], self.recipe.weights, seed=seed)

    def _statistics(self, rows: IntArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return Pixels(self._array, Plan(resident=False)).statistics(rows)
