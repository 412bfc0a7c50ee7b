"""Batches on the device: images gathered, shifted, mirrored and normalised together; features gathered."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cvcoteach._validation import FloatArray, InputError, IntArray
from cvcoteach.training.augmentation import Motion, draw_motion, move, sources, taken
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import fits
from cvcoteach.training.engine.epochs import FixedInputs
from cvcoteach.training.normalisation import Scaling, factor_and_offset, normalise, scaled_by
from cvcoteach.training.reading_ahead import read_ahead
from cvcoteach.training.recipe import Recipe, shift_for


class BatchSource(Protocol):
    """Network inputs on a device, batch by batch: all that the training loop knows of images or features."""

    @property
    def plan(self) -> ComputePlan:
        """How they are computed with."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def for_training(self, batches: Sequence[IntArray], recipe: Recipe, seed: int) -> Iterator[Tensor]:
        """Yield the inputs of each batch of rows, augmented as the recipe says by random numbers from `seed`."""

    def for_prediction(self, batches: Sequence[IntArray]) -> Iterator[Tensor]:
        """Yield the inputs of each batch of rows as they are."""

    def fixed(self, recipe: Recipe) -> FixedInputs | None:
        """Return the same inputs as `for_training`, made so that steps can be captured; None where they cannot."""


class ImageBatches:
    """Images as network inputs, (b, C, H, W) float32."""

    def __init__(self, images: DeviceImages, scaling: Scaling) -> None:
        """Use the images' own plan.

        Args:
            images: May be shared by several sources.
            scaling: Applied to every image.
        """
        self.plan = images.plan
        self.scaling = scaling
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def for_training(self, batches: Sequence[IntArray], recipe: Recipe, seed: int) -> Iterator[Tensor]:
        """Yield each batch shifted and mirrored at random, as the recipe says."""
        n_images = sum(map(len, batches))
        motion = draw_motion(n_images, shift_for(recipe, *self._images.size), bool(recipe.flip), seed)
        return self._normalised(batches, motion)

    def for_prediction(self, batches: Sequence[IntArray]) -> Iterator[Tensor]:
        """Yield each batch as it is."""
        return self._normalised(batches, None)

    def fixed(self, recipe: Recipe) -> FixedInputs | None:
        """Return the images as a graph makes them; None where they do not lie on the device."""
        resident = self._images.resident
        if resident is None:
            return None
        shift = shift_for(recipe, *self._images.size)
        return _FixedImages(self, resident, self._images.subset, shift, bool(recipe.flip))

    def _normalised(self, batches: Sequence[IntArray], motion: Motion | None) -> Iterator[Tensor]:
        for raw in self._images.batches(batches, motion):
            yield normalise(raw, self.scaling, self.plan.memory_format)


_HIDINGS = 512
"""Draws of what is hidden, from which each image is given one."""


class FeatureBatches:
    """Features as network inputs, (b, d) float32."""

    def __init__(self, features: npt.NDArray[np.float32] | FloatArray, plan: ComputePlan) -> None:
        """Place the features on the device, if the plan says so.

        Args:
            features: (n, d) float32, standardised; never written to.
            plan: How they are computed with.
        """
        self.plan = plan
        self._features = features
        self._rows = _DeviceRows(features, plan)

    def __len__(self) -> int:
        return len(self._features)

    def for_training(self, batches: Sequence[IntArray], recipe: Recipe, seed: int) -> Iterator[Tensor]:
        """Yield each batch with a share of its features hidden at random, as the recipe says.

        A hidden feature is 0, the mean of all; the others grow by as much as is missing. Which are hidden is drawn for
        a few hundred images, and each image is given one of these draws: one for each would take as long as learning.
        """
        if not recipe.hidden:
            yield from self.for_prediction(batches)
            return
        rng = np.random.default_rng(seed)
        hides = rng.random((_HIDINGS, self._features.shape[1]), dtype=np.float32) < recipe.hidden
        factors = torch.from_numpy(np.where(hides, np.float32(0), np.float32(1 / (1 - recipe.hidden))))
        factors = factors.to(self.plan.torch_device)
        for batch in self.for_prediction(batches):
            drawn = torch.from_numpy(rng.integers(_HIDINGS, size=len(batch))).to(batch.device)
            yield batch.mul_(factors.index_select(0, drawn))

    def for_prediction(self, batches: Sequence[IntArray]) -> Iterator[Tensor]:
        """Yield each batch as it is."""
        for stock, rows in self._rows.gathered(batches):
            yield stock.index_select(0, rows)

    def fixed(self, recipe: Recipe) -> FixedInputs | None:
        """Return the features as a graph makes them; None where they do not lie on the device, or some are hidden."""
        stock = self._rows.resident
        return None if stock is None or recipe.hidden else _FixedFeatures(stock)


