"""Choose what to compute with: devices, threads, memory, and torch's random numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from cvcoteach._validation import InputError, as_count

_ROOM = 0.5  # share of the free memory that inputs may take
_OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
_MOST_THREADS = 1024  # with a hundred thousand, torch ends the process without a word


# -- the device --------------------------------------------------------------------------------------------------


def available_devices() -> tuple[str, ...]:
    """Return the devices of this machine, best first: "cuda", "cuda:0", …, "mps", "cpu"."""
    found = []
    if torch.cuda.is_available():
        found += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of that name, or the best available: CUDA, then MPS, then CPU.

    Raises:
        InputError: This machine does not have the device.
    """
    there = available_devices()
    if name is None or name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise InputError(f"device is {name!r}, which this machine does not have; it has {', '.join(there)}.")
    return torch.device(name)


# -- the threads -------------------------------------------------------------------------------------------------


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPUs that the process's control group (v1 or v2) grants, a fraction; None without a limit.

    A group is limited by its parents too, so the smallest limit on the way up counts.

    Args:
        root: The folder that holds /proc and /sys.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if controllers and "cpu" not in names:
            continue
        mounts = ["sys/fs/cgroup"] if not controllers else [f"sys/fs/cgroup/{c}" for c in (controllers, "cpu")]
        for mount in mounts:
            # inside a container the path is often the host's; the mount itself is then the group
            group = root / mount / path.strip("/")
            while group.is_relative_to(root / mount):
                limits.append(_limit_of(group))
                group = group.parent
    return min((limit for limit in limits if limit is not None), default=None)


def _limit_of(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def choose_threads(n: int | None = None, root: Path = Path("/")) -> int:
    """Return how many threads to compute with: `n`, or as many as the process can run at once.

    That is the smallest of the CPUs it may be scheduled on, its control group's quota (rounded up) and
    OMP_NUM_THREADS. More threads than CPUs wait for each other, and a fold then takes ten times as long.

    Raises:
        InputError: `n` is below 1 or absurd.
    """
    if n is not None:
        n = as_count("threads", n, 1)
        if n > _MOST_THREADS:
            raise InputError(f"threads is {n:,}; it takes up to {_MOST_THREADS:,}, and helps up to the number of CPUs.")
        return n
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    if quota is not None:
        cpus = min(cpus, max(1, math.ceil(quota)))
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cpus, int(wish)) if wish.isdecimal() and int(wish) > 0 else cpus


def set_threads(n: int | None = None) -> int:
    """Limit this process (torch, OpenMP, BLAS) to `choose_threads(n)` threads, and return that number."""
    threads = choose_threads(n)
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    return threads


# -- memory and random numbers ------------------------------------------------------------------------------------


def fits(n_bytes: int, device: torch.device) -> bool:
    """Return whether inputs of that size may stay on the device: they take at most half of its free memory."""
    if device.type == "cuda":
        return n_bytes <= _ROOM * torch.cuda.mem_get_info(device)[0]
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return n_bytes <= _ROOM * free
    return n_bytes <= 2 << 30


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether the memory of a device ran out, by the error or one in whose handling it was raised.

    Torch's allocator has a type for it; CUDA graphs, cuBLAS, cuDNN and MPS say it in words.
    """
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY):
            return True
        error = error.__context__
    return False


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Let cuDNN take only algorithms for convolutions that give the same bits each time, if that is wanted.

    Operations of torch that add up in any order on a GPU, such as the gradients of attention, remain as they are.
    """
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = before or wanted
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Start torch's own random numbers (dropout, initialisation) from `seed`, and restore them afterwards."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
