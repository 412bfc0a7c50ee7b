"""Live progress: one moving line on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from cvcoteach.crossval.trainer import FoldProgress

if TYPE_CHECKING:
    from cvcoteach.training.loop import EpochReport

_LINE_EVERY = 10.0  # seconds between plain lines of one fold


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Display:
    """A watcher (see `cvcoteach.pipeline.find_issues.Watcher`) that shows progress on `stream`."""

    def __init__(self, stream: TextIO) -> None:
        """stream: a moving line if it is a terminal, else a line an event."""
        self.stream = stream
        self.live = stream.isatty()
        self._bar: tqdm[Any] | None = None
        self._last_line = 0.0
        self._fold: FoldProgress | None = None
        self._started = 0.0
        self._trained = 0  # image passes of this process's finished trainings ...
        self._spent = 0.0  # ... and what they took
        self._epochs = 1

    def note(self, sentence: str) -> None:
        """One sentence on a line of its own."""
        self.close()
        self._say(f"note: {sentence}")

    def reading(self, done: int, total: int) -> None:
        """Images decoded so far."""
        self._count("reading images", done, total)

    def extracting(self, done: int, total: int, images_per_second: float) -> None:
        """Features computed so far."""
        self._count("computing features", done, total, f" ({images_per_second:,.0f} images/s)")

    def _count(self, what: str, done: int, total: int, more: str = "") -> None:
        if self.live:
            bar = self._bar = self._bar or tqdm(total=total, desc=what, unit="img", file=self.stream, leave=False)
            bar.update(done - bar.n)
            if done >= total:
                self.close()
        elif done >= total or time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            self._say(f"{what}: {done:,} of {total:,}{more}")

    def fold(self, progress: FoldProgress) -> None:
        """A training begins or has ended."""
        name = f"round {progress.key.round}/{progress.n_rounds}, fold {progress.key.fold}/{progress.n_folds}"
        if progress.state == "start":
            self._fold, self._started = progress, time.monotonic()
            self._last_line = self._started
            return
        self.close()
        if progress.state == "kept":
            self._say(f"{name}: kept from before")
            return
        seconds = time.monotonic() - self._started
        self._started = time.monotonic()
        self._spent += seconds
        self._trained += progress.n_train
        self._say(
            f"{name}: trained on {progress.n_train:,}, judged {progress.n_eval:,} in {duration(seconds)}"
            + (f"; about {duration(left)} left" if (left := self._left(progress)) >= 1 else "")
        )

    def epoch(self, progress: EpochReport) -> None:
        """An epoch has ended."""
        fold = self._fold
        where = f"round {fold.key.round}/{fold.n_rounds} fold {fold.key.fold}/{fold.n_folds}" if fold else "training"
        speed = f"{progress.images_per_second:,.0f} images/s"
        left = ""
        if fold is not None and progress.epoch > 0:
            one = (time.monotonic() - self._started) / progress.epoch * progress.n_epochs  # this whole training
            rest = one * (1 - progress.epoch / progress.n_epochs) + one * self._folds_after(fold)
            left = f", about {duration(rest)} left"
        if self.live:
            bar = self._bar = self._bar or tqdm(
                total=progress.n_epochs, file=self.stream, leave=False, bar_format="{desc} |{bar:20}|"
            )
            bar.update(progress.epoch - bar.n)
            bar.set_description_str(f"{where} epoch {progress.epoch}/{progress.n_epochs}  {speed}{left}")
        elif time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            self._say(f"{where}, epoch {progress.epoch}/{progress.n_epochs}: {speed}{left}")

    def close(self) -> None:
        """Take the moving line away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _folds_after(self, fold: FoldProgress) -> int:
        return (fold.n_rounds - fold.key.round) * fold.n_folds + fold.n_folds - fold.key.fold

    def _left(self, fold: FoldProgress) -> float:
        """Seconds: later trainings are taken to be as large as this one and as fast as those so far."""
        return self._spent / self._trained * fold.n_train * self._folds_after(fold) if self._trained else 0.0

    def _say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


class Quiet(Display):
    """Notes only."""

    def reading(self, done: int, total: int) -> None:
        """Nothing."""

    def extracting(self, done: int, total: int, images_per_second: float) -> None:
        """Nothing."""

    def fold(self, progress: FoldProgress) -> None:
        """Nothing."""

    def epoch(self, progress: EpochReport) -> None:
        """Nothing."""
