"""Where and how to compute: the device, the threads, and a plan that a short probe on the real network decides."""

from __future__ import annotations

import copy
import json
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from cvcoteach._validation import InputError, check_at_least, near

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# a lower precision or another memory order must pay for being another computation
_WORTH_IT = 1.1
_TURNS = 6
_PROBE_SECONDS = 3.0
_ROOM = 0.5  # share of the free memory that pixels may take


# -- the device --------------------------------------------------------------------------------------------------


def available_devices() -> tuple[str, ...]:
    """The devices this machine has, best first: "cuda", "cuda:0", …, "mps", "cpu"."""
    found = []
    if torch.cuda.is_available():
        found += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, or the best there is: CUDA, then MPS, then CPU.

    Raises InputError for a device that this machine does not have.
    """
    there = available_devices()
    if name is None or name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise InputError(f"device is {name!r}, which this machine does not have; it has {', '.join(there)}.")
    return torch.device(name)


# -- the threads -------------------------------------------------------------------------------------------------


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs that the process's control group (v1 or v2) grants, as a fraction; None without a limit.

    A group's parents limit it too, so the smallest along the way counts. root: where /proc and /sys lie.
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
            # inside a container the path is often the host's: the mount itself is then the group
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
    """How many threads to compute with: `n`, or as many as the process may really run at once.

    That is the smallest of the CPUs it may be scheduled on, its control group's quota (rounded up) and
    OMP_NUM_THREADS. More threads than CPUs wait for each other: a fold then takes ten times as long.

    Raises InputError if n < 1.
    """
    if n is not None:
        check_at_least("threads", n, 1)
        return n
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    if quota is not None:
        cpus = min(cpus, max(1, math.ceil(quota)))
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cpus, int(wish)) if wish.isdecimal() and int(wish) > 0 else cpus


def set_threads(n: int | None = None) -> int:
    """Limit this process (torch, OpenMP, BLAS) to `choose_threads(n)` threads, and give that number."""
    threads = choose_threads(n)
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    return threads


# -- the plan ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How a network is computed on this machine. The same plan, seed and data give the same result."""

    device: str = "cpu"
    """"cuda", "cuda:1", "mps" or "cpu"."""
    dtype: str = "float32"
    """"float32", or the type that autocast computes in: "bfloat16", "float16"."""
    channels_last: bool = False
    """Whether images and weights lie in memory with their channels innermost."""
    threads: int = 1
    """CPU threads; another number rounds differently."""
    resident: bool = True
    """Whether all pixels lie on the device, else they are fetched batch by batch."""
    reason: str = "by default"
    """Why this plan, for the reader of a run folder."""
    measured: dict[str, float] = field(default_factory=dict, hash=False)
    """Images a second, forward and backward, of each variant that was tried."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; {near(self.dtype, DTYPES)}")
        check_at_least("threads", self.threads, 1)

    @property
    def torch_device(self) -> torch.device:
        """The device for torch."""
        return torch.device(self.device)

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory order for torch."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[Any]:
        """The context to run forward passes in."""
        dtype = DTYPES[self.dtype]
        return torch.autocast(self.torch_device.type, dtype, enabled=dtype is not torch.float32)

    def to_json(self) -> str:
        """The plan as one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def recorded(cls, record: Mapping[str, Any], device: str | None) -> Plan | None:
        """The plan that a run began with, by its record; None where it has none that can be gone on with.

        That is so where this machine lacks its device, or where another one, `device`, is asked for.
        """
        plan = cls(**record["plan"]) if "plan" in record else None
        usable = plan is not None and plan.device in available_devices() and device in (None, "auto", plan.device)
        return plan if usable else None

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote.

        Raises InputError where the text holds no plan.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise InputError(f"this is no plan of a device: {error}.") from error


def fits(n_bytes: int, device: torch.device) -> bool:
    """Whether pixels of that size may lie on the device for good: they take at most half of its free memory."""
    if device.type == "cuda":
        return n_bytes <= _ROOM * torch.cuda.mem_get_info(device)[0]
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return n_bytes <= _ROOM * free
    return n_bytes <= 2 << 30


