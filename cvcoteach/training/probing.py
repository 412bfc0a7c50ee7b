"""Measure captured steps: which precision, and how many networks at the same time."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from cvcoteach._validation import InputError, IntArray
from cvcoteach.training.batches import BatchSource
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import repeatable, seeded
from cvcoteach.training.engine.graphs import memory_freed
from cvcoteach.training.loop import Training, launch_in_turn
from cvcoteach.training.recipe import Recipe

_WORTH_IT = 1.1  # as in `compute_plan`
_COSTS_NOTHING = 0.95
_COUNTS = (2, 5)  # a round has five folds
_STEPS, _TURNS = 16, 2
_SECONDS = 8.0


def probe_captured(
    network: nn.Module,
    source_of: Callable[[ComputePlan], BatchSource],
    recipe: Recipe,
    plain: ComputePlan,
    *,
    n_classes: int,
    precision: str | None = None,
    seconds: float = _SECONDS,
) -> ComputePlan | None:
    """Time the steps of real trainings, captured and one by one, and return the fastest way as a plan.

    Float32 is kept unless another precision is at least 10 % faster, and so is each smaller number of networks at the
    same time. Algorithms that repeat to the bit are taken where they cost less than 5 %.

    Args:
        network: On the CPU; not modified.
        source_of: Plan -> at least a batch of inputs on its device.
        recipe: How the network is trained; with its own batch size.
        plain: The device, its threads, and whether only algorithms that repeat to the bit are tried.
        n_classes: K.
        precision: The only one to try; None: float32 and bfloat16.
        seconds: After so long, nothing more is tried.

    Returns:
        The plan; None where steps cannot be captured, or that gains less than 10 %.
    """
    deadline = time.perf_counter() + seconds
    measured: dict[str, float] = {}
    random = False

    def tried(plan: ComputePlan, count: int = 1) -> float:
        nonlocal random
        speed, draws = _speed(network, source_of(plan), recipe, n_classes, count, deadline)
        random |= draws
        memory_freed(plan.torch_device)
        if speed:
            measured[_name(plan) + (f" × {count}" if count > 1 else "")] = round(speed, 1)
        return speed

    eager = tried(plain)
    captured = replace(plain, captured=True)
    variants = [
        replace(captured, dtype=dtype, channels_last=last)
        for dtype, last in (("float32", False), ("float32", True), ("bfloat16", True))
        if precision in (None, dtype) and (dtype == "float32" or _has_bfloat16(plain.torch_device))
    ]
    best, speed = captured, 0.0
    for variant in variants:
        found = tried(variant)
        if found > speed * (_WORTH_IT if speed else 1):
            best, speed = variant, found
    if not speed or (precision is None and speed < _WORTH_IT * eager):
        return None
    exact = replace(best, deterministic=True)
    if not plain.deterministic and tried(exact) >= _COSTS_NOTHING * speed:
        best = exact
    for count in () if random else _COUNTS:
        together = tried(best, count) if time.perf_counter() < deadline else 0.0
        if together < _WORTH_IT * speed:
            break
        best, speed = replace(best, side_by_side=count), together
    times = f", {speed / eager:.1f} times as fast as float32 in steps one by one" if eager else ""
    count = best.side_by_side
    how = f"{count} networks at the same time" if count > 1 else "one network at a time"
    return replace(best, measured=measured, reason=f"captured steps in {best.dtype}, {how}{times} on {plain.device}")


def _name(plan: ComputePlan) -> str:
    parts = [plan.dtype, "channels_last" * plan.channels_last, "captured" * plan.captured]
    return " ".join(filter(None, [*parts, "deterministic" * plan.deterministic]))


def _has_bfloat16(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def _speed(
    network: nn.Module, source: BatchSource, recipe: Recipe, n_classes: int, count: int, deadline: float
) -> tuple[float, bool]:
    """Return images a second of so many trainings together, 0 where they fail, and whether they draw numbers."""
    plan, n = source.plan, min(recipe.batch_size, len(source))
    rows = np.arange(n)
    batches = [rows] * _STEPS

    def order(epoch: int, rng: np.random.Generator) -> list[IntArray]:
        return batches

    # a rate at which nothing can diverge
    recipe = replace(recipe, epochs=_TURNS, learning_rate=1e-6, schedule="constant", patience=None)
    refused: list[str] = []
    took = float("inf")
    try:
        with seeded(0, plan.torch_device), repeatable(plan.deterministic):
            trainings = [
                Training(
                    [plan.placed(copy.deepcopy(network))],
                    source,
                    rows,
                    rows % n_classes,
                    recipe,
                    seed=i,
                    order=order,
                    note=refused.append,
                )
                for i in range(count)
            ]
            for turn in range(_TURNS):
                if turn and time.perf_counter() > deadline:
                    break
                if not plan.captured:
                    took = min(took, n * _STEPS / trainings[0].run_epoch().images_per_second)
                    continue
                ready = [training.begin() for training in trainings]
                if not all(ready):
                    return 0.0, False
                began = time.perf_counter()
                launch_in_turn(trainings)
                for training in trainings:
                    training.finish(began)
                took = min(took, time.perf_counter() - began)
            draws = any(training.is_random for training in trainings)
    except (RuntimeError, NotImplementedError, TypeError, InputError):  # out of memory, or what this device lacks
        return 0.0, False
    return n * _STEPS * count / took, draws
