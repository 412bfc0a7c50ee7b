"""The choice of device and threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from cvcoteach._validation import InputError
from cvcoteach.training import devices
from cvcoteach.training.devices import choose_device, choose_threads, cpu_quota

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
    before = torch.get_num_threads()
    try:
        assert devices.set_threads(1) == 1
        assert torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    finally:
        devices.set_threads(before)


def test_pixels_that_do_not_fit_are_not_resident() -> None:
    assert devices.fits(1000, CPU)
    assert not devices.fits(1 << 50, CPU)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_memory_that_ran_out_is_recognised_by_type_or_words(error: RuntimeError) -> None:
    assert devices.out_of_memory(error)
    later = RuntimeError("capture was invalidated")
    later.__context__ = error
    assert devices.out_of_memory(later), "what follows from it"


def test_other_errors_are_not_taken_for_memory_that_ran_out() -> None:
    assert not devices.out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not devices.out_of_memory(InputError("photos/out of memory.png is damaged."))


def test_seeded_numbers_repeat_and_leave_torchs_random_state_alone() -> None:
    before = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        with devices.seeded(seed, CPU):
            drawn.append(torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_algorithms_for_convolutions_that_repeat_are_taken_while_they_are_wanted() -> None:
    before = torch.backends.cudnn.deterministic
    with devices.repeatable(True), devices.repeatable(False):
        assert torch.backends.cudnn.deterministic, "an outer wish holds"
    assert torch.backends.cudnn.deterministic == before
    with pytest.raises(KeyError), devices.repeatable(True):
        raise KeyError
    assert torch.backends.cudnn.deterministic == before
    with devices.repeatable(False):
        assert torch.backends.cudnn.deterministic == before
