"""Batches on the device: pixels gathered, shifted, mirrored and normalised, all images of a batch at once."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cvcoteach._validation import InputError, IntArray
from cvcoteach.training.devices import Plan, fits

_PREFETCH = 3
_STATISTICS_IMAGES = 4096


class Motion(NamedTuple):
    """How each image of a batch is moved."""

    down: Tensor
    """(b,) pixels, negative is up."""
    right: Tensor
    """(b,) pixels, negative is left."""
    mirrored: Tensor
    """(b,) whether left and right change places."""

    def part(self, start: int, stop: int) -> Motion:
        """The motion of the images start..stop-1."""
        return Motion(*(values[start:stop] for values in self))


def draw_motion(n: int, shift: int, flip: bool, seed: int) -> Motion:
    """Random motion of n images: up to `shift` pixels each way, mirrored every second time if `flip`.

    The numbers are drawn on the CPU, so that every device sees the same.
    """
    generator = torch.Generator().manual_seed(seed)
    by = torch.randint(-shift, shift + 1, (2, n), generator=generator)
    mirrored = torch.rand(n, generator=generator) < 0.5 if flip else torch.zeros(n, dtype=torch.bool)
    return Motion(by[0], by[1], mirrored)


def move(pixels: Tensor, rows: Tensor, motion: Motion) -> Tensor:
    """Take images out of `pixels` and move them in the same step; what comes in at the edge is reflected.

    pixels: (n, H, W, C); rows: (b,) which; a shift of more than the image is cut to it. Returns (b, H, W, C).
    """
    n, height, width, channels = pixels.shape
    device = pixels.device
    y = torch.arange(height, device=device).expand(len(rows), -1)
    x = torch.arange(width, device=device).expand(len(rows), -1)
    x = torch.where(motion.mirrored[:, None], width - 1 - x, x)
    y = _reflected(y - motion.down.clamp(1 - height, height - 1)[:, None], height)
    x = _reflected(x - motion.right.clamp(1 - width, width - 1)[:, None], width)
    flat = ((rows[:, None] * height + y) * width)[:, :, None] + x[:, None, :]
    taken = pixels.view(n * height * width, channels).index_select(0, flat.view(-1))
    return taken.view(len(rows), height, width, channels)


def _reflected(index: Tensor, size: int) -> Tensor:
    """Indices -(size-1)..2(size-1) mirrored at the edge pixel, which is not repeated (torch's "reflect")."""
    return size - 1 - (size - 1 - index.abs()).abs()


@dataclass(frozen=True)
class Scaling:
    """What is taken off and divided by, a number a channel, of values 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def normalise(images: Tensor, scaling: Scaling, plan: Plan) -> Tensor:
    """uint8 (b, H, W, C) -> float32 (b, C, H, W) as (x / 255 - mean) / std, in the plan's memory order.

    One channel and a mean of three gives three channels: grey images for a network that wants colour.
    """
    factor, offset = _factor_and_offset(scaling, images.device)
    floats = torch.addcmul(offset, images.to(torch.float32), factor)
    return floats.permute(0, 3, 1, 2).contiguous(memory_format=plan.memory_format)


@lru_cache(16)  # a GPU would wait for these few numbers in every batch
def _factor_and_offset(scaling: Scaling, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(scaling.mean), torch.tensor(scaling.std)
    return (1 / (255 * std)).to(device), (-mean / std).to(device)


def scaling_of(pixels: npt.NDArray[np.uint8], rows: IntArray) -> Scaling:
    """Mean and standard deviation of each channel over these images (4,096 of them at most).

    pixels: (n, H, W, C) uint8; rows: indices.
    """
    taken = pixels[np.sort(rows[:: -(-len(rows) // _STATISTICS_IMAGES)])]
    values = taken.reshape(-1, taken.shape[-1])
    mean = values.mean(axis=0, dtype=np.float64) / 255
    std = np.maximum(values.std(axis=0, dtype=np.float64) / 255, 1 / 255)  # one colour throughout is no error
    return Scaling(tuple(mean.tolist()), tuple(std.tolist()))


class Pixels:
    """All images of a dataset, ready for batches: on the plan's device where it says so, else fetched as needed."""

    def __init__(self, pixels: npt.NDArray[np.uint8], plan: Plan) -> None:
        """pixels: (n, H, W, C) uint8, an array or a memory map; never written to."""
        self._plan = plan
        self._array = pixels
        self._tensor: Tensor | None = None
        if plan.resident:
            with warnings.catch_warnings():
                # a read-only array makes torch warn; nothing here writes
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                self._tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(plan.torch_device)

    def __len__(self) -> int:
        return len(self._array)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self._array.shape[1], self._array.shape[2]

    def batches(self, rows: Sequence[IntArray], motion: Motion | None = None) -> Iterator[Tensor]:
        """Images (b, H, W, C) uint8 on the device for each batch of rows, moved if there is a motion for all."""
        device = self._plan.torch_device
        if motion is None:
            motion = draw_motion(sum(map(len, rows)), 0, False, seed=0)
        motion = Motion(*(values.to(device) for values in motion))
        start = 0
        for pixels, wanted in self._fetched(rows):
            yield move(pixels, wanted, motion.part(start, start + len(wanted)))
            start += len(wanted)

    def _fetched(self, rows: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        device = self._plan.torch_device
        if self._tensor is not None:
            every = torch.from_numpy(np.concatenate(rows)).to(device) if rows else torch.empty(0, dtype=torch.long)
            for part in torch.split(every, [len(batch) for batch in rows]):
                yield self._tensor, part
            return
        for images in _ahead(self._array, rows, pin=device.type == "cuda"):
            yield images.to(device, non_blocking=True), torch.arange(len(images), device=device)


def _ahead(array: npt.NDArray[np.uint8], rows: Sequence[IntArray], pin: bool) -> Iterator[Tensor]:
    """The batches of a memory map, read by a thread while the device computes."""
    ready: queue.Queue[Tensor | BaseException | None] = queue.Queue(_PREFETCH)
    over = threading.Event()

    def put(item: Tensor | BaseException | None) -> None:
        while not over.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for batch in rows:
                images = torch.from_numpy(array[batch])
                put(images.pin_memory() if pin else images)
                if over.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again where the batches are used
            put(error)

    thread = threading.Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()
        thread.join()


def as_pixels(pixels: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The images as given, (n, H, W, C) uint8 with 1 or 3 channels; a memory map stays one.

    Raises InputError for anything else.
    """
    array = pixels if isinstance(pixels, np.ndarray) else np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape:
        raise InputError(f"pixels is {array.dtype} of shape {array.shape}; it takes uint8 (n, H, W, C) with C 1 or 3.")
    return array


def room_for(pixels: npt.NDArray[np.uint8], device: torch.device) -> bool:
    """Whether the pixels may lie on the device; on the CPU an array in memory already does."""
    if device.type == "cpu" and not isinstance(pixels, np.memmap):
        return True
    return fits(pixels.nbytes, device)
