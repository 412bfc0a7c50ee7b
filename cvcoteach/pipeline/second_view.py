"""The second view of a run: small networks from scratch on the images, beside heads on features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from cvcoteach._validation import InputError, IntArray, PredProbs
from cvcoteach.crossval.trainer import Fold, FoldTrainer, ParallelFoldTrainer
from cvcoteach.data.images import Images
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.torch_trainer import TorchTrainer

VIEWS = ("heads on features", "networks from scratch")
"""How a summary calls the views."""

_PLAN = "second_plan"


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


def on_rows(trainer: FoldTrainer, rows: IntArray) -> FoldTrainer:
    """Return a trainer for some rows (n,) of the images of `trainer`, which trains as many folds at the same time."""
    return FoldsOnRows(trainer, rows) if isinstance(trainer, ParallelFoldTrainer) else OnRows(trainer, rows)


def check_same_images(images: Images, n_kept: int) -> None:
    """Raise InputError where an image that has features cannot be read. n_kept: images that have features."""
    if int(images.readable.sum()) != n_kept:
        raise InputError(
            f"{len(images.errors):,} of the images cannot be read; networks from scratch need every image that has "
            "features."
        )


def second_trainer(
    images: Images, n_classes: int, machine: Machine, progress: RunProgress
) -> Callable[[RunFolder], FoldTrainer]:
    """Return what makes the trainer of small networks from scratch, with the compute plan that a run records."""

    def make(run: RunFolder) -> FoldTrainer:
        recorded = run.record.get(_PLAN)
        plan = None if recorded is None else ComputePlan.recorded({"plan": recorded}, machine.device)
        trainer = TorchTrainer(
            images.pixels,
            n_classes,
            PRESETS["fast"],
            device=machine.device,
            plan=plan,
            threads=machine.threads,
            precision=machine.precision,
            deterministic=machine.deterministic,
            on_epoch=progress.epoch,
            note=progress.note,
        )
        if plan is None and not run.done:
            run.save(**{_PLAN: asdict(trainer.plan)})
        return on_rows(trainer, np.flatnonzero(images.readable)) if images.errors else trainer

    return make
