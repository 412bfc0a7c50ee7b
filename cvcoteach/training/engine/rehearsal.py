"""Captured steps on a device without graphs: Python again, under the rules of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cvcoteach.training.engine.graphs import Replay

# what makes a GPU wait, or copies from pageable memory
_WAITS = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::item",
    "aten::lift_fresh",
    "aten::masked_select",
    "aten::nonzero",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_"}


class RehearsedGraphs:
    """`Graphs` that gain nothing, and show that steps can be captured and give what eager ones give.

    A replay calls the step again. It raises RuntimeError where the step waits for the device, where its operations or
    their shapes are not those of its first run, and where a tensor that it changes has moved.
    """

    def __init__(self, device: torch.device) -> None:
        """Take the device, usually a CPU."""
        self.device = device

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Return a context that does nothing: there are no streams."""
        yield

    def fork(self) -> None:
        """Do nothing."""

    def join(self) -> None:
        """Do nothing."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Return a context that raises RuntimeError at an operation that no graph can hold."""
        with _Watch():
            yield

    def capture(self, step: Callable[[], None]) -> Replay:
        """Return the step, held to what its first run does."""
        first: list[Any] = []

        def replay() -> None:
            watch = _Watch()
            with watch:
                step()
            if not first:
                first.extend(watch.done)
            if watch.done != first:
                at = next((i for i, (a, b) in enumerate(zip(watch.done, first, strict=False)) if a != b), -1)
                raise RuntimeError(f"a replayed step is not what was captured: {watch.done[at]}, not {first[at]}")

        return replay

    def random_state(self) -> Tensor:
        """Return the state of the CPU's random numbers."""
        return torch.get_rng_state()

    def renew(self) -> None:
        """Do nothing."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation with the shapes of its results, and where what it changes in place lies."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        masks = name in _INDEXED and any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
        if name in _WAITS or masks:
            raise RuntimeError(f"{name} waits for the device, which no graph can hold")
        result = func(*args, **(kwargs or {}))
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        # what an optimiser changes outlives the step, so it must stay where it was captured
        kept = [t.data_ptr() for t in tree_leaves(args[0])] if name.startswith("aten::_fused_") else []
        self.done.append((name, shapes, kept))
        return result
