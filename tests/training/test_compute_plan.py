"""The plan of precision, memory order and threads, and the probe that decides it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

from cvcoteach._validation import InputError
from cvcoteach.pipeline.settings import PRECISIONS
from cvcoteach.training.compute_plan import DTYPES, ComputePlan, best_threads, probe
from cvcoteach.training.devices import set_threads

CPU = torch.device("cpu")


def test_a_recorded_plan_is_used_again_if_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    record = {"plan": asdict(ComputePlan(dtype="bfloat16", threads=3, reason="a probe"))}
    assert ComputePlan.recorded({}, None) is None
    assert ComputePlan.recorded(record, None) == ComputePlan.recorded(record, "cpu") == ComputePlan(**record["plan"])
    assert ComputePlan.recorded(record, "cuda") is None, "another device is asked for"
    record["plan"]["device"] = "cuda"
    assert ComputePlan.recorded(record, None) is None, "this machine has none"


def test_a_plan_survives_json() -> None:
    plan = ComputePlan("cpu", "bfloat16", True, 2, False, "because", {"float32": 12.5})
    assert ComputePlan.recorded(json.loads(json.dumps({"plan": asdict(plan)})), None) == plan


@pytest.mark.parametrize("content", ["float32", [1], {"dtype": "float8"}, {"colour": 1}, {"threads": 0}])
def test_a_damaged_plan_is_refused(content: object) -> None:
    with pytest.raises(InputError, match=r"damaged|dtype is 'float8'|threads is 0"):
        ComputePlan.recorded({"plan": content}, None)


class SlowIn(nn.Module):
    """Takes a millisecond an image in every type but one; forward passes are counted."""

    def __init__(self, fast: torch.dtype, broken: torch.dtype | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 2)
        self.fast, self.broken = fast, broken

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(images.flatten(1))
        if out.dtype == self.broken:
            raise RuntimeError("not implemented for this type")
        time.sleep(0.002 if out.dtype == self.fast else 0.02)
        return out


def test_the_probe_takes_the_fastest_type_and_records_all() -> None:
    plan = probe(SlowIn(torch.bfloat16), torch.rand(4, 3, 8, 8), device=CPU, threads=1, seconds=0.1)
    assert plan.dtype == "bfloat16"
    assert set(plan.measured) == {"float32", "float32 channels_last", "bfloat16", "bfloat16 channels_last"}
    assert plan.measured["bfloat16"] > 3 * plan.measured["float32"]
    assert "times as fast as float32" in plan.reason


def test_float32_stays_where_bfloat16_is_slower_or_fails() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert probe(SlowIn(torch.float32), images, device=CPU, threads=1, seconds=0.1).dtype == "float32"
    plan = probe(SlowIn(torch.bfloat16, broken=torch.bfloat16), images, device=CPU, threads=1, seconds=0.1)
    assert plan.dtype == "float32"
    assert "bfloat16" not in plan.measured


def test_the_probe_leaves_the_network_and_the_random_numbers_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 36, 2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    probe(model, torch.rand(4, 3, 8, 8, generator=torch.Generator()), device=CPU, threads=1, seconds=0.05)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_slow_network_is_probed_on_a_part_of_the_batch() -> None:
    class Slow(nn.Module):
        """Ten milliseconds an image."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            time.sleep(0.01 * len(images))
            return self.linear(images.mean((2, 3)))

    start = time.perf_counter()
    probe(Slow(), torch.rand(256, 3, 4, 4), device=CPU, threads=1, seconds=0.3)
    assert time.perf_counter() - start < 2.5  # the whole batch would take 2.56 s a step


def test_threads_are_as_many_as_are_fastest_now() -> None:
    class Hindered(nn.Module):
        """Slower with two threads than with one, as on a busy machine; or the other way round."""

        def __init__(self, slow: int) -> None:
            super().__init__()
            self.slow, self.layer = slow, nn.Linear(12, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02 if torch.get_num_threads() == self.slow else 0.002)
            return self.layer(images.flatten(1))

    images = torch.rand(8, 3, 2, 2)
    assert best_threads(Hindered(slow=2), images, 2) == 1
    assert best_threads(Hindered(slow=1), images, 2) == 2
    assert best_threads(Hindered(slow=1), images, 1) == 1
    set_threads(1)


def test_settings_know_the_precisions_without_torch() -> None:
    assert tuple(DTYPES) == PRECISIONS
