"""A run's five kinds of events as one `Progress`; to be deleted once the pipeline reports `Progress` itself."""

from __future__ import annotations

from typing import Any

from cvcoteach._progress import Progress, Watcher


class OldWatcher:
    """Turns what `pipeline.settings.Watcher` hears into `Progress`.

    Of the trainings, those of INCV are given 60 % and those of the final scoring the rest.
    """

    def __init__(self, watcher: Watcher) -> None:
        """watcher: hears notes and progress."""
        self.note = watcher.note
        self.progress = watcher.progress
        self._incv: tuple[int, int] | None = None  # rounds and folds, as first reported
        self._first_pass: int | None = None  # of the final scoring: its round
        self._from, self._step = 0.0, 0.0  # of the training under way
        self._where = ""
        self._done = 0.0  # a sum of floats may fall by its last digit

    def reading(self, done: int, total: int) -> None:
        """Report decoded images."""
        self.progress(Progress("reading images", done, max(total, 1)))

    def extracting(self, done: int, total: int, images_per_second: float) -> None:
        """Report computed features."""
        message = f"{done:,} of {total:,} ({images_per_second:,.0f} images/s)"
        self.progress(Progress("computing features", done, max(total, 1), message))

    def fold(self, progress: Any) -> None:
        """Report that a training begins or has ended."""
        self._incv = self._incv or (progress.n_rounds, progress.n_folds)
        number = progress.key.fold - (progress.state == "start")
        if self._incv == (progress.n_rounds, progress.n_folds):
            number += (progress.key.round - 1) * progress.n_folds
            begin, part, of = 0.0, 0.6, progress.n_rounds * progress.n_folds
            self._where = f"round {progress.key.round} of {progress.n_rounds}, fold {progress.key.fold}"
            self._where += f" of {progress.n_folds}"
        else:
            self._first_pass = progress.key.round if self._first_pass is None else self._first_pass
            done, passes = progress.key.round - self._first_pass, progress.n_rounds - self._first_pass + 1
            number += done * progress.n_folds
            begin, part, of = 0.6, 0.4, passes * progress.n_folds
            which = f"pass {done + 1} of {passes}, " if passes > 1 else ""
            self._where = f"final scoring, {which}fold {progress.key.fold} of {progress.n_folds}"
        self._from, self._step = begin + part * number / of, part / of
        self._train(self._from, ", kept from before" if progress.state == "kept" else "")

    def epoch(self, progress: Any) -> None:
        """Report the end of an epoch."""
        done = self._from + self._step * progress.epoch / progress.n_epochs
        self._train(done, f", epoch {progress.epoch} of {progress.n_epochs}")

    def _train(self, done: float, more: str) -> None:
        self._done = min(max(self._done, done), 1.0)
        self.progress(Progress("training", self._done, 1.0, self._where + more))
