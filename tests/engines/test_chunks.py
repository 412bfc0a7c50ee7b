"""Decoding and features on a real Ray: what this process would make, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cvcoteach.data.images
import cvcoteach.engines.chunks
from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images
from cvcoteach.data.sources import read_source
from cvcoteach.engines.chunks import RayTasks, features_on
from cvcoteach.engines.cluster import RayCluster
from cvcoteach.engines.extracting import ExtractingWorker
from cvcoteach.training.backbones import load_backbone
from cvcoteach.training.extraction import extract_features
from tests.engines.tasks import marked, square
from tests.images import class_folders, dataset


@pytest.fixture
def cluster() -> Any:
    with RayCluster(threads=1) as cluster:
        yield cluster


def test_tasks_of_killed_workers_are_done_again(cluster: RayCluster, tmp_path: Path) -> None:
    tasks = [(str(tmp_path), number, int(number == 3)) for number in range(8)]
    assert sorted(RayTasks(cluster)(square, tasks, 2)) == [number**2 for number in range(8)]


def test_a_task_that_kills_every_worker_is_a_sentence(cluster: RayCluster, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lost 4 times"):
        list(RayTasks(cluster)(square, [(str(tmp_path), 1, 9)], 2))


def test_no_task_is_at_work_once_the_results_are_left(cluster: RayCluster, tmp_path: Path) -> None:
    results = RayTasks(cluster)(marked, [(str(tmp_path / str(number)), number) for number in range(6)], 2)
    next(results)
    results.close()
    there = sorted(tmp_path.iterdir())
    assert len(there) < 6
    time.sleep(0.5)
    assert sorted(tmp_path.iterdir()) == there


def test_images_decoded_on_the_cluster_are_those_decoded_here(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cvcoteach.data.images, "_WORTH_WORKERS", 0.0)
    monkeypatch.setattr(cvcoteach.data.images, "_CHUNK_SECONDS", 1e-3)
    class_folders(tmp_path / "shapes", n=40)
    (tmp_path / "shapes" / "bar" / "broken.png").write_bytes(b"no image")
    source = read_source(tmp_path / "shapes")
    here = load_images(source, 8, cache_dir=tmp_path / "here")
    asked: list[int] = []

    def in_tasks(function: Any, tasks: Any, workers: int) -> Any:
        asked.append(workers)
        return RayTasks(cluster)(function, tasks, workers)

    there = load_images(source, 8, cache_dir=tmp_path / "there", in_tasks=in_tasks, workers=2)
    assert 2 in asked
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert there.errors == here.errors
    assert there.content_key == here.content_key


def test_features_computed_on_the_cluster_are_those_computed_here(cluster: RayCluster, tmp_path: Path) -> None:
    pixels = np.repeat(dataset(600, 0.0)[0][..., None], 3, axis=3)
    backbone = load_backbone("tests.backbones:colours", trusted=("tests.backbones:colours",))
    here = extract_features(backbone, pixels, "key", device="cpu", threads=1, cache_dir=tmp_path / "here")
    parts = []
    there = extract_features(
        backbone,
        pixels,
        "key",
        cache_dir=tmp_path / "there",
        elsewhere=features_on(cluster, backbone, pixels, "cpu"),
        progress=lambda done, total, speed: parts.append(done),
    )
    np.testing.assert_array_equal(there, here)
    assert len(parts) > 1
    assert parts == sorted(parts)


def test_a_worker_that_is_lost_before_it_computes_is_replaced(
    cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"

    class KilledWhenAsked(ExtractingWorker):
        def ready(self) -> int:
            if self._extractor is not None and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().ready()

    monkeypatch.setattr(cvcoteach.engines.chunks, "ExtractingWorker", KilledWhenAsked)
    pixels = np.repeat(dataset(80, 0.0)[0][..., None], 3, axis=3)
    backbone = load_backbone("tests.backbones:colours", trusted=("tests.backbones:colours",))
    computed = features_on(cluster, backbone, pixels, "cpu")
    assert len(np.concatenate(list(computed([range(80)])))) == 80
    assert mark.exists()


def test_no_worker_holds_anything_once_all_features_are_there(cluster: RayCluster) -> None:
    pixels = np.repeat(dataset(80, 0.0)[0][..., None], 3, axis=3)
    backbone = load_backbone("tests.backbones:colours", trusted=("tests.backbones:colours",))
    computed = features_on(cluster, backbone, pixels, "cpu")
    parts = computed([range(1), range(1, 80)])
    next(parts)
    assert cluster.ray.available_resources()["CPU"] == 1, "the next images find the same worker"
    list(parts)
    until = time.monotonic() + 20
    while cluster.ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < until, "a worker is left"
        time.sleep(0.1)


@pytest.mark.slow
def test_an_exported_backbone_travels_as_its_file(cluster: RayCluster, tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.AdaptiveAvgPool2d(2)), tmp_path / "net.ts")  # type: ignore[no-untyped-call]
    backbone = load_backbone(str(tmp_path / "net.ts"), size=12, trusted=(str(tmp_path / "net.ts"),))
    pixels = np.repeat(dataset(80, 0.0)[0][..., None], 3, axis=3)
    here = extract_features(backbone, pixels, "key", device="cpu", threads=1, cache_dir=tmp_path / "here")
    computed = features_on(cluster, backbone, pixels, "cpu")
    np.testing.assert_array_equal(np.concatenate(list(computed([range(80)]))), here)
