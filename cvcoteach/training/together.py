"""An epoch of several trainings on one device, side by side where their steps are captured."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cvcoteach.training.devices import repeatable
from cvcoteach.training.loop import EpochReport, Training, launch_in_turn


def run_together(trainings: Sequence[Training]) -> list[EpochReport]:
    """Train each for one epoch, side by side where their steps are captured, and return a report of each.

    A training ends as it would alone, save by rounding.

    Raises:
        InputError: A loss is not finite, so that training has failed.
        RuntimeError: There is too little memory on the device for all of them, see `out_of_memory`.
    """
    began = time.perf_counter()
    with repeatable(any(training.deterministic for training in trainings)):
        ready = [training for training in trainings if training.begin()]
        together = [training for training in ready if not training.is_random]
        launch_in_turn(together)
        reports = {id(training): training.finish(began) for training in together}
        for training in trainings:
            if id(training) not in reports:
                alone = training.run_begun if training in ready else training.run_step_by_step
                reports[id(training)] = alone()
    return [reports[id(training)] for training in trainings]
