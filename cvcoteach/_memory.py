"""How much memory there is, and a sentence before it is too little."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cvcoteach._validation import InputError

_GROUP = Path("/sys/fs/cgroup")


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
