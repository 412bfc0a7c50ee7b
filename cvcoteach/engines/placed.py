"""An array that processes on any node can open: a file by its path, or an object in Ray's store."""

from __future__ import annotations

import importlib
import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import InputError


@dataclass(frozen=True)
class Placed:
    """Where an array is; small enough to travel with a task."""

    path: str = ""
    """Of the file, absolute; empty for an object in the store."""
    offset: int = 0
    """Bytes before the array in the file."""
    shape: tuple[int, ...] = ()
    """Of the array in the file."""
    dtype: str = ""
    """Of the array in the file."""
    ref: Any = None
    """The object in the store; None for a file."""

    def open(self) -> npt.NDArray[Any]:
        """Return the array, read-only; nothing is copied.

        Raises:
            InputError: The file is not to be seen from this node.
        """
        if self.ref is not None:
            array: npt.NDArray[Any] = importlib.import_module("ray").get(self.ref)
            return array
        try:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} cannot be read on a node of the Ray cluster ({error}).") from error


def whole_file(array: npt.NDArray[Any]) -> Placed | None:
    """Return where a memory map lies; None for an array in memory, and for a part of a map."""
    if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap) or array.filename is None:
        return None
    if not array.flags.c_contiguous or array.dtype.hasobject:
        return None
    return Placed(os.path.abspath(array.filename), int(array.offset), array.shape, array.dtype.str)
