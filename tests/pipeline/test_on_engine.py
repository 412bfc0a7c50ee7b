"""What the process of a command computes itself, beside a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvcoteach.training.compute_plan
import cvcoteach.training.devices
from cvcoteach._validation import InputError
from cvcoteach.coteaching.selection import Selection
from cvcoteach.coteaching.training import CoTeachingTask
from cvcoteach.pipeline.classifier import plan_of
from cvcoteach.pipeline.on_engine import here
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.inputs import FeatureInputs
from cvcoteach.training.recipe import Recipe


class Cluster:
    """A cluster whose other nodes have GPUs, or not."""

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus
        self.notes: list[str] = []
        self.note = self.notes.append
        self.released = 0

    def share(self, device: str | None, threads: int | None) -> None:
        if device == "cuda" and not self._gpus:
            raise InputError("no node of the Ray cluster has a GPU.")

    def release(self) -> None:
        self.released += 1


@pytest.fixture(autouse=True)
def _no_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cvcoteach.training.devices, cvcoteach.training.compute_plan):
        monkeypatch.setattr(module, "available_devices", lambda: ("cpu",))


def machine(gpus: int, device: str | None) -> tuple[Machine, Any]:
    cluster: Any = Cluster(gpus)
    return Machine(device=device, threads=1, precision="float32", engine="ray", cluster=cluster), cluster


def test_a_classifier_is_trained_on_this_machine_s_device_where_only_the_cluster_has_a_gpu(tmp_path: Path) -> None:
    labels = np.arange(12) % 2
    selection = Selection.of_everything(labels, 0.0)
    inputs = FeatureInputs(np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32))
    task = CoTeachingTask(inputs, selection, 2, Recipe(), selection.curriculum(2, 10), 0)
    asked, cluster = machine(8, "cuda")
    with RunFolder.open(tmp_path / "classifier", {}) as folder:
        plan = plan_of(folder, task, asked)
    assert plan.device == "cpu"
    assert ["has no cuda" in note for note in cluster.notes] == [True]
    with RunFolder.open(tmp_path / "classifier", {}) as folder:
        folder.save(plan={**folder.record["plan"], "reason": "recorded"})
        assert plan_of(folder, task, asked).reason == "recorded"


@pytest.mark.parametrize("device", [None, "cpu", "cuda"])
def test_workers_end_before_this_process_computes(device: str | None) -> None:
    asked, cluster = machine(8, device)
    assert here(asked).device in (device, "cpu")
    assert cluster.released == 1


def test_a_device_that_nobody_has_is_a_sentence() -> None:
    with pytest.raises(InputError, match="no node of the Ray cluster has a GPU"):
        here(machine(0, "cuda")[0])