def probe(
    model: nn.Module, images: Tensor, *, device: torch.device, threads: int, seconds: float = _PROBE_SECONDS
) -> Plan:
    """Try autocast × channels_last on the real network and a real batch, and plan with the fastest.

    model: left as it was. images: (b, C, H, W) float on any device. Takes about `seconds`; on a slow device a part
    of the batch is tried. A variant that fails or gives no finite number is passed over; float32 in the
    usual order stands unless another is at least a tenth faster.
    """
    low = {"cuda": ("bfloat16", "float16"), "mps": ("bfloat16",), "cpu": ("bfloat16",)}.get(device.type, ())
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        low = ("float16",)
    plain = Plan(device=str(device), threads=threads)
    variants = {
        dtype + (" channels_last" if last else ""): replace(plain, dtype=dtype, channels_last=last)
        for dtype in ("float32", *low)
        for last in (False, True)
    }
    deadline = time.perf_counter() + seconds
    with seeded(0, device):
        networks = {name: copy.deepcopy(model).to(device) for name in variants}
        first = next(iter(variants))
        n = _batch_for(networks[first], plain, images, seconds / (4 * len(variants)))
        best = dict.fromkeys(variants, math.inf)
        batch = images[:n]
        for turn in range(6):
            for name, plan in variants.items():
                if best[name] == -math.inf or (turn > 1 and time.perf_counter() > deadline):
                    continue
                took = _step_seconds(networks[name], plan, batch)
                if took is None:
                    best[name] = -math.inf
                elif turn:  # the first is for warming up
                    best[name] = min(best[name], took)
    measured = {name: round(n / took, 1) for name, took in best.items() if 0 < took < math.inf}
    if first not in measured:
        return replace(plain, reason="no variant could be measured")
    fastest = max(measured, key=lambda name: measured[name])
    gain = measured[fastest] / measured[first]
    if gain < _WORTH_IT:
        return replace(plain, measured=measured, reason=f"float32 is as fast as any on {device}")
    reason = f"{fastest} is {gain:.1f} times as fast as float32 on {device}"
    return replace(variants[fastest], measured=measured, reason=reason)


def best_threads(model: nn.Module, images: Tensor, most: int) -> int:
    """As many CPU threads as are fastest now: `most`, half of them, or one.

    On a machine that is busy with other programs, threads that wait for each other take several times as long as
    one thread alone. model: left as it was. images: (b, C, H, W) float. Takes about a second.
    """
    numbers = sorted({most, max(1, most // 2), 1}, reverse=True)
    if len(numbers) == 1:
        return most
    took: dict[int, list[float]] = {number: [] for number in numbers}
    plain = Plan()
    with seeded(0, plain.torch_device):
        network = copy.deepcopy(model)
        n = _batch_for(network, plain, images, _PROBE_SECONDS / (2 * _TURNS * len(numbers)))
        for turn in range(_TURNS):
            for number in numbers:
                set_threads(number)
                seconds = _step_seconds(network, plain, images[:n])
                if turn and seconds is not None:  # the first is for warming up
                    took[number].append(seconds)
    # the median: being held up now and then is what too many threads suffer from
    medians = {number: statistics.median(seconds) for number, seconds in took.items() if seconds}
    best = min(medians, key=lambda number: medians[number], default=most)
    return best if best in medians and _WORTH_IT * medians[best] < medians.get(most, math.inf) else most


def _batch_for(model: nn.Module, plan: Plan, images: Tensor, seconds: float) -> int:
    """How many of the images make a step of about that time: doubling from 4."""
    n = min(4, len(images))
    _step_seconds(model, plan, images[:n])
    while n < len(images):
        took = _step_seconds(model, plan, images[:n])
        if took is None or 2 * took > seconds:
            break
        n = min(2 * n, len(images))
    return n


def _step_seconds(model: nn.Module, plan: Plan, images: Tensor) -> float | None:
    """Time of one forward and backward pass; None where the variant does not work."""
    device = plan.torch_device
    try:
        model.to(memory_format=plan.memory_format).train()
        images = images.to(device, memory_format=plan.memory_format)
        _wait_for(device)
        start = time.perf_counter()
        with plan.autocast():
            out = model(images)
        loss = out.float().square().mean()
        loss.backward()
        _wait_for(device)
        took = time.perf_counter() - start
    except (RuntimeError, NotImplementedError, TypeError):
        return None
    finally:
        model.zero_grad(set_to_none=True)
    return took if bool(loss.detach().isfinite()) else None


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's own random numbers (dropout, initialisation) start from `seed`, and afterwards go on as before."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
