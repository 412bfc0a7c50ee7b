"""Plan how to compute on this machine: precision, memory order and threads, decided by a short probe."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from cvcoteach._validation import InputError, check_at_least, near
from cvcoteach.training.devices import available_devices, seeded, set_threads

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# a lower precision or another memory order must pay for changing the numbers
_WORTH_IT = 1.1
_TURNS = 6
_PROBE_SECONDS = 3.0


@dataclass(frozen=True)
class ComputePlan:
    """How a network is computed on this machine. The same plan, seed and data give the same result."""

    device: str = "cpu"
    """"cuda", "cuda:1", "mps" or "cpu"."""
    dtype: str = "float32"
    """"float32", or the type that autocast computes in: "bfloat16", "float16"."""
    channels_last: bool = False
    """Whether images and weights lie in memory with their channels innermost."""
    threads: int = 1
    """CPU threads, at least 1; another number rounds differently."""
    resident: bool = True
    """Whether all inputs lie on the device; otherwise they are fetched batch by batch."""
    reason: str = "by default"
    """Why this plan, for readers of run.json."""
    measured: dict[str, float] = field(default_factory=dict, hash=False)
    """Images per second, of each variant that was tried."""
    captured: bool = False
    """Whether the steps of a training are captured once and replayed, as CUDA graphs."""
    side_by_side: int = 1
    """Networks trained at the same time, at least 1; more than one where steps are captured."""
    deterministic: bool = False
    """Whether convolutions are computed only by algorithms of cuDNN that repeat to the bit; a CPU repeats anyway."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; {near(self.dtype, DTYPES)}")
        check_at_least("threads", self.threads, 1)
        check_at_least("side_by_side", self.side_by_side, 1)

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.device)

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory order as torch names it."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context to run forward passes in."""
        dtype = DTYPES[self.dtype]
        return torch.autocast(self.torch_device.type, dtype, enabled=dtype is not torch.float32)

    def placed(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in the plan's memory order, and return it."""
        network.to(self.torch_device)
        return network.to(memory_format=self.memory_format)

    @classmethod
    def recorded(
        cls, record: Mapping[str, Any], device: str | None, devices: Collection[str] | None = None
    ) -> Self | None:
        """Return the plan in a run's record, if the run can continue with it.

        Args:
            record: The content of run.json.
            device: The device asked for; None or "auto" accepts the recorded one.
            devices: Those that there are; None: of this machine.

        Returns:
            The plan; None where none is recorded, its device is not there, or another device is asked for.

        Raises:
            InputError: The recorded plan is damaged.
        """
        if "plan" not in record:
            return None
        try:
            plan = cls(**record["plan"])
        except TypeError as error:
            raise InputError(f'run.json holds a damaged compute plan ({error}); delete its entry "plan".') from error
        usable = plan.device in (available_devices() if devices is None else devices) and device in (
            None,
            "auto",
            plan.device,
        )
        return plan if usable else None


def probe(
    model: nn.Module, images: Tensor, *, device: torch.device, threads: int, seconds: float = _PROBE_SECONDS
) -> ComputePlan:
    """Time each precision and memory order on the real network and a real batch, and return the fastest as a plan.

    A variant that fails or gives a non-finite loss is skipped. Float32 in the usual memory order is kept unless
    another variant is at least 10 % faster.

    Args:
        model: The network; not modified.
        images: (b, C, H, W) float, on any device. On a slow device only a part of the batch is used.
        device: Where to compute.
        threads: CPU threads of the plan.
        seconds: Approximate duration of the probe.
    """
    low = {"cuda": ("bfloat16", "float16"), "mps": ("bfloat16",), "cpu": ("bfloat16",)}.get(device.type, ())
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        low = ("float16",)
    plain = ComputePlan(device=str(device), threads=threads)
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
                elif turn:  # the first turn warms up
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
    """Return the fastest number of CPU threads at the moment: `most`, half of them, or one.

    On a machine that is busy with other programs, threads that wait for each other take several times as long as a
    single thread. The measurement takes about a second.

    Args:
        model: The network; not modified.
        images: (b, C, H, W) float.
        most: The largest number to try, at least 1.
    """
    numbers = sorted({most, max(1, most // 2), 1}, reverse=True)
    if len(numbers) == 1:
        return most
    took: dict[int, list[float]] = {number: [] for number in numbers}
    plain = ComputePlan()
    with seeded(0, plain.torch_device):
        network = copy.deepcopy(model)
        n = _batch_for(network, plain, images, _PROBE_SECONDS / (2 * _TURNS * len(numbers)))
        for turn in range(_TURNS):
            for number in numbers:
                set_threads(number)
                seconds = _step_seconds(network, plain, images[:n])
                if turn and seconds is not None:  # the first turn warms up
                    took[number].append(seconds)
    # the median, since occasional stalls are what too many threads suffer from
    medians = {number: statistics.median(seconds) for number, seconds in took.items() if seconds}
    best = min(medians, key=lambda number: medians[number], default=most)
    return best if best in medians and _WORTH_IT * medians[best] < medians.get(most, math.inf) else most


def _batch_for(model: nn.Module, plan: ComputePlan, images: Tensor, seconds: float) -> int:
    """Return how many of the images make a step of about that time, doubling from 4."""
    n = min(4, len(images))
    _step_seconds(model, plan, images[:n])
    while n < len(images):
        took = _step_seconds(model, plan, images[:n])
        if took is None or 2 * took > seconds:
            break
        n = min(2 * n, len(images))
    return n


def _step_seconds(model: nn.Module, plan: ComputePlan, images: Tensor) -> float | None:
    """Return the time of one forward and backward pass; None where the variant does not work."""
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
