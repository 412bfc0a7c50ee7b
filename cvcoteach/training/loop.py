"""The one training loop: a recipe, one or more networks, batches of images or features in, losses back."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from cvcoteach._validation import FloatArray, InputError, IntArray, PredProbs
from cvcoteach.training.batches import BatchSource
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import seeded
from cvcoteach.training.pretrained import last_layer
from cvcoteach.training.recipe import Recipe, learning_rate_at

_CHECK_EVERY = 50  # batches between looks at the losses: each look makes a GPU wait


class Batch(NamedTuple):
    """Everything that a loss may use, besides the networks' outputs."""

    rows: Tensor
    """(b,) positions among the training images."""
    targets: Tensor
    """(b,) classes, or (b, K) probabilities."""
    epoch: int
    """From 0."""


@dataclass(frozen=True)
class EpochReport:
    """The record of an epoch."""

    epoch: int
    """From 1."""
    n_epochs: int
    """Of the whole training, at least 1."""
    images_per_second: float
    """Above 0."""
    loss: float
    """Mean over batches and networks."""
    validation_loss: float | None = None
    """On the held-out training images, if there are any."""


Losses = Callable[[Sequence[Tensor], Batch], Sequence[Tensor]]
"""Logits (b, K) of each network, float32 -> a loss for each network. Networks may choose for each other."""
Order = Callable[[int, np.random.Generator], Sequence[IntArray]]
"""Epoch (from 0) and random numbers -> the positions in each batch."""
OnEpoch = Callable[[EpochReport], None]


