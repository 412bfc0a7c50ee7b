"""Folds that two workers train together, on a real Ray."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.crossval.trainer import Fold
from cvcoteach.engines.cluster import RayCluster, Share
from cvcoteach.engines.gang import RaySharedTrainer
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.shared_training import Crew
from cvcoteach.training.torch_trainer import TorchTrainer
from tests.images import dataset

IMAGES, _, LABELS = dataset(90, 0.1)
PIXELS = IMAGES[..., None]
# batches of 13 and 12 images: of some of them, one worker has one image more than the other. The rate is low, since at
# a higher one rounding may turn a unit on or off, which later steps carry on
RECIPE = replace(
    PRESETS["fast"], epochs=3, batch_size=13, least_batches=0, patience=2, held_back=0.15, learning_rate=2e-3
)
PLAN = ComputePlan(threads=1)
FOLDS = [
    Fold(np.arange(0, 75), LABELS[:75], np.arange(75, 90), 1),
    Fold(np.arange(15, 90), LABELS[15:], np.arange(15), 2),
]


class KilledOnce:
    """A `TorchTrainer`, one worker of which is killed in the second fold."""

    def __init__(self, *args: Any, folder: str, crew: Crew, **options: Any) -> None:
        self._trainer = TorchTrainer(*args, crew=crew, **options)
        self._folder, self._rank = Path(folder), crew.rank

    def fit_predict(self, *fold: Any) -> Any:
        if self._rank == 1 and fold[-1] == 2 and not (self._folder / "killed").exists():
            (self._folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._trainer.fit_predict(*fold)


@pytest.fixture
def cluster() -> Any:
    """A cluster whose CPUs are all free again at the end, though the Ray behind it runs on."""
    with RayCluster(threads=1) as cluster:
        yield cluster
    given_back = time.monotonic() + 20
    while cluster.ray.available_resources().get("CPU", 0) < 2:
        assert time.monotonic() < given_back, "CPUs are still reserved"
        time.sleep(0.2)


def trainer(cluster: RayCluster, make: Any = TorchTrainer, recipe: Any = RECIPE, **more: Any) -> RaySharedTrainer:
    arguments = {"n_classes": 3, "recipe": recipe, **more}
    return RaySharedTrainer(cluster, make, PIXELS, arguments, plan=PLAN, workers_per_fold=2)


def test_two_workers_learn_what_one_learns_from_the_same_batches(cluster: RayCluster) -> None:
    reports: list[Any] = []
    together = trainer(cluster)
    together._on_epoch = reports.append
    answers = dict(together.fit_predict_each(FOLDS))
    assert reports[-1].n_epochs == 3
    check(answers)


@pytest.mark.slow
def test_folds_of_a_worker_that_is_lost_are_trained_again(cluster: RayCluster, tmp_path: Path) -> None:
    check(dict(trainer(cluster, KilledOnce, folder=str(tmp_path)).fit_predict_each(FOLDS)))
    assert (tmp_path / "killed").exists()


def check(answers: dict[int, Any]) -> None:
    alone = TorchTrainer(PIXELS, 3, RECIPE, plan=PLAN)
    untaught = TorchTrainer(PIXELS, 3, replace(RECIPE, learning_rate=1e-12), plan=PLAN)
    for position, fold in enumerate(FOLDS):
        np.testing.assert_allclose(answers[position], alone.fit_predict(*fold), atol=2e-6)
        assert np.abs(answers[position] - untaught.fit_predict(*fold)).max() > 1e-3


@pytest.mark.slow
def test_what_a_worker_says_is_said_here(cluster: RayCluster) -> None:
    with pytest.raises(InputError, match=r"the loss is (nan|inf)"):
        trainer(cluster, recipe=replace(RECIPE, learning_rate=1e30)).fit_predict(*FOLDS[0])


def test_batches_that_are_smaller_than_the_crew_are_refused() -> None:
    with pytest.raises(InputError, match="a batch of 3 images cannot be shared by 4 workers"):
        Crew(0, 4).check(9, replace(RECIPE, batch_size=3))


def test_more_workers_than_the_cluster_has_room_for_are_refused(cluster: RayCluster) -> None:
    with pytest.raises(InputError, match="workers_per_fold is 3, but the Ray cluster has room for 2 with 1 threads"):
        RaySharedTrainer(cluster, TorchTrainer, PIXELS, {"n_classes": 3, "recipe": RECIPE}, workers_per_fold=3)


def test_workers_that_would_share_a_gpu_are_refused(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RayCluster, "share", lambda *_: Share("cuda", 1, 0.5))
    with pytest.raises(InputError, match=r"task_gpus is 0\.5, but workers that train a fold together need a GPU each"):
        RaySharedTrainer(cluster, TorchTrainer, PIXELS, {"n_classes": 3, "recipe": RECIPE}, workers_per_fold=2)
