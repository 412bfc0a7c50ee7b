"""Record a step once and repeat it without Python: CUDA graphs."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

Replay = Callable[[], None]
"""Launches a captured step; returns before it has ended."""


class Graphs(Protocol):
    """What captures the steps of one training, which has a stream of its own beside other trainings."""

    @property
    def device(self) -> torch.device:
        """Where the steps run."""

    def on_stream(self) -> AbstractContextManager[None]:
        """Return a context whose work goes to the training's own stream."""

    def fork(self) -> None:
        """Let the own stream wait for all that was launched outside it."""

    def join(self) -> None:
        """Wait until all that was launched on the own stream has ended."""

    def watched(self) -> AbstractContextManager[None]:
        """Return a context that raises RuntimeError at an operation that no graph can hold, where it is recognised."""

    def capture(self, step: Callable[[], None]) -> Replay:
        """Record what the step launches, without running it; call it on the own stream.

        Raises:
            RuntimeError: The step does something that no graph can hold.
        """

    def random_state(self) -> Tensor:
        """Return the state of the device's random numbers."""

    def renew(self) -> None:
        """Begin with fresh memory; call it when no earlier capture is replayed any more."""


_free_streams: dict[int, list[torch.cuda.Stream]] = {}
"""Of each card, those of trainings that ended: torch has 32, and cuBLAS keeps memory for each that was ever used."""


class CudaGraphs:
    """`Graphs` of CUDA."""

    def __init__(self, device: torch.device) -> None:
        """Take a stream of the device that no other training has."""
        self.device = device
        card = torch.cuda.current_device() if device.index is None else device.index
        free = _free_streams.setdefault(card, [])
        try:
            self._stream = free.pop()
        except IndexError:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        weakref.finalize(self, free.append, self._stream)
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Return a context whose work goes to the training's own stream."""
        with torch.cuda.stream(self._stream):
            yield

    def fork(self) -> None:
        """Let the own stream wait for all that was launched outside it."""
        self._stream.wait_stream(torch.cuda.current_stream(self.device))

    def join(self) -> None:
        """Wait until all that was launched on the own stream has ended."""
        self._stream.synchronize()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Return a context that raises RuntimeError where an operation waits for the device."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that it does not find all of them
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def capture(self, step: Callable[[], None]) -> Replay:
        """Record what the step launches, without running it; call it on the own stream."""
        graph = torch.cuda.CUDAGraph()
        # other threads of the process may allocate meanwhile: only this one must not
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            step()
        replay: Replay = graph.replay
        return replay

    def random_state(self) -> Tensor:
        """Return the state of the device's random numbers."""
        return torch.cuda.get_rng_state(self.device)

    def renew(self) -> None:
        """Begin with fresh memory; call it when no earlier capture is replayed any more."""
        self._pool = torch.cuda.graph_pool_handle()


def memory_freed(device: torch.device, *, after_all: bool = False) -> None:
    """Give memory that nothing uses back to the device, for those who cannot take it from torch's own stock.

    Args:
        device: Any.
        after_all: Whether to look for garbage first, as where memory has run out.
    """
    if after_all:
        gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
