"""What readers, extractors and trainers report -> `Progress` of the whole run, for one watcher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from cvcoteach._progress import OnProgress, Progress, Silent, Watcher, duration
from cvcoteach.crossval.trainer import FoldKey, FoldProgress

if TYPE_CHECKING:
    from cvcoteach.training.loop import EpochReport

TRAINING = "training"

_HALF_LIFE, _LEAST_HALF_LIFE = 0.5, 30.0
"""Age of what was done at which it counts half for the time left: as a share of the time so far, and in seconds."""

_LINES = 10
"""Lines in a log for a training without folds, about."""


class RunProgress:
    """Tells a watcher how far a run has come; its methods are what readers, extractors and trainers call back.

    Training is counted in images times epochs over all rounds of the run, so that the time left is that of the run and
    not of one fold. Trainings to come are taken to be as large as those seen with as many folds, else as their folds
    say; folds that an earlier process finished count as done.
    """

    def __init__(self, watcher: Watcher | None = None) -> None:
        self._watcher: Watcher = watcher or Silent()
        self._n_images, self._view = 0, 1
        self._rounds: list[int] = []  # folds of each round
        self._sizes: dict[FoldKey, int] = {}  # images that a fold trains on
        self._over: set[FoldKey] = set()
        self._running: list[FoldKey] = []
        self._epoch, self._n_epochs = 0, 1  # of those running
        self._done = 0.0

    def note(self, sentence: str) -> None:
        """Hand on something that the user should know."""
        self._watcher.note(sentence)

    def reading(self, done: int, total: int) -> None:
        """Take in how many images are decoded."""
        self._count("reading images", done, total, "")

    def extracting(self, done: int, total: int, images_per_second: float | None = None) -> None:
        """Take in for how many images features are computed."""
        speed = "" if images_per_second is None else f", {images_per_second:,.0f} images/s"
        self._count("computing features", done, total, speed)

    def plan(self, n_images: int, folds: Sequence[int], view: int = 1) -> None:
        """Say what is to be trained: on how many images, how many folds a round has, and by which view.

        Trainings of other views are not shown: heads on features beside networks take no time.
        """
        self._n_images, self._rounds, self._view = n_images, list(folds), view

    def fold(self, event: FoldProgress) -> None:
        """Take in that a training begins or has ended, or was there already."""
        if event.view != self._view:
            return
        number, fold = event.key
        self._correct_plan(event)
        self._sizes[event.key] = event.n_train
        if event.state == "start":
            if not self._running:
                self._epoch = 0
            self._running.append(event.key)
            self._tell_training()
            return
        self._over.add(event.key)
        if event.state == "kept":
            return  # the next training says so: a jump here would pass for speed
        self._running.remove(event.key)
        ended = sum(key.round == number for key in self._over) == event.n_folds
        name = f"round {number} of {len(self._rounds)}"
        self._tell_training(f"{name}, fold {fold} of {event.n_folds}", finished=name if ended else "")

    def epoch(self, report: EpochReport) -> None:
        """Take in that an epoch has ended, of the trainings that run or of a training without folds."""
        where, speed = f"epoch {report.epoch} of {report.n_epochs}", f"{report.images_per_second:,.0f} images/s"
        if not self._running:
            with_loss = f"{where} (loss {report.loss:.3g})"
            step = max(1, report.n_epochs // _LINES)
            finished = with_loss if report.epoch % step == 0 or report.epoch == report.n_epochs else ""
            update = Progress(TRAINING, report.epoch, report.n_epochs, f"{with_loss}, {speed}", finished)
            self._watcher.progress(update)
            return
        message = f"{where}, {speed}"
        self._epoch, self._n_epochs = report.epoch, report.n_epochs
        self._tell_training(f"{self._where()}, {message}")

    def _count(self, stage: str, done: int, total: int, more: str) -> None:
        count = f"{done:,} of {total:,}"
        self._watcher.progress(Progress(stage, done, max(total, 1), count + more, count if done >= total else ""))

    def _tell_training(self, message: str = "", finished: str = "") -> None:
        share = self._epoch / self._n_epochs
        done = sum(self._sizes[key] for key in self._over) + share * sum(self._sizes[key] for key in self._running)
        # heads of several sizes are trained group by group, each from epoch 1 on
        self._done = max(self._done, done)
        total = max(self._done, sum(self._expected(number) for number in range(1, len(self._rounds) + 1)), 1)
        epochs = self._n_epochs
        self._watcher.progress(
            Progress(TRAINING, self._done * epochs, total * epochs, message or self._where(), finished)
        )

    def _where(self) -> str:
        number, first = self._running[0]
        last, folds = self._running[-1].fold, self._rounds[number - 1]
        which = f"fold {first}" if first == last else f"folds {first} to {last}"
        return f"round {number} of {len(self._rounds)}, {which} of {folds}"

    def _correct_plan(self, event: FoldProgress) -> None:
        """INCV ends early where the candidates run out: then later rounds move up."""
        number = event.key.round
        if number > len(self._rounds) or self._rounds[number - 1] != event.n_folds:
            rounds = (self._rounds + [event.n_folds] * number)[: number - 1]
            self._rounds = rounds + [event.n_folds] * (max(event.n_rounds, number) - number + 1)

    def _expected(self, number: int) -> float:
        """Images that all folds of a round train on."""
        n_folds = self._rounds[number - 1]
        seen: list[int] = []
        for like in range(number, 0, -1):  # the round itself, else the last one with as many folds
            if self._rounds[like - 1] == n_folds and not seen:
                seen = [size for key, size in self._sizes.items() if key.round == like]
        mean = sum(seen) / len(seen) if seen else self._n_images * (1 - 1 / n_folds)
        known = [size for key, size in self._sizes.items() if key.round == number]
        return sum(known) + mean * (n_folds - len(known))


class TimeLeft:
    """Estimates the time left of a stage, from what was done since it was first heard of; lately counts most.

    What was done counts half as much once it is half as old as the stage, so that a slow start or a machine that others
    use for a while is soon forgotten.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._began = self._last = 0.0
        self._done = self._seconds = self._units = 0.0

    def after(self, update: Progress) -> str:
        """Return ", about 3 min 20 s left", or nothing where that is not known or not worth a word."""
        now = time.monotonic()
        if update.stage != self._stage or update.done < self._done:
            self._stage, self._began = update.stage, now
            self._seconds = self._units = 0.0
        else:
            passed = now - self._last
            weight = 0.5 ** (passed / max(_LEAST_HALF_LIFE, _HALF_LIFE * (now - self._began)))
            self._seconds = self._seconds * weight + passed
            self._units = self._units * weight + update.done - self._done
        self._last, self._done = now, update.done
        if self._units <= 0:
            return ""
        left = self._seconds / self._units * (update.total - update.done)
        return f", about {duration(left)} left" if left >= 1 else ""


class Bar:
    """A watcher that shows notes, and one moving line with the time left."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[Any] | None = None
        self._stage = ""
        self._left = TimeLeft()

    def note(self, sentence: str) -> None:
        """Write it above the line."""
        self.close()
        print(sentence, file=self._stream)

    def progress(self, update: Progress) -> None:
        """Move the line."""
        # the end of the line is what a narrow terminal cuts off
        text = f"{update.stage}{self._left.after(update)}: {update.message}"
        if self._bar is not None and (update.stage != self._stage or update.done < self._bar.n):
            self.close()
        if self._bar is None:
            self._stage = update.stage
            self._bar = tqdm(
                desc=text,
                total=update.total,
                initial=update.done,
                file=self._stream,
                leave=False,
                dynamic_ncols=True,
                bar_format="{percentage:3.0f}% |{bar:20}| {desc}",
            )
            return
        self._bar.total = update.total
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(update.done - self._bar.n)

    def close(self) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Calling:
    """A watcher that hands progress to a function; notes are not handed on."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.progress = on_progress

    def note(self, sentence: str) -> None:
        """Ignore it."""
