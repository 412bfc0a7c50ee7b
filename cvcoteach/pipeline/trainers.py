"""Trainers of a run: in this process, or on the cluster of its machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import IntArray, PredProbs
from cvcoteach.crossval.trainer import Fold, FoldTrainer, ParallelFoldTrainer
from cvcoteach.engines.gang import RaySharedTrainer
from cvcoteach.engines.trainer import RayBatchTrainer, RayTrainer
from cvcoteach.noise_model.top_probs import many
from cvcoteach.pipeline.on_engine import here
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.presets import Head
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.torch_trainer import TorchTrainer

NetworkTrainer = TorchTrainer | RayTrainer


class OnRows(NamedTuple):
    """A trainer for some rows of its images: image i of the run is row `rows[i]`."""

    trainer: FoldTrainer
    """For all rows."""
    rows: IntArray
    """(n,) rows of the run's images."""

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Do what the trainer does, on the rows of these images."""
        return self.trainer.fit_predict(self.rows[train_idx], train_labels, self.rows[eval_idx], seed)


class FoldsOnRows(OnRows):
    """The same of a trainer that trains several folds at the same time."""

    def fit_predict_each(self, folds: Sequence[Fold]) -> Iterator[tuple[int, PredProbs]]:
        """Do what the trainer does, on the rows of these images."""
        assert isinstance(self.trainer, ParallelFoldTrainer)
        return self.trainer.fit_predict_each(
            [fold._replace(train_idx=self.rows[fold.train_idx], eval_idx=self.rows[fold.eval_idx]) for fold in folds]
        )


def on_rows(trainer: NetworkTrainer, rows: IntArray | None) -> FoldTrainer:
    """Return a trainer whose image i is row `rows[i]`, (n,); None: all rows."""
    if rows is None:
        return trainer
    if isinstance(trainer, RayTrainer):
        return trainer.on_rows(rows)
    return FoldsOnRows(trainer, rows) if isinstance(trainer, ParallelFoldTrainer) else OnRows(trainer, rows)


def recorded_plan(record: Mapping[str, Any], machine: Machine) -> ComputePlan | None:
    """Return the plan that a run's record holds, if this machine or its cluster can go on with it, else None."""
    devices = None if machine.cluster is None else machine.cluster.devices()
    return ComputePlan.recorded(record, machine.device, devices)


def as_record(plan: ComputePlan | None) -> dict[str, Any]:
    """Return a plan for a run's record."""
    assert plan is not None  # every network is trained by one
    return asdict(plan)


def network_trainer(
    pixels: npt.NDArray[np.uint8],
    n_classes: int,
    recipe: Recipe,
    machine: Machine,
    progress: RunProgress,
    *,
    plan: ComputePlan | None,
    models: ModelFactory | None = None,
) -> NetworkTrainer:
    """Return a trainer of networks on images that tells `progress` of its epochs; see `TorchTrainer`."""
    precision, deterministic = machine.precision, machine.deterministic
    if machine.cluster is not None:
        more = {
            "n_classes": n_classes,
            "recipe": recipe,
            "models": models,
            "precision": precision,
            "deterministic": deterministic,
        }
        rest: dict[str, Any] = {"device": machine.device, "plan": plan, "on_epoch": progress.epoch}
        if machine.workers_per_fold > 1:
            return RaySharedTrainer(
                machine.cluster, TorchTrainer, pixels, more, workers_per_fold=machine.workers_per_fold, **rest
            )
        return RayTrainer(machine.cluster, TorchTrainer, pixels, more, **rest)
    return TorchTrainer(
        pixels,
        n_classes,
        recipe,
        device=machine.device,
        plan=plan,
        models=models,
        threads=machine.threads,
        precision=precision,
        deterministic=deterministic,
        on_epoch=progress.epoch,
        note=progress.note,
    )


def heads_trainer(
    features: npt.NDArray[Any], n_classes: int, head: Head, machine: Machine, progress: RunProgress, *, shown: bool
) -> FoldTrainer:
    """Return a trainer of heads on features (n, d), whose epochs are `shown` or not; see `HeadTrainer`."""
    on_epoch = progress.epoch if shown else None
    if machine.cluster is not None and not many(len(features), n_classes):
        more = {"n_classes": n_classes, "head": head}
        return RayBatchTrainer(machine.cluster, HeadTrainer, features, more, device=machine.device, on_epoch=on_epoch)
    if machine.cluster is not None:
        machine.cluster.note(
            f"Heads of {n_classes:,} classes for {len(features):,} images are trained on this machine: their "
            "probabilities are larger than what passes between machines."
        )
    device = here(machine).device
    return HeadTrainer(
        features,
        n_classes,
        head,
        device=device,
        threads=machine.threads,
        on_epoch=on_epoch,
        note=progress.note,
    )
