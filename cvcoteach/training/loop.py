"""The one training loop: a recipe, one or more networks, batches of images or features in, losses back."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from cvcoteach._validation import FloatArray, InputError, IntArray, PredProbs
from cvcoteach.training.batches import BatchSource
from cvcoteach.training.devices import out_of_memory, repeatable, seeded
from cvcoteach.training.engine.epochs import CapturedEpochs
from cvcoteach.training.engine.graphs import memory_freed
from cvcoteach.training.engine.steps import NotCapturableError, weakly
from cvcoteach.training.engine.which import graphs_for
from cvcoteach.training.optimizers import optimizer_for, portable
from cvcoteach.training.orders import Order, shuffled
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
OnEpoch = Callable[[EpochReport], None]


@runtime_checkable
class FixedLosses(Protocol):
    """Losses that change from epoch to epoch, in such a way that a captured step may compute them."""

    def __call__(self, logits: Sequence[Tensor], batch: Batch) -> Sequence[Tensor]:
        """Return a loss for each network; `batch.epoch` is not looked at after `fix`."""

    def fix(self, epoch: int, sizes: Sequence[int], device: torch.device) -> None:
        """Put what the epoch's batches of these sizes need into tensors, always the same ones."""

    def unfix(self) -> None:
        """Compute again as before the first `fix`."""


