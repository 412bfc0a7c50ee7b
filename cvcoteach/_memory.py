"""How much memory there is, and a sentence before it is too little."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import InputError

_GROUP = Path("/sys/fs/cgroup")
_LARGE = 1 << 28
"""Bytes from which an array is put into a file."""


def available() -> int | None:
    """Return the bytes of memory that this process may still take; None where the system does not tell."""
    found = []
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")))
    if not found:
        with suppress(AttributeError, OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError, IndexError):  # of a container; "max" where there is none
        limit, used = ((_GROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        reclaimable = (_GROUP / "memory.stat").read_text().split("inactive_file ")[1].split()[0]
        found.append(int(limit) - int(used) + int(reclaimable))
    return min(found) if found else None


def check_memory(n_bytes: float, what: str) -> None:
    """Raise InputError where so many bytes are not to be had. what: needs them, the subject of a sentence."""
    there = available()
    if there is not None and n_bytes > there:
        raise InputError(f"{what} takes {n_bytes / 1e9:.1f} GB of memory; {max(there, 0) / 1e9:.1f} GB are free.")


def scratch(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array to be filled; a large one lies in a file without a name, which is gone with the array.

    The system writes such a file's pages out where memory becomes short. An array that the folder of temporary files
    has no room for lies in memory, like any other.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told now, not by a signal when it is written to
            pages = mmap.mmap(file.fileno(), size)
    except OSError:
        return np.empty(shape, dtype)
    return np.frombuffer(pages, dtype).reshape(shape)
