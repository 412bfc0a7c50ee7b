"""Features as heads read them: standardised, in one fixed random order, in memory or from disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cvcoteach._validation import InputError, IntArray
from cvcoteach.training.devices import fits
from cvcoteach.training.reading_ahead import read_ahead

_ORDER_SEED = 0x1C5
_CHUNK = 8192  # rows
_RESIDENT = 1 << 30  # bytes of features that a CPU keeps as float32


class Rows:
    """Standardised features in one fixed random order, on the device or read in chunks."""

    def __init__(self, features: npt.NDArray[Any], device: torch.device) -> None:
        """Compute the statistics, and place the features on the device if they fit.

        Args:
            features: (n, d), an array or a memory map, which is never copied as a whole if it is large.
            device: Where the rows are needed.

        Raises:
            InputError: The shape or type does not fit, or a number is not finite.
        """
        check_shape(features, "features")
        self.n, self.d = features.shape
        self.device = device
        mean, scale = _statistics(features)
        self._mean, self._scale = torch.from_numpy(mean).to(device), torch.from_numpy(scale).to(device)
        self._order = np.random.default_rng(_ORDER_SEED).permutation(self.n)
        inverse = np.empty(self.n, np.int64)
        inverse[self._order] = np.arange(self.n)
        self._position = torch.from_numpy(inverse)
        self._features = features
        self.resident: Tensor | None = None
        size = 4 * self.n * self.d
        if fits(size, device) and (device.type == "cuda" or size <= _RESIDENT):
            resident = torch.empty(self.n, self.d, device=device)
            for start in range(0, self.n, _CHUNK):
                piece = np.arange(start, min(start + _CHUNK, self.n))
                resident[start : start + _CHUNK] = self._read(piece)
            self.resident = resident

    def check(self, idx: IntArray) -> None:
        """Raise InputError if an index has no row."""
        if len(idx) and not 0 <= np.min(idx) <= np.max(idx) < self.n:
            odd = np.max(idx) if np.max(idx) >= self.n else np.min(idx)
            raise InputError(f"features has {self.n:,} rows, but image {odd} is asked for; it takes one row per image.")

    def positions(self, idx: IntArray) -> Tensor:
        """Return the positions of the images `idx` in the fixed order."""
        return self._position[torch.from_numpy(np.asarray(idx, dtype=np.int64))]

    def at(self, positions: Tensor) -> Tensor:
        """Return the rows (b, d) at these positions (b,), on the device; consecutive positions are not copied."""
        if self.resident is None:
            return self._read(positions.numpy())
        if bool((positions.diff() == 1).all()):
            first = int(positions[0]) if len(positions) else 0
            return self.resident[first : first + len(positions)]
        return self.resident[positions.to(self.device)]

    def each(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the rows (b, d) at each batch of positions (b,); a GPU that cannot hold all has them read ahead."""
        if self.resident is None and self.device.type == "cuda":
            for raw in read_ahead(self._raw, [positions.numpy() for positions in batches], self.device):
                yield self._standardised(raw.to(self.device, non_blocking=True))
            return
        for positions in batches:
            yield self.at(positions)

    def _read(self, positions: IntArray) -> Tensor:
        return self._standardised(self._raw(positions).to(self.device))

    def _raw(self, positions: IntArray) -> Tensor:
        wanted = self._order[positions]
        by_place = np.argsort(wanted)  # disks read forwards
        raw = np.empty((len(wanted), self.d), np.float32)
        raw[by_place] = self._features[wanted[by_place]]
        return torch.from_numpy(raw)

    def _standardised(self, raw: Tensor) -> Tensor:
        x = (raw - self._mean) * self._scale
        # rows far from the mean would dominate: their length is bounded by √(2d), their direction stays
        x *= (2 / (1 + x.square().mean(dim=1, keepdim=True))).sqrt()
        return x


def check_shape(features: npt.NDArray[Any], where: str) -> None:
    """Raise InputError unless the features are (n, d) numbers, n and d at least 1."""
    if features.ndim != 2 or not features.size:
        raise InputError(f"{where} has shape {features.shape}; it takes one row of numbers per image, shape (n, d).")
    if features.dtype.kind not in "fiu":
        raise InputError(f"{where} holds {features.dtype}; it takes numbers, shape (n, d).")


def _statistics(features: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return mean and 1 / standard deviation of each column (d,), the latter 0 for a constant column.

    Raises:
        InputError: A number is not finite.
    """
    n, d = features.shape
    shift = np.zeros(d)
    sums, squares = np.zeros(d), np.zeros(d)
    for start in range(0, n, _CHUNK):
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which is refused below
            piece = np.asarray(features[start : start + _CHUNK], dtype=np.float32)
        finite = np.isfinite(piece)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            value = features[start + row, column]
            raise InputError(f"features[{start + row}, {column}] is {value}; it takes finite float32 numbers.")
        if start == 0:
            shift = piece.mean(
                axis=0, dtype=np.float64
            )  # else the squares of large numbers would hide a small deviation
        centred = piece - shift
        sums += centred.sum(axis=0)
        squares += np.square(centred).sum(axis=0)
    mean = shift + sums / n
    variance = squares / n - (sums / n) ** 2
    says_something = variance > 1e-12 * np.square(mean) + 1e-30
    scale = np.divide(1, np.sqrt(variance, where=says_something, out=np.ones(d)), where=says_something, out=np.zeros(d))
    return mean.astype(np.float32), scale.astype(np.float32)
