"""An epoch as device tensors that captured steps read: which images, how they are moved, at which learning rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cvcoteach._validation import IntArray
from cvcoteach.training.engine.graphs import Graphs
from cvcoteach.training.engine.steps import CapturedSteps, rates_as_tensors, state_of, weakly

_WORTH_CAPTURING = 12  # steps; a capture with its warm-up takes as long as a few


class FixedInputs(Protocol):
    """Network inputs made from numbers that are drawn before an epoch, by operations that a graph can hold."""

    def drawn(self, batches: Sequence[IntArray], seed: int) -> Tensor:
        """Return all that decides the inputs of batches of rows, (c, sum of b) int64, on the CPU: first the rows."""

    def worked_out(self, drawn: Tensor) -> Tensor:
        """Return what of it is the same work in every batch, done for s batches at once: (s, c, b) -> (s, b, e)."""

    def made(self, rows: Tensor, worked_out: Tensor) -> Tensor:
        """Return the inputs of a batch of rows (b,) from its part of what was worked out, (b, e) on the device."""


class CapturedEpochs:
    """The epochs of one training, whose steps are captured: nothing waits for the device until an epoch has ended."""

    def __init__(
        self,
        graphs: Graphs,
        inputs: FixedInputs,
        losses: Callable[[Tensor, Tensor], Sequence[Tensor]],
        networks: Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Take what steps do.

        Args:
            graphs: Captures.
            inputs: Makes the inputs.
            losses: Inputs and the positions (b,) of the images in them -> the losses of the networks.
            networks: What is trained.
            optimizer: Of these networks; its learning rates become tensors on the device.
        """
        self._graphs, self._inputs, self._losses, self._optimizer = graphs, inputs, losses, optimizer
        self._steps = CapturedSteps(
            graphs,
            weakly(self._step),
            lambda: state_of(networks),
            optimizer,
            rewind=weakly(self._rewind),
        )
        self._rates = rates_as_tensors(optimizer, graphs.device)
        self._tables: _Tables | None = None
        self._sizes: list[int] = []

    @property
    def is_random(self) -> bool:
        """Whether steps draw random numbers of their own (dropout); known once an epoch is begun."""
        return self._steps.is_random

    def begin(
        self,
        positions: Sequence[IntArray],
        rows: Sequence[IntArray],
        rates: Sequence[float],
        *,
        seed: int,
        epochs_left: int,
    ) -> None:
        """Draw an epoch, and capture what steps of it are not captured yet.

        Args:
            positions: The images in each batch, among the training images.
            rows: The same images, as rows of the inputs.
            rates: The learning rate of each batch.
            seed: Decides what is drawn.
            epochs_left: This one included; sizes of a few batches only are not worth a capture.

        Raises:
            NotCapturableError: The steps cannot be captured; all is as before.
            torch.OutOfMemoryError: There is too little memory on the device.
        """
        self._sizes = [len(batch) for batch in positions]
        every = torch.from_numpy(np.concatenate(positions))[None]
        drawn = torch.cat([every, self._inputs.drawn(rows, seed)])
        shape = (len(positions), len(drawn), max(self._sizes))
        if self._tables is None or not self._tables.hold(shape):
            self._steps.clear()
            self._tables = _Tables(shape, self._inputs, self._graphs.device)
        tables = self._tables
        self._graphs.fork()
        with self._graphs.on_stream():
            tables.fill(drawn, self._sizes)
            tables.begin([0.0] * len(rates))  # warm-ups are undone, so they learn nothing that could diverge on the way
        counts = Counter(self._sizes)
        common = counts.most_common(1)[0][0]
        sizes = [size for size, n in counts.items() if size == common or n * epochs_left >= _WORTH_CAPTURING]
        self._steps.prepare(sizes)
        with self._graphs.on_stream():
            tables.begin(rates)

    def launch(self) -> Iterator[None]:
        """Launch one step after the other, an item each."""
        self._graphs.fork()
        for size in self._sizes:
            self._steps.run(size)
            yield

    def wait(self) -> None:
        """Wait until all steps that were launched have ended."""
        self._graphs.join()

    def record(self) -> Tensor:
        """Wait for the steps, and return the mean loss of each, (batches,) on the CPU."""
        assert self._tables is not None
        with self._graphs.on_stream():
            record = self._tables.losses[: len(self._sizes)].cpu()
        self._graphs.join()
        return record

    def _rewind(self) -> None:
        assert self._tables is not None
        self._tables.at.zero_()

    def _step(self, size: int) -> None:
        assert self._tables is not None
        positions, rows, worked_out, rate = self._tables.read(size)
        for scale, tensor in self._rates:
            torch.mul(rate, scale, out=tensor)
        losses = self._losses(self._inputs.made(rows, worked_out), positions)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(list(losses))
        self._optimizer.step()
        self._tables.note([loss.detach() for loss in losses])


class _Tables:
    """What the steps of an epoch read, and the losses that they write; a counter says which step it is."""

    def __init__(self, shape: tuple[int, int, int], inputs: FixedInputs, device: torch.device) -> None:
        """Make room for that many steps, numbers of an image, and images of a batch."""
        self._shape, self._inputs = shape, inputs
        drawn = torch.zeros(shape, dtype=torch.int64, device=device)
        self._images = drawn[:, :2].clone()
        self._worked_out = inputs.worked_out(drawn[:, 1:])
        self._rates = torch.zeros(shape[0], device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.losses = torch.zeros(shape[0], device=device)

    def hold(self, shape: tuple[int, int, int]) -> bool:
        """Return whether there is room for an epoch of that shape."""
        return all(own >= wanted for own, wanted in zip(self._shape, shape, strict=True))

    def fill(self, drawn: Tensor, sizes: Sequence[int]) -> None:
        """Put in what was drawn, (c, images of all batches)."""
        padded = torch.zeros(self._shape, dtype=torch.int64)
        steps = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        starts = torch.tensor(np.cumsum([0, *sizes[:-1]]))
        places = torch.arange(drawn.shape[1]) - starts[steps]
        padded[steps, :, places] = drawn.T
        padded = padded.to(self.at.device)
        self._images.copy_(padded[:, :2])
        self._worked_out.copy_(self._inputs.worked_out(padded[:, 1:]))

    def begin(self, rates: Sequence[float]) -> None:
        """Go to the first step, with learning rates for each."""
        self._rates[: len(rates)].copy_(torch.tensor(rates, dtype=torch.float32))
        self.at.zero_()
        self.losses.zero_()

    def read(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the step's images among the training images and as rows (size,), what was worked out, and the rate."""
        positions, rows = self._images.index_select(0, self.at)[0, :, :size]
        worked_out = self._worked_out.index_select(0, self.at)[0, :size]
        return positions, rows, worked_out, self._rates.index_select(0, self.at)[0]

    def note(self, losses: Sequence[Tensor]) -> None:
        """Write the mean of a step's losses () and go to the next step."""
        mean = losses[0] if len(losses) == 1 else torch.stack(list(losses)).mean()
        self.losses.index_copy_(0, self.at, mean.reshape(1).float())
        self.at.add_(1)
