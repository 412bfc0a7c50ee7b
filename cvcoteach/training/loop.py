"""The one training loop: a recipe, one or more networks, batches in, losses back."""

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
from cvcoteach.training.batches import Motion, Pixels, Scaling, draw_motion, normalise
from cvcoteach.training.devices import Plan, seeded
from cvcoteach.training.pretrained import last_layer
from cvcoteach.training.recipe import FINETUNE as FINETUNE
from cvcoteach.training.recipe import PRESETS as PRESETS
from cvcoteach.training.recipe import Recipe as Recipe
from cvcoteach.training.recipe import learning_rate_at as learning_rate_at
from cvcoteach.training.recipe import shift_for as shift_for

_CHECK_EVERY = 50  # batches between looks at the losses: each look makes a GPU wait


class Batch(NamedTuple):
    """What a loss may look at, besides the networks' outputs."""

    rows: Tensor
    """(b,) positions among the training images."""
    targets: Tensor
    """(b,) classes, or (b, K) probabilities."""
    epoch: int
    """From 0."""


@dataclass(frozen=True)
class EpochReport:
    """Told after each epoch."""

    epoch: int
    """From 1."""
    n_epochs: int
    images_per_second: float
    loss: float
    """Mean over the batches (and networks)."""
    validation_loss: float | None = None
    """On the held-back training images, if any."""


Losses = Callable[[Sequence[Tensor], Batch], Sequence[Tensor]]
"""Logits (b, K) of each network, float32 -> a loss of each network. Networks may choose for each other."""
Order = Callable[[int, np.random.Generator], Sequence[IntArray]]
"""Epoch (from 0) and random numbers -> the positions in each batch."""
OnEpoch = Callable[[EpochReport], None]


def cross_entropy(logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    """Every network by itself, without label smoothing: smoothed scores rank label errors worse."""
    return [functional.cross_entropy(each, batch.targets) for each in logits]


def shuffled(n: int, batch_size: int) -> Order:
    """All n images in random order, in batches of `batch_size` or one less, none of a single image.

    Batch-norm cannot take one image, so the last batch is no remainder: all share what is missing.
    """
    n_batches = _n_batches(n, batch_size)

    def order(epoch: int, rng: np.random.Generator) -> list[IntArray]:
        positions = rng.permutation(n) if n > 1 else np.zeros(2, np.int64)
        return np.array_split(positions, n_batches)

    return order


def smallest_batch(n: int, batch_size: int) -> int:
    """Images in the smallest batch of `shuffled`."""
    return max(2, n // _n_batches(n, batch_size))


def _n_batches(n: int, batch_size: int) -> int:
    n_batches = -(-n // batch_size)
    return max(1, n // 2) if n_batches > 1 and n // n_batches < 2 else n_batches


class Training:
    """One or more networks on their way through a recipe.

    Every epoch draws its random numbers from the seed and its own number alone, so a training that is taken up
    from `state_dict` goes on as if it had never stopped.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        pixels: Pixels,
        rows: IntArray,
        targets: npt.NDArray[np.int64] | FloatArray | PredProbs,
        recipe: Recipe,
        scaling: Scaling,
        plan: Plan,
        *,
        seed: int,
        losses: Losses = cross_entropy,
        order: Order | None = None,
    ) -> None:
        """rows: (m,) indices into `pixels`; targets: (m,) classes or (m, K) probabilities of those.

        networks: on the plan's device. recipe: `for_channels` of these images.
        """
        self.networks = networks
        self.epoch = 0
        self.recipe = recipe
        self._pixels, self._rows, self._scaling, self._plan = pixels, rows, scaling, plan
        self._seed, self._losses = seed, losses
        self._order = order or shuffled(len(rows), recipe.batch_of(len(rows)))
        self._targets = torch.as_tensor(targets).to(plan.torch_device)
        self._optimizer = _optimizer(networks, recipe, plan)
        self._scaler = torch.amp.GradScaler(plan.torch_device.type, enabled=plan.dtype == "float16")

    def run_epoch(self) -> EpochReport:
        """Train through one epoch.

        Raises InputError where a loss is not finite: the training cannot be saved.
        """
        began = time.perf_counter()
        numbers = np.random.SeedSequence([self._seed, self.epoch])
        batches = self._order(self.epoch, np.random.default_rng(numbers))
        for_motion, for_dropout = (int(number) for number in numbers.generate_state(2))
        n_images = sum(map(len, batches))
        motion = draw_motion(n_images, shift_for(self.recipe, *self._pixels.size), bool(self.recipe.flip), for_motion)
        with seeded(for_dropout, self._plan.torch_device):
            loss = self._run_batches(batches, motion)
        self.epoch += 1
        return EpochReport(self.epoch, self.recipe.epochs, n_images / (time.perf_counter() - began), loss)

    def _run_batches(self, batches: Sequence[IntArray], motion: Motion) -> float:
        device = self._plan.torch_device
        positions = torch.split(torch.from_numpy(np.concatenate(batches)).to(device), [len(batch) for batch in batches])
        record = torch.zeros(len(batches), device=device)
        for network in self.networks:
            network.train()
        images = self._pixels.batches([self._rows[batch] for batch in batches], motion)
        for step, (raw, rows) in enumerate(zip(images, positions, strict=True)):
            rate = self._rate(step, len(batches))
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            inputs = normalise(raw, self._scaling, self._plan)
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
        """All that a later `load_state_dict` needs to go on."""
        return {
            "epoch": self.epoch,
            "networks": [network.state_dict() for network in self.networks],
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch = state["epoch"]
        for network, values in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(values)
        fused = [group["fused"] for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self._optimizer.param_groups, fused, strict=True):
            group["fused"] = own  # of this plan, whatever the earlier one was
        if state["scaler"]:  # empty, unless the earlier plan computed in float16
            self._scaler.load_state_dict(state["scaler"])


def _optimizer(networks: Sequence[nn.Module], recipe: Recipe, plan: Plan) -> torch.optim.Optimizer:
    # a fused SGD whose first step the scaler skips goes on with momentum from memory that nobody wrote
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
    """A network's logits in float32: the first of its outputs, where there are auxiliary ones."""
    first: Tensor = output if isinstance(output, Tensor) else output[0]
    return first.float()


@torch.inference_mode()
def predict(
    networks: Sequence[nn.Module],
    pixels: Pixels,
    rows: IntArray,
    scaling: Scaling,
    plan: Plan,
    *,
    mirror: bool,
    batch_size: int = 500,
) -> PredProbs:
    """Class probabilities (len(rows), K), softmax in float32: the mean over the networks.

    mirror: and over each image and its mirror image.
    """
    for network in networks:
        network.eval()
    parts: list[Tensor] = []
    for raw in pixels.batches([rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]):
        images = normalise(raw, scaling, plan)
        views = [images, images.flip(3)] if mirror else [images]
        with plan.autocast():
            outputs = [network(view) for network in networks for view in views]
        parts.append(torch.stack([logits_of(output).softmax(dim=1) for output in outputs]).mean(dim=0).cpu())
    return torch.cat(parts).numpy()


def fit(training: Training, on_epoch: OnEpoch | None = None, validate: Callable[[], float] | None = None) -> None:
    """Run the epochs that are left.

    validate: a loss on images that are not trained on; the networks end with the weights of its best epoch, and
        training stops after the recipe's `patience` epochs without a better one.

    Raises InputError where a loss is not finite.
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