class DeviceImages:
    """All images of a dataset, ready for batches: on the plan's device if it says so, else fetched as needed."""

    def __init__(self, pixels: npt.NDArray[np.uint8], plan: ComputePlan, subset: IntArray | None = None) -> None:
        """Place the images on the device, if the plan says so.

        Args:
            pixels: (N, H, W, C) uint8, an array or a memory map; never written to.
            plan: How they are computed with.
            subset: (n,) the images that row numbers count; None: all.
        """
        self.plan = plan
        self._pixels, self._subset = pixels, subset
        self._rows = _DeviceRows(pixels, plan)

    def __len__(self) -> int:
        return len(self._pixels if self._subset is None else self._subset)

    @property
    def resident(self) -> Tensor | None:
        """The images (N, H, W, C) on the device; None where they are fetched."""
        return self._rows.resident

    @property
    def subset(self) -> IntArray | None:
        """(n,) the images that row numbers count; None: all."""
        return self._subset

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self._pixels.shape[1], self._pixels.shape[2]

    def batches(self, rows: Sequence[IntArray], motion: Motion | None = None) -> Iterator[Tensor]:
        """Yield the images (b, H, W, C) uint8 of each batch of rows.

        Args:
            rows: The images in each batch.
            motion: Moves all images of all batches, in their order; None leaves them in place.
        """
        if motion is None:
            motion = draw_motion(sum(map(len, rows)), 0, False, seed=0)
        motion = Motion(*(values.to(self.plan.torch_device) for values in motion))
        if self._subset is not None:
            rows = [self._subset[batch] for batch in rows]
        start = 0
        for pixels, wanted in self._rows.gathered(rows):
            yield move(pixels, wanted, motion.part(start, start + len(wanted)))
            start += len(wanted)


class _FixedImages:
    """Images as a graph makes them; a row's place, its shift and whether it is mirrored are drawn."""

    def __init__(self, source: ImageBatches, pixels: Tensor, subset: IntArray | None, shift: int, flip: bool) -> None:
        self._pixels, self._subset = pixels, subset
        self._shift, self._flip = shift, flip
        self._memory_format = source.plan.memory_format
        self._small = torch.uint8 if max(pixels.shape[1:3]) <= 1 << 8 else torch.int32
        # kept here: what a graph reads must not be freed
        self._by = factor_and_offset(source.scaling, pixels.device)

    def drawn(self, batches: Sequence[IntArray], seed: int) -> Tensor:
        rows = np.concatenate(batches)
        if self._subset is not None:
            rows = self._subset[rows]
        motion = draw_motion(len(rows), self._shift, self._flip, seed)
        return torch.stack([torch.from_numpy(rows), motion.down, motion.right, motion.mirrored.long()])

    def worked_out(self, drawn: Tensor) -> Tensor:
        _, down, right, mirrored = drawn.unbind(1)
        height, width = self._pixels.shape[1:3]
        return torch.cat(sources(Motion(down, right, mirrored != 0), height, width), dim=2).to(self._small)

    def made(self, rows: Tensor, worked_out: Tensor) -> Tensor:
        lines, columns = torch.split(worked_out, list(self._pixels.shape[1:3]), dim=1)
        return scaled_by(taken(self._pixels, rows, lines, columns), self._by, self._memory_format)


class _FixedFeatures:
    """Features as a graph makes them."""

    def __init__(self, stock: Tensor) -> None:
        self._stock = stock

    def drawn(self, batches: Sequence[IntArray], seed: int) -> Tensor:
        return torch.from_numpy(np.concatenate(batches))[None]

    def worked_out(self, drawn: Tensor) -> Tensor:
        return drawn.new_empty((len(drawn), drawn.shape[2], 0))

    def made(self, rows: Tensor, worked_out: Tensor) -> Tensor:
        return self._stock.index_select(0, rows)


class _DeviceRows:
    """The rows of an array that batches are made of: all on the device, or read ahead by a thread."""

    def __init__(self, array: npt.NDArray[Any], plan: ComputePlan) -> None:
        self._array, self._device = array, plan.torch_device
        self.resident: Tensor | None = None
        if plan.resident:
            with warnings.catch_warnings():
                # a read-only array makes torch warn; nothing here writes
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                self.resident = torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def gathered(self, batches: Sequence[IntArray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each batch a tensor on the device and the positions (b,) of its rows in that tensor."""
        if self.resident is not None:
            empty = torch.empty(0, dtype=torch.long)
            every = torch.from_numpy(np.concatenate(batches)).to(self._device) if batches else empty
            for part in torch.split(every, [len(batch) for batch in batches]):
                yield self.resident, part
            return
        array = self._array
        for rows in read_ahead(lambda batch: torch.from_numpy(array[batch]), batches, self._device):
            yield rows.to(self._device, non_blocking=True), torch.arange(len(rows), device=self._device)


def check_pixels(pixels: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return the images as given, (n, H, W, C) uint8 with 1 or 3 channels; a memory map stays one.

    Raises:
        InputError: They are anything else.
    """
    array = pixels if isinstance(pixels, np.ndarray) else np.asarray(pixels)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape:
        raise InputError(f"pixels is {array.dtype} of shape {array.shape}; it takes uint8 (n, H, W, C) with C 1 or 3.")
    return array


def room_for(array: npt.NDArray[Any], device: torch.device) -> bool:
    """Return whether the inputs may stay on the device; on a CPU, an array in memory already does."""
    if device.type == "cpu" and not isinstance(array, np.memmap):
        return True
    return fits(array.nbytes, device)