def cross_entropy(logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    """Return the cross-entropy of each network, without label smoothing: smoothed scores rank label errors worse."""
    return [functional.cross_entropy(each, batch.targets) for each in logits]


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
        note: Callable[[str], None] = warnings.warn,
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
            note: Called with a sentence where steps are not captured although the plan says so.
        """
        plan = source.plan
        self.networks = networks
        self.epoch = 0
        self.recipe = recipe
        self._source, self._rows, self._plan = source, rows, plan
        self._seed, self._losses = seed, losses
        self._order = order or shuffled(len(rows), recipe.batch_of(len(rows)))
        self._targets = torch.as_tensor(targets).to(plan.torch_device)
        self._optimizer = optimizer_for(networks, recipe, plan)
        self._scaler = torch.amp.GradScaler(plan.torch_device.type, enabled=plan.dtype == "float16")
        self._note = note
        self._captured = self._capturing() if plan.captured else None
        self._begun: tuple[int, int] | None = None

    def run_epoch(self) -> EpochReport:
        """Train for one epoch. Where memory does not hold its steps captured, they run one by one from then on.

        Raises:
            InputError: A loss is not finite, so this training has failed; or memory does not hold a step.
        """
        try:
            with repeatable(self.deterministic):
                return self.run_begun() if self.begin() else self.run_step_by_step()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        device = self._plan.torch_device
        untouched = self._captured is not None and self._begun is None  # memory ran out before the first step
        self._captured = None
        memory_freed(device, after_all=True)
        if not untouched:
            raise InputError(
                f"the memory of {device} does not hold the training in batches of up to "
                f"{self.recipe.batch_of(len(self._rows))}; take smaller images (--image-size) or batches "
                "(Recipe.batch_size)."
            )
        self._note(f"the memory of {device} is full: steps run one by one, not captured.")
        return self.run_epoch()

    def run_step_by_step(self) -> EpochReport:
        """Train for one epoch as Python says it.

        Raises:
            InputError: A loss is not finite.
            RuntimeError: There is too little memory, see `out_of_memory`.
        """
        began = time.perf_counter()
        batches, for_augmentation, for_dropout = self._numbers()
        n_images = sum(map(len, batches))
        with seeded(for_dropout, self._plan.torch_device), repeatable(self._plan.deterministic):
            loss = self._run_batches(batches, for_augmentation)
        self.epoch += 1
        return EpochReport(self.epoch, self.recipe.epochs, n_images / (time.perf_counter() - began), loss)

    def _numbers(self) -> tuple[Sequence[IntArray], int, int]:
        """Return the epoch's batches, and the seeds of augmentation and dropout."""
        numbers = np.random.SeedSequence([self._seed, self.epoch])
        batches = self._order(self.epoch, np.random.default_rng(numbers))
        for_augmentation, for_dropout = (int(number) for number in numbers.generate_state(2))
        return batches, for_augmentation, for_dropout

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
            losses = torch.stack(list(self._losses_of(inputs, rows)))
            torch.autograd.backward(self._scaler.scale(losses.sum()))
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._optimizer.zero_grad(set_to_none=True)
            record[step] = losses.detach().mean()
            if step % _CHECK_EVERY == 0 or step == len(batches) - 1:
                self._check(record[: step + 1], len(batches))
        return self._mean_loss(record)

    def _mean_loss(self, record: Tensor) -> float:
        return float(record.mean())

    def _losses_of(self, inputs: Tensor, rows: Tensor) -> Sequence[Tensor]:
        with self._plan.autocast():
            outputs = [network(inputs) for network in self.networks]
        batch = Batch(rows, self._targets[rows], self.epoch)
        return self._losses([logits_of(output) for output in outputs], batch)

    # -- captured steps ------------------------------------------------------------------------------------------

    def _capturing(self) -> CapturedEpochs | None:
        """Return the epochs as captured steps; None where that cannot be."""
        inputs = self._source.fixed(self.recipe)
        if self._plan.dtype == "float16":
            why = "float16 needs a look at every step's gradients"
        elif self._losses is not cross_entropy and not isinstance(self._losses, FixedLosses):
            why = "the losses may change with the epoch"
        elif inputs is None:
            why = "the inputs are fetched batch by batch"
        else:
            graphs = graphs_for(self._plan.torch_device)
            return CapturedEpochs(graphs, inputs, weakly(self._losses_of), self.networks, self._optimizer)
        self._note(f"steps run one by one, not captured: {why}.")
        return None

    def begin(self) -> bool:
        """Draw an epoch and capture its steps; return whether they can be launched.

        Raises:
            RuntimeError: There is too little memory on the device to capture them, see `out_of_memory`; what the
                training has learned is as it was before.
        """
        self._begun = None
        if self._captured is None:
            return False
        batches, for_augmentation, for_dropout = self._numbers()
        sizes = [len(batch) for batch in batches]
        for network in self.networks:
            network.train()
        losses = self._losses if isinstance(self._losses, FixedLosses) else None
        if losses is not None:
            losses.fix(self.epoch, sizes, self._plan.torch_device)
        try:
            self._captured.begin(
                batches,
                [self._rows[batch] for batch in batches],
                [self._rate(step, len(batches)) for step in range(len(batches))],
                seed=for_augmentation,
                epochs_left=self.recipe.epochs - self.epoch,
            )
        except RuntimeError as error:
            if losses is not None:
                losses.unfix()
            if not isinstance(error, NotCapturableError):
                raise
            self._captured = None
            self._note(f"steps run one by one, since they cannot be captured ({error}).")
            return False
        if losses is not None:
            losses.fix(self.epoch, sizes, self._plan.torch_device)  # again: the capture ran some
        self._begun = sum(sizes), for_dropout
        return True

    @property
    def deterministic(self) -> bool:
        """Whether the plan wants only algorithms that repeat to the bit."""
        return self._plan.deterministic

    @property
    def is_random(self) -> bool:
        """Whether captured steps draw random numbers of their own, so that they must not share a moment with others."""
        return self._captured is not None and self._captured.is_random

    def launch(self) -> Iterator[None]:
        """Launch one step of the epoch after the other, an item each; `finish` waits for them."""
        assert self._captured is not None
        return self._captured.launch()

    def wait(self) -> None:
        """Wait until all steps that were launched have ended."""
        if self._captured is not None:
            self._captured.wait()

    def run_begun(self) -> EpochReport:
        """Run all steps of the epoch that was begun, with random numbers of their own."""
        assert self._begun is not None
        began = time.perf_counter()
        with seeded(self._begun[1], self._plan.torch_device):
            launch_in_turn([self])
        return self.finish(began)

    def finish(self, began: float) -> EpochReport:
        """Wait for the steps that were launched, and check their losses. began: by `time.perf_counter`."""
        assert self._captured is not None
        assert self._begun is not None
        record = self._captured.record()
        self._check(record, len(record))
        self.epoch += 1
        speed = self._begun[0] / (time.perf_counter() - began)
        return EpochReport(self.epoch, self.recipe.epochs, speed, float(record.mean()))

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
            "optimizer": portable(self._optimizer.state_dict()),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state that `state_dict` returned."""
        self.epoch = state["epoch"]
        for network, values in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(values)
        kept: list[dict[str, Any]] = [
            {name: group[name] for name in ("fused", "capturable", "lr") if name in group}
            for group in self._optimizer.param_groups
        ]
        self._optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self._optimizer.param_groups, kept, strict=True):
            group.update(own)  # of this plan, whatever the earlier one was
        if state["scaler"]:  # empty, unless the earlier plan computed in float16
            self._scaler.load_state_dict(state["scaler"])


def launch_in_turn(trainings: Sequence[Training]) -> None:
    """Launch the steps of all that have begun an epoch, and wait until they have ended.

    One of each in turn, since the queue of a device holds so much: whoever comes first must not fill it.
    """
    try:
        for _ in zip_longest(*[training.launch() for training in trainings]):
            pass
    finally:  # whatever happens next, nothing may be freed that a device still uses
        for training in trainings:
            training.wait()


def logits_of(output: Any) -> Tensor:
    """Return a network's logits in float32: the first of its outputs, if it has auxiliary ones."""
    first: Tensor = output if isinstance(output, Tensor) else output[0]
    return first.float()


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
        batch_size: Rows computed at a time; fewer where memory runs out.
    """
    while True:
        try:
            return _predicted(networks, source, rows, mirror, batch_size)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        if batch_size == 1:
            raise InputError("the device has too little memory to compute the network on a single image.")
        batch_size //= 2


@torch.inference_mode()
def _predicted(
    networks: Sequence[nn.Module], source: BatchSource, rows: IntArray, mirror: bool, batch_size: int
) -> PredProbs:
    for network in networks:
        network.eval()
    parts: list[Tensor] = []
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    for inputs in source.for_prediction(batches):
        views = [inputs, inputs.flip(3)] if mirror else [inputs]
        with source.plan.autocast():
            outputs = [network(view) for network in networks for view in views]
        parts.append(torch.stack([logits_of(output).softmax(dim=1) for output in outputs]).mean(dim=0))
    return torch.cat(parts).cpu().numpy()  # one wait for all of them
