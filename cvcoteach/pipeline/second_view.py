"""The second view of a run: small networks from scratch on the images, beside heads on features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cvcoteach._validation import InputError
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.data.images import Images
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import Machine
from cvcoteach.pipeline.trainers import as_record, network_trainer, on_rows, recorded_plan
from cvcoteach.training.presets import PRESETS

VIEWS = ("heads on features", "networks from scratch")
"""How a summary calls the views."""

_PLAN = "second_plan"


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
        plan = None if recorded is None else recorded_plan({"plan": recorded}, machine)
        trainer = network_trainer(images.pixels, n_classes, PRESETS["fast"], machine, progress, plan=plan)
        if plan is None and not run.done:
            run.save(**{_PLAN: as_record(trainer.plan)})
        return on_rows(trainer, np.flatnonzero(images.readable) if images.errors else None)

    return make
