"""The training of heads as captured steps: all features lie on the device, and so does the order of the batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cvcoteach.training.engine.graphs import Graphs
from cvcoteach.training.engine.steps import CapturedSteps, rates_as_tensors, weakly
from cvcoteach.training.heads import Heads, loss_of, own_rows, schedule


@dataclass(frozen=True, eq=False)
class HeadSteps:
    """Which rows each step of a training sees."""

    batches: Sequence[Tensor]
    """(b,) positions of the rows in each batch, on the CPU."""
    order: Sequence[Sequence[int]]
    """The order of the batches in each epoch."""
    own_rows: bool
    """Whether each head computes its own rows only."""

    def factor(self, epoch: int, step: int) -> float:
        """Return the factor of the learning rate in a step."""
        return schedule((epoch + step / len(self.batches)) / len(self.order))

    @cached_property
    def largest(self) -> int:
        """Rows in the largest batch, at least 1."""
        return max(1, *map(len, self.batches))


class CapturedHeads:
    """Steps of all heads of a round, captured once. Batches are filled up to the same size with rows of no label."""

    def __init__(
        self,
        graphs: Graphs,
        heads: Heads,
        optimizer: torch.optim.Optimizer,
        steps: HeadSteps,
        features: Tensor,
        labels: Tensor,
    ) -> None:
        """Capture.

        Args:
            graphs: Captures.
            heads: H heads, trained in place.
            optimizer: Of the heads.
            steps: What each step sees.
            features: (n, d) on the device.
            labels: (n, H) on the device, -1 for rows outside a head's training part.

        Raises:
            NotCapturableError: The steps cannot be captured.
            torch.OutOfMemoryError: There is too little memory on the device.
        """
        self._graphs, self._heads, self._optimizer, self._plan = graphs, heads, optimizer, steps
        n, device = len(features), features.device
        positions = torch.nn.utils.rnn.pad_sequence(
            [torch.zeros(steps.largest, dtype=torch.int64), *steps.batches], batch_first=True, padding_value=n
        )[1:]
        self._features = features
        self._labels = torch.cat([labels, labels.new_full((1, labels.shape[1]), -1)])
        self._most = self._rows_of_a_head(positions) if steps.own_rows else 0
        self._positions = positions.to(device)
        order = torch.tensor([batch for epoch in steps.order for batch in epoch])
        factors = [steps.factor(epoch, step) for epoch, each in enumerate(steps.order) for step in range(len(each))]
        self._order = order.to(device)
        self._factors = torch.tensor(factors, dtype=torch.float32, device=device)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)
        self._rates = rates_as_tensors(optimizer, device)
        self._steps = CapturedSteps(
            graphs, weakly(self._step), weakly(self._trained), optimizer, rewind=weakly(self._rewind)
        )
        self._steps.prepare([steps.largest])
        self._at.zero_()
        graphs.fork()

    def epoch(self) -> Tensor:
        """Train for the next epoch, and return the sum of all losses, () on the CPU."""
        with self._graphs.on_stream():
            self._loss.zero_()
        for _ in self._plan.batches:
            self._steps.run(self._plan.largest)
        with self._graphs.on_stream():
            loss = self._loss.cpu()
        self._graphs.join()
        return loss

    def _rewind(self) -> None:
        self._at.zero_()

    def _trained(self) -> list[Tensor]:
        return [self._heads.weight, self._heads.bias, self._heads.out]

    def _rows_of_a_head(self, positions: Tensor) -> int:
        mine = (self._labels >= 0).cpu()
        return max(1, *(int(mine[batch].sum(dim=0).max()) for batch in positions))

    def _step(self, size: int) -> None:
        positions = self._positions.index_select(0, self._order.index_select(0, self._at))[0]
        factor = self._factors.index_select(0, self._at)[0]
        for scale, rate in self._rates:
            torch.mul(factor, scale, out=rate)
        x = self._features.index_select(0, positions.clamp_max(len(self._features) - 1))
        targets = self._labels.index_select(0, positions).to(torch.int64)
        if self._plan.own_rows:
            x, targets = own_rows(x, targets, self._most)
        loss = loss_of(self._heads, x, targets)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimizer.step()
        self._loss.add_(loss.detach())
        self._at.add_(1)
