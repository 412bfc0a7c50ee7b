"""Behaviours of the choice of device, threads and plan."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cvcoteach._validation import InputError
from cvcoteach.training import devices
from cvcoteach.training.devices import (
    Plan,
    best_threads,
    choose_device,
    choose_threads,
    cpu_quota,
    probe,
    set_threads,
)

CPU = torch.device("cpu")


def test_cuda_comes_before_mps_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device().type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device().type == "cuda"
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cudda", "cuda:7", ""])
def test_an_unknown_device_is_refused_by_naming_those_there_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=rf"device is '{name}', which this machine does not have; it has cpu\."):
        choose_device(name)


def test_a_recorded_plan_is_gone_on_with_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    record = {"plan": asdict(Plan(dtype="bfloat16", threads=3, reason="a probe"))}
    assert Plan.recorded({}, None) is None
    assert Plan.recorded(record, None) == Plan.recorded(record, "cpu") == Plan(**record["plan"])
    assert Plan.recorded(record, "cuda") is None, "another device is asked for"
    record["plan"]["device"] = "cuda"
    assert Plan.recorded(record, None) is None, "there is none here"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_no_control_group_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


def test_the_smallest_quota_of_a_v2_group_and_its_parents_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/service/job\n",
            "sys/fs/cgroup/service/job/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/service/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
        },
    )
    assert cpu_quota(root) == 1.5


def test_a_v1_group_is_read_and_minus_one_is_no_limit(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:devices:/\n4:cpu,cpuacct:/job\n0::/\n",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
    }
    assert cpu_quota(write(tmp_path, files)) == 0.5
    files["sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us"] = "-1\n"
    assert cpu_quota(write(tmp_path, files)) is None


def test_a_path_of_the_host_seen_from_a_container_falls_back_to_the_mount(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}
    assert cpu_quota(write(tmp_path, files)) == 2


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("eight_cpus")
def test_threads_are_the_smallest_of_cpus_quota_and_the_users_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose_threads(root=tmp_path) == 8
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}
    assert choose_threads(root=write(tmp_path, files)) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    assert choose_threads(root=tmp_path) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert choose_threads(root=tmp_path) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert choose_threads(root=tmp_path) == 3


@pytest.mark.usefixtures("eight_cpus")
def test_a_given_number_of_threads_is_taken(tmp_path: Path) -> None:
    assert choose_threads(5, root=tmp_path) == 5
    with pytest.raises(InputError, match="threads is 0; it takes 1 or more"):
        choose_threads(0)


def test_torch_and_blas_are_limited_together() -> None:
    from threadpoolctl import threadpool_info

    before = torch.get_num_threads()
    try:
        assert devices.set_threads(1) == 1
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    finally:
        devices.set_threads(before)


def test_a_plan_survives_json() -> None:
    plan = Plan("cpu", "bfloat16", True, 2, False, "because", {"float32": 12.5})
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("text", ["{", "[]", '{"dtype": "float8"}', '{"colour": 1}', '{"threads": 0}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Plan.from_json(text)


class SlowIn(nn.Module):
    """Takes a millisecond an image in every type but one; forward passes are counted."""

    def __init__(self, fast: torch.dtype, broken: torch.dtype | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 2)
        self.fast, self.broken = fast, broken

    def forward(self, images: Tensor) -> Tensor:
        import time

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
            import time

            time.sleep(0.01 * len(images))
            return self.linear(images.mean((2, 3)))

    import time

    start = time.perf_counter()
    probe(Slow(), torch.rand(256, 3, 4, 4), device=CPU, threads=1, seconds=0.3)
    assert time.perf_counter() - start < 2.5  # the whole batch would take 2.56 s a step


def test_pixels_that_do_not_fit_are_not_resident() -> None:
    assert devices.fits(1000, CPU)
    assert not devices.fits(1 << 50, CPU)


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
