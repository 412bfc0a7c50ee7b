"""Steps captured once for each batch size, and replayed."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from weakref import WeakMethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cvcoteach.training.devices import out_of_memory, seeded
from cvcoteach.training.engine.graphs import Graphs, Replay

_WARM_UPS = 3  # libraries choose their algorithms and the optimiser makes its state

_broken: list[str] = []
"""Why captures broke off on their way: torch's allocator may still count them as underway, so no other one follows."""


class NotCapturableError(RuntimeError):
    """Raised for a step that no graph can hold; all is as it was before."""


class CapturedSteps:
    """The steps of one training. Steps of a size that was not captured run as Python says them."""

    def __init__(
        self,
        graphs: Graphs,
        step: Callable[[int], None],
        trained: Callable[[], Sequence[Tensor]],
        optimizer: torch.optim.Optimizer,
        *,
        rewind: Callable[[], None],
    ) -> None:
        """Take what a step does.

        Args:
            graphs: Captures.
            step: Batch size -> one step, whose numbers all come from tensors that stay where they are.
            trained: Returns all that steps change but the optimiser's state: weights, statistics.
            optimizer: Of these weights.
            rewind: Lets the next step be the first one again.
        """
        self._graphs, self._step, self._rewind = graphs, step, rewind
        self._trained, self._optimizer = trained, optimizer
        self._replays: dict[int, Replay] = {}
        self._addresses: list[int] = []
        self.is_random = False
        """Whether a step draws random numbers of its own (dropout); known once a size is prepared."""

    def prepare(self, sizes: Collection[int]) -> None:
        """Capture steps of these sizes, those excepted that are captured already.

        Weights, optimiser and random numbers are the same before and after, whether it succeeds or not.

        Raises:
            NotCapturableError: They cannot be captured.
            torch.OutOfMemoryError: There is too little memory on the device.
        """
        if self._addresses != _addresses(self._trained(), self._optimizer):
            self.clear()  # weights or momentum were put elsewhere: what was captured would change what nobody reads
        missing = [size for size in sizes if size not in self._replays]
        if not missing:
            return
        if _broken:
            raise NotCapturableError(f"an earlier capture in this process broke off: {_broken[0]}")
        begun = False
        try:
            self._graphs.fork()
            with self._graphs.on_stream():
                for size in missing:
                    with (
                        unchanged(self._trained(), self._optimizer, self._graphs.device),
                        no_host_numbers(self._graphs.device),
                    ):
                        self._warm_up(size)
                    self._optimizer.zero_grad(set_to_none=True)  # the graph makes gradients in memory of its own
                    begun = True
                    self._replays[size] = self._graphs.capture(partial(self._step, size))
                    begun = False
                    self._graphs.join()
        except RuntimeError as error:
            with suppress(RuntimeError):  # of a stream on which a capture broke off
                self.clear()
            if out_of_memory(error):
                # a new one: the old one's frames would keep what has to be freed
                raise torch.OutOfMemoryError(f"{self._graphs.device} has too little memory") from None
            why = str(error).strip().splitlines()[0] if str(error) else "no reason given"
            if begun:
                _broken.append(why)
            raise NotCapturableError(why) from error
        self._addresses = _addresses(self._trained(), self._optimizer)

    def run(self, size: int) -> None:
        """Launch a step, on the training's own stream."""
        with self._graphs.on_stream():
            replay = self._replays.get(size)
            if replay is None:
                self._step(size)
            else:
                replay()

    def clear(self) -> None:
        """Forget all that was captured."""
        self._graphs.join()
        self._replays.clear()
        self._optimizer.zero_grad(set_to_none=True)
        self._graphs.renew()

    def _warm_up(self, size: int) -> None:
        for turn in range(_WARM_UPS):
            self._rewind()
            before = self._graphs.random_state()
            if turn < _WARM_UPS - 1:
                self._step(size)
            else:
                with self._graphs.watched():
                    self._step(size)
            self.is_random |= not torch.equal(before, self._graphs.random_state())
        self._graphs.join()


@contextmanager
def unchanged(tensors: Sequence[Tensor], optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """Give weights, statistics, momentum and random numbers the values of before, each in its place."""
    values = [t.detach().clone() for t in tensors]
    states = {id(t): t.clone() for t in _state_of(optimizer)}
    with seeded(0, device):
        try:
            yield
        finally:
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.copy_(value)
                for tensor in _state_of(optimizer):
                    if id(tensor) in states:
                        tensor.copy_(states[id(tensor)])
                    else:
                        tensor.zero_()  # SGD and Adam continue from zeros as they begin


@contextmanager
def no_host_numbers(device: torch.device) -> Iterator[None]:
    """Raise RuntimeError if random numbers are drawn on the host, which a graph would repeat; put their states back.

    Those of torch count only where the device has its own.
    """
    states = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
        drawn = {
            "Python's random": random.getstate() != states[0],
            "numpy.random": not _same(np.random.get_state(legacy=False), states[1]),  # noqa: NPY002
            "torch on the CPU": device.type != "cpu" and not torch.equal(torch.get_rng_state(), states[2]),
        }
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
    names = [name for name, moved in drawn.items() if moved]
    if names:
        raise RuntimeError(f"random numbers of {' and '.join(names)} would be the same in every step")


def _same(a: Any, b: Any) -> bool:
    """Return whether two states of NumPy's random numbers are the same."""
    return all(map(np.array_equal, tree_leaves(a), tree_leaves(b)))


def _state_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]


def state_of(networks: Sequence[nn.Module]) -> list[Tensor]:
    """Return the weights and statistics of networks."""
    return [t for network in networks for t in (*network.parameters(), *network.buffers())]


def rates_as_tensors(optimizer: torch.optim.Optimizer, device: torch.device) -> list[tuple[float, Tensor]]:
    """Give the optimiser learning rates that a graph reads; return the factor of each, `scale` of its group."""
    rates: dict[float, Tensor] = {}
    for group in optimizer.param_groups:
        group["lr"] = rates.setdefault(group["scale"], torch.zeros((), device=device))
        if "capturable" in group:
            group["capturable"] = True
    # what is captured warms up uncaptured
    optimizer._warned_capturable_if_run_uncaptured = True
    return list(rates.items())


def _addresses(tensors: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> list[int]:
    return [t.data_ptr() for t in (*tensors, *_state_of(optimizer))]


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that does not keep its object: what was captured is freed the moment its training is.

    Captures take much memory, and garbage in a circle would wait for Python's collector.
    """
    reference = WeakMethod(method)

    def call(*arguments: Any) -> Any:
        there = reference()
        assert there is not None
        return there(*arguments)

    return call
