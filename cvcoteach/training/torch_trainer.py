"""Folds by PyTorch: a fresh network for each, trained on one part and evaluated on the rest."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cvcoteach._validation import InputError, IntArray, PredProbs
from cvcoteach.crossval.kfold import stratified_parts
from cvcoteach.crossval.trainer import Fold
from cvcoteach.training.batches import DeviceImages, ImageBatches, check_pixels, room_for
from cvcoteach.training.compute_plan import ComputePlan, best_threads, probe
from cvcoteach.training.devices import choose_device, choose_threads, set_threads
from cvcoteach.training.fitting import Fitting, fit_on
from cvcoteach.training.loop import OnEpoch, Training, logits_of, predict
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.normalisation import Scaling, normalise, scaling_of
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.probing import probe_captured
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.shared_training import Crew, SharedImages, SharedTraining, batch_norm_over_all
from cvcoteach.training.side_by_side import FoldInTraining, SideBySide

_AT_ONCE, _PIXELS_AT_ONCE = 500, 1 << 21
_FLOOR = 1e-7  # log of a probability that float32 rounded to 0


class TorchTrainer:
    """A `FoldTrainer` that trains a network of `recipe` from a fresh initialisation for each fold.

    On a GPU it is a `ParallelFoldTrainer`: the steps of a training are captured once and replayed (CUDA graphs), and as
    many folds as are faster and fit into memory are trained at the same time.
    """

    # only where there is something to gain: whoever has it is given all folds at once
    fit_predict_each: Callable[[Sequence[Fold]], Iterator[tuple[int, PredProbs]]]

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        n_classes: int,
        recipe: Recipe = PRESETS["fast"],
        *,
        device: str | None = None,
        plan: ComputePlan | None = None,
        models: ModelFactory | None = None,
        threads: int | None = None,
        precision: str | None = None,
        deterministic: bool = False,
        on_epoch: OnEpoch | None = None,
        note: Callable[[str], None] = warnings.warn,
        crew: Crew | None = None,
    ) -> None:
        """Take the images and how networks are trained on them.

        With device, threads and precision given, results repeat on a CPU in any run on the same machine; a probe may
        decide otherwise another time. On a GPU, see `deterministic`.

        Args:
            pixels: (n, H, W, C) uint8 with C 1 or 3, an array or a memory map.
            n_classes: K, at least 2.
            recipe: How each network is trained.
            device: Such as "cuda" or "cpu"; None: the best available. Ignored if there is a plan.
            plan: The `plan` of an earlier trainer, for identical results; None: decided by a short probe when needed.
            models: Builds the recipe's model, and may have loaded its backbone already.
            threads: CPU threads; None: as many as are fastest. Ignored if there is a plan.
            precision: "float32", "bfloat16" or "float16"; None: the fastest. Ignored if there is a plan.
            deterministic: Whether a GPU computes convolutions only by algorithms that repeat to the bit; otherwise it
                does where they cost less than 5 %. Ignored if there is a plan.
            on_epoch: Called after each epoch, of all folds that are trained at the same time together.
            note: Called with a sentence where a GPU cannot do what was planned: steps that cannot be captured, or
                memory that runs out, so that fewer folds share it or batches shrink.
            crew: Which of several processes this is, that train each fold together; see `SharedTraining`. All of them
                get the same folds and plan, and each answers for its part of the images (`Crew.part`).

        Raises:
            InputError: The pixels are of another kind, this machine lacks the device, or the model is unknown.
        """
        self._array = check_pixels(pixels)
        self._n_classes = n_classes
        self._channels = self._array.shape[3]
        self.recipe = recipe.for_channels(self._channels)
        if recipe.model.kind == "frozen":
            raise InputError(
                f"model is {str(recipe.model)!r}; heads on frozen features are trained with backbone "
                f"{recipe.model.name}."
            )
        self._models = models or ModelFactory(recipe.model, trusted=(recipe.model.name,))  # named by the caller
        self._preprocessing = self._models.preprocessing
        self._on_epoch = on_epoch
        self._device = choose_device(plan.device if plan else device)
        self._threads = plan.threads if plan else choose_threads(threads)
        self._threads_are_free = plan is None and threads is None
        self._plan = plan
        self._precision, self._deterministic = precision, deterministic
        if plan is None and precision is not None and self._device.type != "cuda":
            self._plan = ComputePlan(
                device=str(self._device),
                dtype=precision,
                threads=self._threads,
                resident=room_for(self._array, self._device),
                reason="precision as asked for",
            )
        self._images: DeviceImages | None = None
        self._beside: SideBySide | None = None
        self._note, self._noted = note, set[str]()
        self._crew = crew
        if crew is not None:
            return
        if self._device.type == "cuda" or (plan is not None and plan.side_by_side > 1):
            self.fit_predict_each = self._fit_predict_each

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self._array)

    @property
    def plan(self) -> ComputePlan:
        """How the folds are computed; probed on first use.

        Raises:
            InputError: The network does not take the images.
        """
        if self._plan is None:
            set_threads(self._threads)
            network = self._network(0)
            rows = np.arange(min(self.recipe.batch_size, len(self._array)))
            images = normalise(torch.from_numpy(self._array[rows]), self._scaling(rows))
            threads = self._threads
            if self._threads_are_free and self._device.type == "cpu":
                threads = best_threads(network, images, threads)
                set_threads(threads)
            plan = self._probed(network, rows, images, threads)
            self._plan = replace(plan, resident=room_for(self._array, self._device))
        return self._plan

    def _probed(self, network: nn.Module, rows: IntArray, images: torch.Tensor, threads: int) -> ComputePlan:
        if self._device.type != "cuda":
            return probe(network, images, device=self._device, threads=threads)
        plan = probe_captured(
            network,
            lambda plan: ImageBatches(DeviceImages(self._array[rows], plan), self._scaling(rows)),
            replace(self.recipe, batch_size=self.recipe.batch_of(len(self._array)), least_batches=0),
            ComputePlan(device=str(self._device), threads=threads, deterministic=self._deterministic),
            n_classes=self._n_classes,
            precision=self._precision,
        )
        if plan is not None:
            return plan
        if self._precision is None:
            plan = probe(network, images, device=self._device, threads=threads)
            return replace(plan, deterministic=self._deterministic)
        return ComputePlan(
            device=str(self._device),
            dtype=self._precision,
            channels_last=True,
            threads=threads,
            deterministic=self._deterministic,
            reason="precision as asked for",
        )

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Train a fresh network on `train_idx` with `train_labels` (m,), and return probabilities of `eval_idx` (e, K).

        If the recipe has `patience`, a part of `train_idx` is held out to decide when to stop.

        Raises:
            InputError: There is nothing to train on, the labels do not fit, or a loss is not finite.
        """
        self._check(Fold(train_idx, train_labels, eval_idx, seed))
        if len(eval_idx) == 0:
            return np.zeros((0, self._n_classes), np.float32)
        return next(iter(self._answers([Fold(train_idx, train_labels, eval_idx, seed)])))[1]

    def _fit_predict_each(self, folds: Sequence[Fold]) -> Iterator[tuple[int, PredProbs]]:
        """Do what `fit_predict` does, for as many folds at the same time as the plan says (`ParallelFoldTrainer`)."""
        for fold in folds:
            self._check(fold)
        asked = [position for position, fold in enumerate(folds) if len(fold.eval_idx)]
        for position, fold in enumerate(folds):
            if not len(fold.eval_idx):
                yield position, np.zeros((0, self._n_classes), np.float32)
        for place, answer in self._answers([folds[position] for position in asked]):
            yield asked[place], answer

    def _answers(self, folds: Sequence[Fold]) -> Iterator[tuple[int, PredProbs]]:
        plan = self.plan
        set_threads(plan.threads)
        if self._images is None:
            self._images = DeviceImages(self._array, plan)
        if self._crew is not None:
            return enumerate(map(self._answered_together, folds))
        if self._beside is None:
            self._beside = SideBySide(plan.torch_device, plan.side_by_side, self.recipe.batch_size, self._note)
        return self._beside.answers(folds, self._started, self._on_epoch)

    def _answered_together(self, fold: Fold) -> PredProbs:
        """Train a fold with the other processes of the crew; memory that runs out in one of them ends it."""
        fitting, answer = self._started(fold, None)
        fit_on(fitting, self._on_epoch)
        return answer()

    def _started(self, fold: Fold, most: int | None) -> FoldInTraining:
        """Begin a fold, in batches of `most` images at most."""
        assert self._images is not None
        train_idx, train_labels, eval_idx, seed = fold
        plan, recipe = self.plan, self.recipe
        if most is not None:
            recipe = replace(recipe, batch_size=min(recipe.batch_of(len(train_idx)), most), least_batches=0)
        crew, scaling = self._crew, self._scaling(train_idx)
        source = ImageBatches(self._images, scaling) if crew is None else SharedImages(self._images, scaling, crew)
        network = plan.placed(self._network(seed))
        if crew is not None:
            network = batch_norm_over_all(network)

        def probabilities(rows: IntArray) -> PredProbs:
            own = rows if crew is None else rows[crew.part(len(rows))]
            if not len(own):
                return np.zeros((0, self._n_classes), np.float32)
            return predict([network], source, own, mirror=recipe.mirrors_predictions, batch_size=self._at_once)

        def answer() -> PredProbs:
            result = probabilities(eval_idx)
            if not np.isfinite(result).all():
                raise InputError(
                    f"the network's outputs are not finite at a learning rate of {recipe.learning_rate:.3g}; take a "
                    "smaller one (--learning-rate, Recipe.learning_rate)."
                )
            return result

        trained = np.ones(len(train_idx), np.bool_)
        validate: Callable[[], float] | None = None
        if recipe.patience is not None and len(train_idx) > 1:
            trained = _trained_on(train_labels, recipe.held_back, seed)
            validate = partial(self._validation_loss, probabilities, train_idx[~trained], train_labels[~trained])
        rows, labels = train_idx[trained], train_labels[trained]
        arguments: tuple[Any, ...] = ([network], source, rows, labels, recipe)
        if crew is None:
            training = Training(*arguments, seed=seed, note=self._note_once)
        else:
            crew.check(len(rows), recipe)
            training = SharedTraining(crew, *arguments, seed=seed, note=self._note_once)
        return FoldInTraining(Fitting(training, validate), answer)

    def _validation_loss(
        self, probabilities: Callable[[IntArray], PredProbs], rows: IntArray, labels: IntArray
    ) -> float:
        crew = self._crew
        if crew is None:
            return _log_loss(probabilities(rows), labels)
        own = labels[crew.part(len(labels))]
        loss = _log_loss(probabilities(rows), own) if len(own) else 0.0
        return crew.mean(loss, len(own), self.plan.torch_device)

    def _check(self, fold: Fold) -> None:
        train_idx, train_labels = fold.train_idx, fold.train_labels
        if len(train_idx) == 0:
            raise InputError("train_idx is empty; a fold needs images to train on.")
        if len(train_labels) != len(train_idx) or not 0 <= train_labels.min() <= train_labels.max() < self._n_classes:
            raise InputError(
                f"train_labels has {len(train_labels)} labels up to {train_labels.max(initial=0)}; {len(train_idx)} "
                f"training images of {self._n_classes} classes need as many, 0-{self._n_classes - 1}."
            )

    @property
    def _at_once(self) -> int:
        """Images that are predicted at a time: of small ones, a GPU computes many as fast as few."""
        height, width = self._array.shape[1:3]
        return max(_AT_ONCE, _PIXELS_AT_ONCE // (height * width)) if self._device.type == "cuda" else _AT_ONCE

    def _note_once(self, sentence: str) -> None:
        """Say of all folds what each of them would say."""
        if sentence not in self._noted:
            self._noted.add(sentence)
            self._note(sentence)

    def _network(self, seed: int) -> nn.Module:
        """Return a fresh network on the CPU that has been tried on an image.

        Raises:
            InputError: It does not take the image, or returns anything but K columns.
        """
        model, (height, width) = self.recipe.model, self._array.shape[1:3]
        network = self._models.build(self._n_classes, self._channels, seed=seed)
        sample = normalise(torch.from_numpy(np.array(self._array[:1])), self._scaling(np.zeros(1, np.int64)))
        try:
            with torch.inference_mode():
                shape = tuple(logits_of(network.eval()(sample)).shape)
        except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError) as error:
            raise InputError(
                f"{model} does not take images of {width}×{height} pixels with {self._channels} channels "
                f"({str(error).strip().splitlines()[0]})."
            ) from error
        if shape != (1, self._n_classes):
            raise InputError(
                f"{model} returns shape {shape} for one image; {self._n_classes} classes need (1, {self._n_classes})."
            )
        return network

    def _scaling(self, rows: IntArray) -> Scaling:
        wanted = self._preprocessing
        if wanted.mean is not None and wanted.std is not None:
            return Scaling(wanted.mean, wanted.std)
        return scaling_of(self._array, rows)


def _trained_on(labels: IntArray, held_back: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return (m,) whether an image is trained on; the others, a stratified share, decide when to stop."""
    n_parts = min(len(labels), max(2, round(1 / held_back)))
    return stratified_parts(labels, n_parts, np.random.default_rng(seed)) != 0


def _log_loss(pred_probs: PredProbs, labels: IntArray) -> float:
    return float(-np.log(np.maximum(pred_probs[np.arange(len(labels)), labels], _FLOOR)).mean())
