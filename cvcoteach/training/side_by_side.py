"""Folds trained side by side on one device, as many as its memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from cvcoteach._validation import InputError, PredProbs
from cvcoteach.crossval.trainer import Fold
from cvcoteach.training.devices import out_of_memory
from cvcoteach.training.engine.graphs import memory_freed
from cvcoteach.training.fitting import Fitting
from cvcoteach.training.loop import EpochReport, OnEpoch
from cvcoteach.training.together import run_together


class FoldInTraining(NamedTuple):
    """One fold on its way."""

    fitting: Fitting
    """Its training."""
    answer: Callable[[], PredProbs]
    """Returns its probabilities, once the training has ended."""


Start = Callable[[Fold, int | None], FoldInTraining]
"""Begins a fold, in batches of at most so many images where a number is given."""


@dataclass
class SideBySide:
    """How many folds share a device, and how large their batches may be; both shrink where memory runs out."""

    device: torch.device
    """Where they are trained."""
    width: int
    """Folds at the same time, at most; at least 1."""
    batch_size: int
    """Images in a batch, at most; at least 1."""
    note: Callable[[str], None]
    """Called with a sentence where memory ran out."""
    most: int | None = None
    """Images in a batch that memory allows; None: `batch_size`."""

    def answers(self, folds: Sequence[Fold], start: Start, on_epoch: OnEpoch | None) -> Iterator[tuple[int, PredProbs]]:
        """Train folds and yield the position and the answer of each as soon as it is there.

        Args:
            folds: What to train.
            start: Begins a fold.
            on_epoch: Called after each epoch of the folds that are in training; where others wait, its number is the
                mean over all that have no answer yet.

        Raises:
            InputError: Memory does not hold the training in batches of two images, or a training failed.
        """
        waiting = list(range(len(folds)))
        while waiting:
            groups = -(-len(waiting) // self.width)
            group = waiting[: -(-len(waiting) // groups)]  # 8 in groups of up to 5: twice 4
            full = True
            try:
                for position, answer in self._trained(group, folds, start, on_epoch, len(waiting) - len(group)):
                    waiting.remove(position)
                    yield position, answer
                full = False
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            memory_freed(self.device, after_all=full)
            if full:
                self._shrink(len(group))

    def _trained(
        self, group: Sequence[int], folds: Sequence[Fold], start: Start, on_epoch: OnEpoch | None, n_waiting: int
    ) -> Iterator[tuple[int, PredProbs]]:
        active = {position: start(folds[position], self.most) for position in group}
        while active:
            running = [fold.fitting for fold in active.values()]
            reports = run_together([fitting.training for fitting in running])
            reports = [fitting.take(report) for fitting, report in zip(running, reports, strict=True)]
            if on_epoch is not None:
                on_epoch(_joint(reports, len(active) + n_waiting))
            for position in [position for position, fold in active.items() if fold.fitting.ended]:
                fold = active.pop(position)
                fold.fitting.settle()
                yield position, fold.answer()

    def _shrink(self, n_together: int) -> None:
        if n_together > 1:
            self.width = n_together // 2
            self.note(f"the memory of {self.device} is full: {self.width} of {n_together} networks at the same time.")
            return
        before = self.most or self.batch_size
        if before <= 2:
            raise InputError(f"the memory of {self.device} does not hold the training of one network on two images.")
        self.most = before // 2
        self.note(f"the memory of {self.device} is full: batches of {self.most} images, not {before}.")


def _joint(reports: Sequence[EpochReport], n_unanswered: int) -> EpochReport:
    """Return one report of folds side by side."""
    if len(reports) == n_unanswered == 1:
        return reports[0]
    n = len(reports)
    held_out = [report.validation_loss for report in reports if report.validation_loss is not None]
    return replace(
        reports[0],
        epoch=max(1, round(sum(report.epoch for report in reports) / n_unanswered)),
        images_per_second=sum(report.images_per_second for report in reports),
        loss=sum(report.loss for report in reports) / n,
        validation_loss=sum(held_out) / len(held_out) if held_out else None,
    )
