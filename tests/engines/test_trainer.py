"""Folds on a real Ray: the answers of this process, whatever happens to workers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cvcoteach.engines.pool
from cvcoteach._validation import InputError, IntArray, PredProbs
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.crossval.trainer import FoldKey
from cvcoteach.engines.cluster import Node, RayCluster
from cvcoteach.engines.trainer import RayBatchTrainer, RayTrainer
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.loop import EpochReport
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.torch_trainer import TorchTrainer
from tests.engines.trainers import (
    Environment,
    Epochs,
    EpochsTogether,
    Failing,
    Held,
    Killed,
    KilledWhenAsked,
    Means,
    Noting,
    Together,
)
from tests.fakes import NearestMeans, clouds
from tests.images import dataset

FEATURES, _, LABELS = clouds(60, 3, 0.1, seed=0)
FEATURES = FEATURES.astype(np.float32)
HERE = cross_validate(NearestMeans(FEATURES, 3), LABELS, n_folds=3)


@pytest.fixture
def cluster() -> Any:
    with RayCluster(threads=1) as cluster:
        yield cluster


def trainer(cluster: RayCluster, make: Any = Means, array: Any = FEATURES, **arguments: Any) -> RayTrainer:
    return RayTrainer(cluster, make, array, {"n_classes": 3, **arguments})


def test_folds_are_trained_at_the_same_time_and_answer_as_they_would_here(cluster: RayCluster, tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        cross_validate(trainer(cluster, Together, folder=str(tmp_path)), LABELS, n_folds=3), HERE
    )


def test_a_memory_map_is_opened_by_its_path_and_an_array_put_into_the_store(
    cluster: RayCluster, tmp_path: Path
) -> None:
    np.save(tmp_path / "f.npy", FEATURES)
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    assert cluster.placed(mapped).path == str(tmp_path / "f.npy")
    np.testing.assert_array_equal(cluster.placed(mapped).open(), FEATURES)
    half = cluster.placed(mapped[30:])  # a part of a file is no file
    assert half.ref is not None
    np.testing.assert_array_equal(half.open(), FEATURES[30:])
    np.testing.assert_array_equal(cross_validate(trainer(cluster, array=mapped), LABELS, n_folds=3), HERE)


def test_only_what_is_missing_is_trained(cluster: RayCluster) -> None:
    there = np.full((20, 3), 1 / 3, np.float32)
    finished: dict[Any, Any] = {FoldKey(1, 2): there}
    states = []
    cross_validate(
        trainer(cluster),
        LABELS,
        n_folds=3,
        finished=finished,
        on_fold=lambda event: states.append((event.key.fold, event.state)),
    )
    assert (2, "kept") in states
    assert (2, "start") not in states
    assert len(finished) == 3


def test_a_lost_worker_is_replaced_and_its_fold_trained_again(cluster: RayCluster, tmp_path: Path) -> None:
    killed = trainer(cluster, Killed, folder=str(tmp_path), times=2)
    np.testing.assert_array_equal(cross_validate(killed, LABELS, n_folds=2), _here(2))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_fold_that_kills_every_worker_ends_with_a_sentence_and_what_is_finished_is_kept(
    cluster: RayCluster, tmp_path: Path
) -> None:
    killed = trainer(cluster, Killed, folder=str(tmp_path), times=9)
    with pytest.raises(InputError, match=r"lost 4 times .* same command resumes"):
        cross_validate(killed, LABELS, n_folds=2)


def test_a_worker_that_is_lost_before_it_trains_is_replaced_too(cluster: RayCluster, tmp_path: Path) -> None:
    asked = trainer(cluster, KilledWhenAsked, folder=str(tmp_path))
    asked.share = replace(asked.share, device="cuda")  # only then are workers asked
    np.testing.assert_array_equal(cross_validate(asked, LABELS, n_folds=2), _here(2))
    assert (tmp_path / "asked").exists()


def test_a_plan_of_one_process_leaves_every_gpu_a_fold(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "threads", None)
    monkeypatch.setattr(cluster, "nodes", lambda: [Node("id", "host", 64, 8, 1e9)])
    resumed = RayTrainer(cluster, Means, FEATURES, {"n_classes": 3}, plan=ComputePlan("cuda", threads=64))
    assert resumed.side_by_side == 8
    assert resumed.plan == ComputePlan("cuda", threads=8)
    on_cpus = RayTrainer(cluster, Means, FEATURES, {"n_classes": 3}, plan=ComputePlan("cpu", threads=16))
    assert on_cpus.side_by_side == 4


def test_what_workers_note_is_told_once(tmp_path: Path) -> None:
    notes: list[str] = []
    with RayCluster(threads=1, note=notes.append) as cluster:
        np.testing.assert_array_equal(cross_validate(trainer(cluster, Noting), LABELS, n_folds=3), HERE)
    assert notes == ["made", "the memory is full"]


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        ("sentence", InputError, "^the loss is nan; take a smaller one.$"),
        ("key", KeyError, "of its own"),
        ("writes", InputError, "all workers of Ray share and none may change; let it change a copy"),
    ],
)
def test_what_a_trainer_says_is_said_here(cluster: RayCluster, error: str, kind: Any, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        cross_validate(trainer(cluster, Failing, error=error), LABELS, n_folds=2)


def test_epochs_of_all_workers_are_one_report(cluster: RayCluster) -> None:
    reports: list[EpochReport] = []
    epochs = RayTrainer(cluster, Epochs, FEATURES, {"n_classes": 3}, on_epoch=reports.append)
    np.testing.assert_array_equal(cross_validate(epochs, LABELS, n_folds=2), _here(2))
    assert all(report.n_epochs == 2 and 1 <= report.epoch <= 2 for report in reports)
    assert {report.epoch for report in reports} == {1, 2}


def test_epochs_of_folds_that_one_worker_trains_together_count_for_all_of_them(cluster: RayCluster) -> None:
    reports: list[EpochReport] = []
    epochs = RayBatchTrainer(cluster, EpochsTogether, FEATURES, {"n_classes": 3}, on_epoch=reports.append)
    np.testing.assert_array_equal(cross_validate(epochs, LABELS, n_folds=5), _here(5))
    assert [report.epoch for report in reports] == [1, 2]


def test_a_task_has_the_threads_that_it_is_given(cluster: RayCluster) -> None:
    answer = cross_validate(RayTrainer(cluster, Environment, FEATURES, {}), LABELS % 2, n_folds=2)
    np.testing.assert_array_equal(answer[:, 0], 1)


def test_networks_give_the_same_bits_as_one_process(cluster: RayCluster) -> None:
    images, _, given = dataset(48, 0.1)
    pixels, recipe = images[..., None], replace(PRESETS["fast"], epochs=1)
    here = TorchTrainer(pixels, 3, recipe, device="cpu", threads=1, precision="float32")
    there = RayTrainer(
        cluster, TorchTrainer, pixels, {"n_classes": 3, "recipe": recipe, "precision": "float32"}
    ).on_rows(np.arange(48)[::-1])
    assert there.plan == here.plan
    np.testing.assert_array_equal(
        cross_validate(there, given[::-1], n_folds=2), cross_validate(_Backwards(here), given[::-1], n_folds=2)
    )


@dataclass
class _Backwards:
    """A trainer whose images are in the reverse order."""

    trainer: TorchTrainer

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        last = self.trainer.n_images - 1
        return self.trainer.fit_predict(last - train_idx, train_labels, last - eval_idx, seed)


def test_heads_of_a_round_give_the_same_bits_as_one_process(cluster: RayCluster) -> None:
    here = HeadTrainer(FEATURES, 3, device="cpu", threads=1)
    heads = RayBatchTrainer(cluster, HeadTrainer, FEATURES, {"n_classes": 3})
    rounds = IterativeCV("posterior", 2, 3)
    expected, found = (rounds.run([each], LABELS, n_classes=3) for each in (here, heads))
    np.testing.assert_array_equal(found.posterior.pred_probs, expected.posterior.pred_probs)


@pytest.mark.slow
def test_two_views_share_the_cluster(cluster: RayCluster) -> None:
    heads = RayBatchTrainer(cluster, HeadTrainer, FEATURES, {"n_classes": 3})
    rounds = IterativeCV("posterior", 2, 2)
    here: list[Any] = [HeadTrainer(FEATURES, 3, device="cpu", threads=1), NearestMeans(FEATURES, 3)]
    expected, found = (rounds.run(each, LABELS, n_classes=3) for each in (here, [heads, trainer(cluster)]))
    np.testing.assert_array_equal(found.posterior.pred_probs, expected.posterior.pred_probs)


def _here(n_folds: int) -> np.ndarray:
    return cross_validate(NearestMeans(FEATURES, 3), LABELS, n_folds=n_folds)


@pytest.mark.slow
def test_a_node_that_dies_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.engines.node_loss", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert ended.stdout.endswith("the same answer\n"), ended.stderr


def test_the_user_is_told_when_others_use_what_a_task_waits_for(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cvcoteach.engines.pool, "_PATIENCE", 0.1)
    notes: list[str] = []
    held = cluster.ray.remote(num_cpus=2)(Held).remote()
    assert cluster.ray.get(held.here.remote())

    def noted(sentence: str) -> None:
        notes.append(sentence)
        cluster.ray.kill(held)

    with RayCluster(threads=1, note=noted) as waiting:
        np.testing.assert_array_equal(cross_validate(trainer(waiting), LABELS, n_folds=2), _here(2))
    assert notes == ["Waiting for Ray to give a task 1 CPU, which others use at the moment."]
