"""The probe of captured steps, rehearsed on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cvcoteach.training import probing
from cvcoteach.training.batches import DeviceImages, ImageBatches
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.engine.epochs import CapturedEpochs
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.probing import probe_captured
from cvcoteach.training.recipe import Recipe

PLAIN = ComputePlan()
RECIPE = Recipe(batch_size=8, least_batches=0)


class Small(nn.Module):
    """Linear, behind something."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first, self.linear = first, nn.Linear(48, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(self.first(images).flatten(1))
        return out


class Looking(nn.Module):
    """Looks at its input."""

    def forward(self, images: Tensor) -> Tensor:
        return images * float(images.std())


def source_of(plan: ComputePlan) -> ImageBatches:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    return ImageBatches(DeviceImages(pixels, plan), Scaling((0.5,) * 3, (0.25,) * 3))


def speeds(monkeypatch: pytest.MonkeyPatch, found: dict[str, float]) -> None:
    """Let the measurement find these, by name."""

    def speed(network, source, recipe, n_classes, count, deadline):
        name = probing._name(source.plan) + (f" × {count}" if count > 1 else "")
        return found.get(name, 0.0), False

    monkeypatch.setattr(probing, "_speed", speed)


def test_it_measures_real_trainings() -> None:
    network = Small(nn.Identity())
    before = [p.clone() for p in network.parameters()]
    steps = probing._speed(network, source_of(ComputePlan(captured=True)), RECIPE, 3, 3, float("inf"))
    assert steps[0] > 0
    assert not steps[1]
    assert probing._speed(Small(nn.Dropout()), source_of(ComputePlan(captured=True)), RECIPE, 3, 1, float("inf"))[1]
    assert probing._speed(Small(Looking()), source_of(ComputePlan(captured=True)), RECIPE, 3, 1, float("inf"))[0] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    # rehearsed captures are never faster
    assert probe_captured(network, source_of, RECIPE, PLAIN, n_classes=3) is None


def test_where_a_launch_fails_it_waits_for_what_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: CapturedEpochs) -> Iterator[None]:
        yield
        raise RuntimeError("CUDA error: unspecified launch failure")

    waits: list[int] = []
    monkeypatch.setattr(CapturedEpochs, "launch", broken)
    monkeypatch.setattr(CapturedEpochs, "wait", lambda self: waits.append(id(self)))
    plan = ComputePlan(captured=True)
    assert probing._speed(Small(nn.Identity()), source_of(plan), RECIPE, 3, 3, float("inf")) == (0.0, False)
    assert len(set(waits)) == 3


def test_the_fastest_is_the_plan_and_all_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    best = "bfloat16 channels_last captured"
    found = {
        "float32": 100.0,
        "float32 captured": 300.0,
        "float32 channels_last captured": 310.0,
        best: 400.0,
        f"{best} deterministic": 390.0,
        f"{best} deterministic × 2": 600.0,
        f"{best} deterministic × 5": 900.0,
    }
    speeds(monkeypatch, found)
    plan = probe_captured(Small(nn.Identity()), source_of, RECIPE, PLAIN, n_classes=3)
    assert plan is not None
    assert (plan.dtype, plan.channels_last, plan.captured) == ("bfloat16", True, True)
    assert (plan.deterministic, plan.side_by_side) == (True, 5)
    assert plan.measured == found
    assert plan.reason == (
        "captured steps in bfloat16, 5 networks at the same time, 9.0 times as fast as float32 in steps one by one on "
        "cpu"
    )


def test_what_costs_over_five_percent_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"float32": 100.0, "float32 captured": 300.0, "float32 captured deterministic": 280.0}
    speeds(monkeypatch, found)
    plan = probe_captured(Small(nn.Identity()), source_of, RECIPE, PLAIN, n_classes=3)
    assert plan is not None
    assert (plan.dtype, plan.deterministic, plan.side_by_side) == ("float32", False, 1)


def test_what_repeats_is_all_that_is_tried_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"float32 captured": 999.0, "float32 deterministic": 100.0, "float32 captured deterministic": 150.0}
    speeds(monkeypatch, found)
    plain = replace(PLAIN, deterministic=True)
    plan = probe_captured(Small(nn.Identity()), source_of, RECIPE, plain, n_classes=3)
    assert plan is not None
    assert plan.deterministic
    assert set(plan.measured) == {"float32 deterministic", "float32 captured deterministic"}


def test_a_precision_that_is_asked_for_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"float32": 100.0, "float32 captured": 50.0, "bfloat16 channels_last captured": 300.0}
    speeds(monkeypatch, found)
    plan = probe_captured(Small(nn.Identity()), source_of, RECIPE, PLAIN, n_classes=3, precision="float32")
    assert plan is not None
    assert plan.dtype == "float32"
    assert probe_captured(Small(nn.Identity()), source_of, RECIPE, PLAIN, n_classes=3, precision="float16") is None


def test_where_capturing_gains_little_there_is_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, {"float32": 100.0, "float32 captured": 105.0})
    assert probe_captured(Small(nn.Identity()), source_of, RECIPE, PLAIN, n_classes=3) is None
