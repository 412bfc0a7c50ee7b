"""Folds by PyTorch: a fresh network for each, trained on its part and asked about the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cvcoteach._validation import InputError, IntArray, PredProbs
from cvcoteach.crossval.kfold import stratified_parts
from cvcoteach.training.batches import Pixels, Scaling, as_pixels, normalise, room_for, scaling_of
from cvcoteach.training.devices import Plan, best_threads, choose_device, choose_threads, probe, set_threads
from cvcoteach.training.loop import OnEpoch, Training, fit, logits_of, predict
from cvcoteach.training.models import FROZEN, backbone_of, build_model, check_model, preprocessing
from cvcoteach.training.recipe import PRESETS, Recipe

_FLOOR = 1e-7  # log of a probability that float32 rounded to 0


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
        precision: str | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        """pixels: (n, H, W, C) uint8 with C 1 or 3, an array or a memory map.

        plan: as an earlier trainer's `plan`, for identical results; None: made by a short probe when needed.
        device, threads, precision ("float32", "bfloat16", "float16"): chosen by themselves if None, and taken from
            `plan` if there is one. With all three given, results repeat in any run on the same machine; a probe may
            decide otherwise another time.

        Raises InputError for pixels of another kind, a device that this machine does not have, an unknown model.
        """
        self._array = as_pixels(pixels)
        self._n_classes = n_classes
        self._channels = self._array.shape[3]
        self.recipe = recipe.for_channels(self._channels)
        if recipe.model.startswith(FROZEN):
            name, _ = backbone_of(recipe.model)
            raise InputError(f"model is {recipe.model!r}; heads on frozen features are trained with backbone {name}.")
        check_model(recipe.model, recipe.weights)
        self._preprocessing = preprocessing(recipe.model, recipe.weights)
        self._on_epoch = on_epoch
        self._device = choose_device(plan.device if plan else device)
        self._threads = plan.threads if plan else choose_threads(threads)
        self._threads_are_free = plan is None and threads is None
        self._plan = plan
        if plan is None and precision is not None:
            self._plan = Plan(
                device=str(self._device),
                dtype=precision,
                channels_last=self._device.type == "cuda",
                threads=self._threads,
                resident=room_for(self._array, self._device),
                reason="precision as asked for",
            )
        self._pixels: Pixels | None = None

    @property
    def n_images(self) -> int:
        """How many images there are to train on."""
        return len(self._array)

    @property
    def plan(self) -> Plan:
        """How the folds are computed; probed on first use.

        Raises InputError where the network does not take the images.
        """
        if self._plan is None:
            set_threads(self._threads)
            network = self._network(0)
            rows = np.arange(min(self.recipe.batch_size, len(self._array)))
            images = normalise(torch.from_numpy(self._array[rows]), self._scaling(rows), Plan())
            threads = self._threads
            if self._threads_are_free and self._device.type == "cpu":
                threads = best_threads(network, images, threads)
                set_threads(threads)
            plan = probe(network, images, device=self._device, threads=threads)
            self._plan = replace(plan, resident=room_for(self._array, self._device))
        return self._plan

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Train afresh on `train_idx` with `train_labels` (m,), give the probabilities of `eval_idx`: (e, K).

        With `patience`, a part of `train_idx` is held back to tell when to stop.

        Raises InputError without training images, for labels that do not fit, and where a loss is not finite.
        """
        if len(train_idx) == 0:
            raise InputError("train_idx is empty; a fold needs images to train on.")
        if len(train_labels) != len(train_idx) or not 0 <= train_labels.min() <= train_labels.max() < self._n_classes:
            raise InputError(
                f"train_labels has {len(train_labels)} labels up to {train_labels.max(initial=0)}; {len(train_idx)} "
                f"training images of {self._n_classes} classes need as many, 0-{self._n_classes - 1}."
            )
        if len(eval_idx) == 0:
            return np.zeros((0, self._n_classes), np.float32)
        plan, recipe = self.plan, self.recipe
        set_threads(plan.threads)
        if self._pixels is None:
            self._pixels = Pixels(self._array, plan)
        scaling = self._scaling(train_idx)
        network = self._network(seed).to(plan.torch_device).to(memory_format=plan.memory_format)
        mirror = recipe.tta and bool(recipe.flip)

        def probabilities(rows: IntArray) -> PredProbs:
            assert self._pixels is not None
            return predict([network], self._pixels, rows, scaling, plan, mirror=mirror)

        trained = np.ones(len(train_idx), np.bool_)
        validate: Callable[[], float] | None = None
        if recipe.patience is not None and len(train_idx) > 1:
            trained = _trained_on(train_labels, recipe.held_back, seed)
            validate = partial(_validation_loss, probabilities, train_idx[~trained], train_labels[~trained])

        training = Training(
            [network], self._pixels, train_idx[trained], train_labels[trained], recipe, scaling, plan, seed=seed
        )
        fit(training, self._on_epoch, validate)
        result = probabilities(eval_idx)
        if not np.isfinite(result).all():
            raise InputError(
                f"the network's answers are not finite at a learning rate of {recipe.learning_rate:.3g}; take a "
                "smaller one (--learning-rate, Recipe.learning_rate)."
            )
        if plan.torch_device.type == "cuda":
            del training, network
            torch.cuda.empty_cache()
        return result

    def _network(self, seed: int) -> nn.Module:
        """A fresh network on the CPU that was seen to take the images.

        Raises InputError where it does not, or answers with something else than K columns.
        """
        recipe, (height, width) = self.recipe, self._array.shape[1:3]
        network = build_model(recipe.model, self._n_classes, self._channels, recipe.weights, seed=seed)
        sample = normalise(torch.from_numpy(np.array(self._array[:1])), self._scaling(np.zeros(1, np.int64)), Plan())
        try:
            with torch.inference_mode():
                shape = tuple(logits_of(network.eval()(sample)).shape)
        except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError) as error:
            raise InputError(
                f"{recipe.model} does not take images of {width}×{height} pixels with {self._channels} channels "
                f"({str(error).strip().splitlines()[0]})."
            ) from error
        if shape != (1, self._n_classes):
            raise InputError(
                f"{recipe.model} answers one image with shape {shape}; {self._n_classes} classes need "
                f"(1, {self._n_classes})."
            )
        return network

    def _scaling(self, rows: IntArray) -> Scaling:
        wanted = self._preprocessing
        if wanted.mean is not None and wanted.std is not None:
            return Scaling(wanted.mean, wanted.std)
        return scaling_of(self._array, rows)


def _trained_on(labels: IntArray, held_back: float, seed: int) -> npt.NDArray[np.bool_]:
    """(m,) whether an image is trained on; the others, a stratified share `held_back`, tell when to stop."""
    n_parts = min(len(labels), max(2, round(1 / held_back)))
    return stratified_parts(labels, n_parts, np.random.default_rng(seed)) != 0


def _validation_loss(probabilities: Callable[[IntArray], PredProbs], rows: IntArray, labels: IntArray) -> float:
    return _log_loss(probabilities(rows), labels)


def _log_loss(pred_probs: PredProbs, labels: IntArray) -> float:
    return float(-np.log(np.maximum(pred_probs[np.arange(len(labels)), labels], _FLOOR)).mean())
