"""What a Ray cluster lacks is said in a sentence, at once."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.engines.cluster import Node, RayCluster, Share
from cvcoteach.pipeline.settings import Machine


@pytest.mark.parametrize(
    ("device", "threads", "sentence"),
    [
        ("cuda", None, "no node of the Ray cluster has a GPU .*waits for ever; take --device cpu"),
        ("cuda:1", None, "it is cuda or cpu: Ray says which GPU a task gets"),
        ("mps", None, "it is cuda or cpu"),
        ("cpu", 64, "a task with 64 threads fits no node .* has 2 CPUs; take --threads 2"),
    ],
)
def test_a_task_that_would_wait_for_ever_is_refused(device: str, threads: int | None, sentence: str) -> None:
    began = time.monotonic()
    with RayCluster(threads=threads) as cluster, pytest.raises(InputError, match=sentence):
        cluster.share(device)
    assert time.monotonic() - began < 5


def test_without_gpus_tasks_run_on_cpus_with_as_many_threads_as_asked() -> None:
    with RayCluster(threads=1) as cluster:
        assert cluster.share(None) == cluster.share("cpu") == Share("cpu", 1, 0.0)
        assert cluster.devices() == ("cpu",)
        assert cluster.room(Share("cpu", 1, 0)) == 2


@pytest.mark.parametrize(
    ("cpus", "gpus", "share", "n"),
    [
        (32, 8, Share("cuda", 4, 1.0), 8),
        (32, 8, Share("cuda", 2, 0.25), 16),
        (32, 8, Share("cuda", 1, 0.25), 32),
        (32, 8, Share("cuda", 8, 1.0), 4),
        (32, 0, Share("cuda", 1, 1.0), 0),
        (3, 0, Share("cpu", 2, 0.0), 1),
    ],
)
def test_a_node_holds_as_many_tasks_as_its_cpus_and_gpus_allow(cpus: float, gpus: float, share: Share, n: int) -> None:
    assert Node("id", "host", cpus, gpus, 1e9).holds(share) == n


def test_an_array_larger_than_the_object_store_is_refused_before_it_is_copied() -> None:
    large = np.zeros(150 * 2**20, np.uint8)
    with (
        RayCluster() as cluster,
        pytest.raises(InputError, match=r"0.2 GB of uint8 .* has 0.1 GB; put them on storage"),
    ):
        cluster.placed(large)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(InputError, match=r"needs the package ray; pip install 'cvcoteach\[ray\]'"):
        RayCluster()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9"),
        ("somewhere", "it takes host:port"),
        ("ray://head:10001", "run the command on a node of the cluster"),
    ],
)
def test_an_address_where_nobody_answers_is_a_sentence(
    address: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InputError, match=sentence):
        RayCluster(address)


@pytest.mark.parametrize("gpus", [0.0, -1.0, float("nan"), 1.5])
def test_a_share_of_gpus_that_ray_cannot_give_is_refused(gpus: float) -> None:
    with pytest.raises(InputError, match="task_gpus is"):
        RayCluster(task_gpus=gpus)


@pytest.mark.parametrize(
    "given", [{"engine": "dask"}, {"ray_address": "auto"}, {"task_gpus": 0.5}, {"workers_per_fold": 2}]
)
def test_a_machine_refuses_engines_that_do_not_exist_and_options_without_their_engine(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="engine"):
        Machine(**given)