def cross_entropy(logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    """Return the cross-entropy of each network, without label smoothing: smoothed scores rank label errors worse."""
    return [functional.cross_entropy(each, batch.targets) for each in logits]


def shuffled(n: int, batch_size: int) -> Order:
    """Return all n images in random order, in batches of `batch_size` or one less, none of a single image.

    Batch normalisation cannot take a single image, so there is no remainder: all batches share what is missing.
    """
    n_batches = _n_batches(n, batch_size)

    def order(epoch: int, rng: np.random.Generator) -> list[IntArray]:
        positions = rng.permutation(n) if n > 1 else np.zeros(2, np.int64)
        return np.array_split(positions, n_batches)

    return order


def smallest_batch(n: int, batch_size: int) -> int:
    """Return the number of images in the smallest batch of `shuffled`."""
    return max(2, n // _n_batches(n, batch_size))


def _n_batches(n: int, batch_size: int) -> int:
    n_batches = -(-n // batch_size)
    return max(1, n // 2) if n_batches > 1 and n // n_batches < 2 else n_batches


class Training:
    """One or more networks on their way through a recipe.

    Every epoch draws its random numbers from the seed and its own number alone, so a training that is resumed from
    its `state_dict` continues as if it had never stopped.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        source: BatchSource,
        rows: IntArray,
        targets: npt.NDArray[np.int64] | FloatArray | PredProbs,
        recipe: Recipe,
        *,
        seed: int,
        losses: Losses = cross_entropy,
        order: Order | None = None,
    ) -> None:
        """Prepare the first epoch.

        Args:
            networks: On the device of the source's plan.
            source: The images or features.
            rows: (m,) the rows of the source to train on.
            targets: (m,) their classes, or (m, K) their probabilities.
            recipe: With `flip` decided, see `Recipe.for_channels`.
            seed: Decides order, augmentation and dropout.
            losses: What the networks minimise.
            order: Which images go into which batch; None: `shuffled`.
        """
        plan = source.plan
        self.networks = networks
        self.epoch = 0
        self.recipe = recipe
        self._source, self._rows, self._plan = source, rows, plan
        self._seed, self._losses = seed, losses
        self._order = order or shuffled(len(rows), recipe.batch_of(len(rows)))
        self._targets = torch.as_tensor(targets).to(plan.torch_device)
        self._optimizer = _optimizer(networks, recipe, plan)
        self._scaler = torch.amp.GradScaler(plan.torch_device.type, enabled=plan.dtype == "float16")

    def run_epoch(self) -> EpochReport:
        """Train for one epoch.

        Raises:
            InputError: A loss is not finite, so this training has failed.
        """
        began = time.perf_counter()
        numbers = np.random.SeedSequence([self._seed, self.epoch])
        batches = self._order(self.epoch, np.random.default_rng(numbers))
        for_augmentation, for_dropout = (int(number) for number in numbers.generate_state(2))
        n_images = sum(map(len, batches))
        with seeded(for_dropout, self._plan.torch_device):
            loss = self._run_batches(batches, for_augmentation)
        self.epoch += 1
        return EpochReport(self.epoch, self.recipe.epochs, n_images / (time.perf_counter() - began), loss)

    def _run_batches(self, batches: Sequence[IntArray], augmentation_seed: int) -> float:
        device = self._plan.torch_device
        positions = torch.split(torch.from_numpy(np.concatenate(batches)).to(device), [len(batch) for batch in batches])
        record = torch.zeros(len(batches), device=device)
        for network in self.networks:
            network.train()
        source_rows = [self._rows[batch] for batch in batches]
        inputs_of = self._source.for_training(source_rows, self.recipe, augmentation_seed)
        for step, (inputs, rows) in enumerate(zip(inputs_of, positions, strict=True)):
            rate = self._rate(step, len(batches))
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            with self._plan.autocast():
                outputs = [network(inputs) for network in self.networks]
            batch = Batch(rows, self._targets[rows], self.epoch)
            losses = torch.stack(list(self._losses([logits_of(output) for output in outputs], batch)))
            torch.autograd.backward(self._scaler.scale(losses.sum()))
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._optimizer.zero_grad(set_to_none=True)
            record[step] = losses.detach().mean()
            if step % _CHECK_EVERY == 0 or step == len(batches) - 1:
                self._check(record[: step + 1], len(batches))
        return float(record.mean())

    def _rate(self, step: int, n_batches: int) -> float:
        return learning_rate_at(self.recipe, self.epoch + step / n_batches)

    def _check(self, record: Tensor, n_batches: int) -> None:
        finite = record.isfinite()
        if not bool(finite.all()):
            step = int(torch.argmin(finite.to(torch.uint8)))
            raise InputError(
                f"the loss is {float(record[step])} in batch {step + 1} of epoch {self.epoch + 1} at a learning rate "
                f"of {self._rate(step, n_batches):.3g}; take a smaller one (--learning-rate, Recipe.learning_rate)."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to continue from here."""
        return {
            "epoch": self.epoch,
            "networks": [network.state_dict() for network in self.networks],
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state that `state_dict` returned."""
        self.epoch = state["epoch"]
        for network, values in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(values)
        fused = [group["fused"] for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self._optimizer.param_groups, fused, strict=True):
            group["fused"] = own  # of this plan, whatever the earlier one was
        if state["scaler"]:  # empty, unless the earlier plan computed in float16
            self._scaler.load_state_dict(state["scaler"])


def _optimizer(networks: Sequence[nn.Module], recipe: Recipe, plan: ComputePlan) -> torch.optim.Optimizer:
    # a fused SGD whose first step the scaler skips would continue with momentum from uninitialised memory
    fused = plan.dtype != "float16"
    trained = [p for network in networks for p in network.parameters() if p.requires_grad]
    heads = {p for network in networks for p in last_layer(network)[1].parameters()} if recipe.body_rate < 1 else set()
    groups = [
        {
            "params": [p for p in trained if (p.ndim >= 2) == is_matrix and (p in heads) == is_head],
            "weight_decay": recipe.weight_decay if is_matrix else 0.0,
            "scale": 1.0 if is_head or recipe.body_rate == 1 else recipe.body_rate,
        }
        for is_head in ([False, True] if heads else [False])
        for is_matrix in (True, False)
    ]
    rate = recipe.learning_rate
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=fused)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, fused=fused)


def logits_of(output: Any) -> Tensor:
    """Return a network's logits in float32: the first of its outputs, if it has auxiliary ones."""
    first: Tensor = output if isinstance(output, Tensor) else output[0]
    return first.float()


@torch.inference_mode()
def predict(
    networks: Sequence[nn.Module],
    source: BatchSource,
    rows: IntArray,
    *,
    mirror: bool = False,
    batch_size: int = 500,
) -> PredProbs:
    """Return class probabilities (len(rows), K), softmax in float32, averaged over the networks.

    Args:
        networks: On the device of the source's plan.
        source: The images or features.
        rows: The rows of the source to predict, at least one.
        mirror: Whether to average over each image and its mirror image too.
        batch_size: Rows computed at a time.
    """
    for network in networks:
        network.eval()
    parts: list[Tensor] = []
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    for inputs in source.for_prediction(batches):
        views = [inputs, inputs.flip(3)] if mirror else [inputs]
        with source.plan.autocast():
            outputs = [network(view) for network in networks for view in views]
        parts.append(torch.stack([logits_of(output).softmax(dim=1) for output in outputs]).mean(dim=0).cpu())
    return torch.cat(parts).numpy()


def fit(training: Training, on_epoch: OnEpoch | None = None, validate: Callable[[], float] | None = None) -> None:
    """Run the remaining epochs.

    Args:
        training: At any epoch.
        on_epoch: Called after each epoch.
        validate: Returns the loss on images that are not trained on. The networks then end with the weights of its
            best epoch, and training stops after the recipe's `patience` epochs without improvement.

    Raises:
        InputError: A loss is not finite.
    """
    best, best_epoch, best_weights = math.inf, training.epoch, None
    patience = training.recipe.patience
    while training.epoch < training.recipe.epochs:
        report = training.run_epoch()
        if validate is not None:
            loss = validate()
            report = replace(report, validation_loss=loss)
            if loss < best:
                best, best_epoch = loss, report.epoch
                best_weights = [copy.deepcopy(network.state_dict()) for network in training.networks]
        if on_epoch is not None:
            on_epoch(report)
        if validate is not None and patience is not None and report.epoch - best_epoch >= patience:
            break
    if best_weights is not None:
        for network, weights in zip(training.networks, best_weights, strict=True):
            network.load_state_dict(weights)
