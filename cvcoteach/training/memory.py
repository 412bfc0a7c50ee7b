"""Memory that is freed and taken again in every batch stays with the process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_NEVER = 2**31 - 1
_USUAL_TRIM, _LARGEST_MMAP = 64 << 20, 32 << 20  # the largest that glibc chooses by itself, and that it allows


@contextmanager
def kept_between_batches() -> Iterator[None]:
    """Let glibc keep what a batch frees until the end of the training; elsewhere nothing happens.

    Activations of two networks are so large that they would go back to the system after each batch and be fetched
    again page by page: a fifth of the time of an epoch on a CPU.
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
