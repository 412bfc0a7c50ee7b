"""Batches read by a thread while the device computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from cvcoteach._validation import IntArray

_PREFETCH = 3


def read_ahead(
    read: Callable[[IntArray], Tensor], batches: Iterable[IntArray], device: torch.device
) -> Iterator[Tensor]:
    """Yield what `read` returns for each batch, on the CPU, read by a thread; pinned where the device is a GPU.

    Raises:
        Exception: Whatever `read` raises.
    """
    pin = device.type == "cuda"
    ready: queue.Queue[Tensor | BaseException | None] = queue.Queue(_PREFETCH)
    over = threading.Event()

    def put(item: Tensor | BaseException | None) -> None:
        while not over.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def fill() -> None:
        try:
            for batch in batches:
                rows = read(batch)
                put(rows.pin_memory() if pin else rows)
                if over.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where the batches are used
            put(error)

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()
        thread.join()
