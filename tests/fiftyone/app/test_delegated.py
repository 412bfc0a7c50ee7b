"""Delegated runs: FiftyOne's own service in a process of its own, which may be killed."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fiftyone as fo
import psutil
import pytest
from fiftyone.operators.delegated import DelegatedOperationService

from cvcoteach.crossval.trainer import FoldKey
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work.find import WORK_VARIABLE, find_label_issues
from cvcoteach.pipeline.settings import Machine, Settings
from tests.fiftyone.calls import execute
from tests.fiftyone.conftest import NoisyDataset

PARAMS = {"label_field": "ground_truth", "rounds": 2, "epochs": 3, "seed": 1}
LIMIT = 180  # seconds


@contextmanager
def service() -> Iterator[subprocess.Popen[bytes]]:
    """`fiftyone delegated launch`."""
    command = [str(Path(sys.executable).with_name("fiftyone")), "delegated", "launch"]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(what: Any, process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + LIMIT
    while not (found := what()):
        assert process.poll() is None, "the service has ended"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
    return found


@pytest.mark.slow
def test_a_delegated_run_that_is_killed_leaves_the_labels_and_is_resumed(
    tmp_path: Path, trained_folds: list[FoldKey]
) -> None:
    made = NoisyDataset.make(tmp_path, 240, 24)
    dataset = made.dataset
    dataset.persistent = True
    before, schema = made.raw_labels(), set(dataset.get_field_schema())
    queued = execute("find_label_issues", dataset, params=PARAMS, request_delegation=True)
    operations = DelegatedOperationService()

    def folds() -> list[Path]:
        return sorted(Path(os.environ[WORK_VARIABLE], str(dataset._doc.id)).rglob("round-*-fold-*.npy"))

    with service() as process:
        wait_for(lambda: len(folds()) >= 2, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = len(folds())
    operation = operations.get(queued["id"])
    assert operation.run_state == "running"  # so it stays: nobody was left to say otherwise
    assert 0 < operation.status.progress < 1
    assert "fold" in operation.status.label
    dataset.reload()
    assert made.raw_labels() == before
    assert set(dataset.get_field_schema()) == schema
    assert dataset.list_brain_runs() == []

    # as the service would: the same operation again
    operations.set_queued(queued["id"])
    with service() as process:
        wait_for(lambda: operations.get(queued["id"]).run_state in ("completed", "failed"), process)
    assert operations.get(queued["id"]).run_state == "completed", operations.get(queued["id"]).result
    assert "labels look wrong" in operations.get(queued["id"]).status.label
    dataset.reload()
    assert made.raw_labels() == before
    taken_up = runs.load(dataset)
    assert folds() == []

    # what was kept was right: the same run at one go finds the same, computed as the probe of the delegated run chose
    settings = Settings(n_rounds=2, epochs=3, seed=1)
    same = []
    for precision, threads in itertools.product(("float32", "bfloat16"), (1, 2)):
        machine = Machine(precision=precision, threads=threads)
        key = f"{precision}_{threads}"
        whole = find_label_issues(dataset, "ground_truth", key, settings=settings, machine=machine).issues
        assert len(trained_folds) > kept >= 2
        same.append(
            (whole.label_quality == taken_up.issues.label_quality).all()
            and (whole.is_label_issue == taken_up.issues.is_label_issue).all()
        )
    assert any(same)
    dataset.delete()


@pytest.mark.slow
def test_folds_of_a_killed_process_are_not_trained_again(tmp_path: Path, trained_folds: list[FoldKey]) -> None:
    made = NoisyDataset.make(tmp_path, 240, 24)
    dataset = made.dataset
    dataset.persistent = True
    execute("find_label_issues", dataset, params=PARAMS, request_delegation=True)
    work = Path(os.environ[WORK_VARIABLE], str(dataset._doc.id))
    with service() as process:
        wait_for(lambda: len(list(work.rglob("round-*-fold-*.npy"))) >= 2, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {file.name for file in work.rglob("round-*-fold-*.npy")}
    find_label_issues(fo.load_dataset(dataset.name), "ground_truth", settings=Settings(n_rounds=2, epochs=3, seed=1))
    trained = {f"round-{key.round}-fold-{key.fold}.npy" for key in trained_folds}
    assert not trained & kept
    assert len(trained) + len(kept) == 2 + 5  # folds of both rounds
    dataset.delete()


@pytest.mark.slow
def test_a_delegated_run_that_fails_says_why(noisy: Any) -> None:
    noisy.dataset.persistent = True
    queued = execute("find_label_issues", noisy.dataset, params=PARAMS, request_delegation=True)
    noisy.dataset.set_values("ground_truth.label", ["ring"] * 60)
    operations = DelegatedOperationService()
    with service() as process:
        wait_for(lambda: operations.get(queued["id"]).run_state in ("completed", "failed"), process)
    failed = operations.get(queued["id"])
    assert failed.run_state == "failed"
    assert "one class only (ring)" in str(failed.result.to_json())


@pytest.mark.slow
def test_a_delegated_run_computes_on_ray(noisy: Any) -> None:
    noisy.dataset.persistent = True
    queued = execute("find_label_issues", noisy.dataset, params={**PARAMS, "engine": "ray"}, request_delegation=True)
    operations = DelegatedOperationService()
    told, started = [], set()

    def over() -> bool:
        now = operations.get(queued["id"])
        told.append(now.status.label if now.status else "")
        started.update(child.name() for child in psutil.Process(process.pid).children(recursive=True))
        return now.run_state in ("completed", "failed")

    with service() as process:
        wait_for(over, process)
    assert operations.get(queued["id"]).run_state == "completed", operations.get(queued["id"]).result
    assert "raylet" in started
    assert any("round 2 of 2" in label for label in told)
    noisy.dataset.reload()
    assert len(runs.load(noisy.dataset).ids) == 60
