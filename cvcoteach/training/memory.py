"""Keep memory that every batch frees and needs again with the process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_NEVER = 2**31 - 1
_USUAL_TRIM, _LARGEST_MMAP = 64 << 20, 32 << 20  # what glibc chooses by default, and the most it allows


@contextmanager
def kept_between_batches() -> Iterator[None]:
    """Let glibc keep what a batch frees until the training ends; on other systems, do nothing.

    The activations of two networks are so large that they would be returned to the system after each batch and
    fetched again page by page, which takes a fifth of an epoch's time on a CPU.
    """
    malloc = _glibc()
    if malloc is None:
        yield
        return
    malloc.mallopt(_TRIM_THRESHOLD, _NEVER)
    malloc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP)
    try:
        yield
    finally:
        malloc.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        malloc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
