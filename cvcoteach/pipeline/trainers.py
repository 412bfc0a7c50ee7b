"""Trainers of a run: in this process, or on the cluster of its machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import IntArray, PredProbs
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.engines.trainer import RayBatchTrainer, RayTrainer
from cvcoteach.noise_model.top_probs import MANY_CLASSES
from cvcoteach.pipeline.on_engine import here
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.loop import OnEpoch
from cvcoteach.training.models import ModelFactory
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


def on_rows(trainer: NetworkTrainer, rows: IntArray | None) -> FoldTrainer:
    """Return a trainer whose image i is row `rows[i]`, (n,); None: all rows."""
    if rows is None:
        return trainer
    return trainer.on_rows(rows) if isinstance(trainer, RayTrainer) else OnRows(trainer, rows)


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
    *,
    plan: ComputePlan | None,
    models: ModelFactory | None = None,
    on_epoch: OnEpoch | None = None,
) -> NetworkTrainer:
    """Return a trainer of networks on images; the options are those of `TorchTrainer`."""
    precision = machine.precision
    if machine.cluster is not None:
        more = {"n_classes": n_classes, "recipe": recipe, "models": models, "precision": precision}
        return RayTrainer(
            machine.cluster, TorchTrainer, pixels, more, device=machine.device, plan=plan, on_epoch=on_epoch
        )
    return TorchTrainer(
        pixels,
        n_classes,
        recipe,
        device=machine.device,
        plan=plan,
        models=models,
        threads=machine.threads,
        precision=precision,
        on_epoch=on_epoch,
    )


def heads_trainer(
    features: npt.NDArray[Any], n_classes: int, head: str, machine: Machine, on_epoch: OnEpoch | None
) -> FoldTrainer:
    """Return a trainer of heads on features (n, d); the options are those of `HeadTrainer`."""
    if machine.cluster is not None and n_classes <= MANY_CLASSES:
        more = {"n_classes": n_classes, "head": head}
        return RayBatchTrainer(machine.cluster, HeadTrainer, features, more, device=machine.device, on_epoch=on_epoch)
    if machine.cluster is not None:
        machine.cluster.note(
            f"Heads of more than {MANY_CLASSES:,} classes are trained on this machine: their probabilities are larger "
            "than what passes between machines."
        )
    device = here(machine).device
    return HeadTrainer(features, n_classes, head, device=device, threads=machine.threads, on_epoch=on_epoch)  # type: ignore[arg-type]
