"""Trainers that misbehave, imported by the workers of Ray."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvcoteach._validation import FloatArray, InputError, IntArray, PredProbs
from cvcoteach.crossval.trainer import Fold
from tests.fakes import NearestMeans


@dataclass(frozen=True)
class Report:
    """As `EpochReport`, without torch."""

    epoch: int
    n_epochs: int = 2
    images_per_second: float = 100.0
    loss: float = 0.5


@dataclass
class Means(NearestMeans):
    """Nearest means, with what the engine adds to every trainer."""

    device: str = "cpu"
    threads: int = 1
    on_epoch: Callable[[Any], None] | None = None


@dataclass
class Together(Means):
    """Waits in every fold until another one is trained too, in a process of its own."""

    folder: str = ""
    pause: float = 0.0

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """As nearest means do."""
        (Path(self.folder) / f"{seed}-{os.getpid()}").touch()
        until = time.monotonic() + 30
        while len({name.rpartition("-")[2] for name in os.listdir(self.folder)}) < 2:
            assert time.monotonic() < until, "no other fold was trained at the same time"
            time.sleep(0.02)
        time.sleep(self.pause)
        return super().fit_predict(train_idx, train_labels, eval_idx, seed)


@dataclass
class Killed(Means):
    """Is killed in each fold, so many times."""

    folder: str = ""
    times: int = 1

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """As nearest means do, if it lives."""
        for attempt in range(self.times):
            mark = Path(self.folder) / f"{seed}-{attempt}"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().fit_predict(train_idx, train_labels, eval_idx, seed)


@dataclass
class Failing(Means):
    """Raises, or writes where it must not."""

    error: str = "sentence"

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Nothing."""
        if self.error == "sentence":
            raise InputError("the loss is nan; take a smaller one.")
        if self.error == "key":
            raise KeyError("of its own")
        self.features[0] = 0
        raise AssertionError


@dataclass
class Epochs(Means):
    """Reports two epochs, and writes into the indices that it gets, as a user's trainer may."""

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """As nearest means do."""
        answer = super().fit_predict(train_idx, train_labels, eval_idx, seed)
        train_idx[:] = 0
        for epoch in (1, 2):
            time.sleep(0.3)
            assert self.on_epoch is not None
            self.on_epoch(Report(epoch))
        return answer


@dataclass
class EpochsTogether(Means):
    """Reports two epochs of all folds together."""

    def fit_predict_many(self, folds: Sequence[Fold]) -> list[PredProbs]:
        """As nearest means do."""
        for epoch in (1, 2):
            time.sleep(0.3)
            assert self.on_epoch is not None
            self.on_epoch(Report(epoch))
        return [self.fit_predict(*fold) for fold in folds]


@dataclass
class KilledWhenAsked(Means):
    """Is killed the first time that it is asked whether it trains folds side by side."""

    folder: str = ""

    @property
    def fit_predict_each(self) -> Any:
        """Nothing."""
        mark = Path(self.folder) / "asked"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        raise AttributeError


@dataclass
class Noting(Means):
    """Has something to say when it is made, and in each fold."""

    note: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.note("made")

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """As nearest means do."""
        self.note("the memory is full")
        return super().fit_predict(train_idx, train_labels, eval_idx, seed)


class Environment:
    """Answers what the process that it is in may use."""

    def __init__(self, features: FloatArray, device: str, threads: int) -> None:
        """Take anything."""

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Two columns: the share of one thread in those it has, and the rest."""
        one = 1 / float(os.environ["OMP_NUM_THREADS"])
        return np.tile(np.array([one, 1 - one], np.float32), (len(eval_idx), 1))


class Held:
    """An actor that holds what it was given, as other programs on a cluster do."""

    def here(self) -> bool:
        """Return once it runs."""
        return True
