"""What runs in the processes of Ray: trainers, with events on the way. Importing this does not import torch."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cvcoteach._validation import InputError
from cvcoteach._version import __version__
from cvcoteach.engines.placed import Placed

_REPORT_SECONDS = 0.25
"""Between two epochs that are told of, at least."""
_VERSIONED = ("torch", "numpy")


@dataclass(frozen=True)
class Seen:
    """What a node has."""

    files: tuple[tuple[int, int] | None, ...]
    """Size and time of change of each file asked for; None where there is none."""
    versions: Mapping[str, str | None]
    """Of what computes."""


def look_around(paths: Sequence[str]) -> Seen:
    """Return what the node that this runs on has."""
    files: list[tuple[int, int] | None] = []
    for path in paths:
        try:
            found = os.stat(path)
            files.append((0, 0) if os.path.isdir(path) else (found.st_size, found.st_mtime_ns))
        except OSError:
            files.append(None)
    versions: dict[str, str | None] = {"cvcoteach": __version__, "python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return Seen(tuple(files), versions)


class Event(NamedTuple):
    """What a worker tells on its way."""

    kind: str
    """"epoch", "note", "group" or "answer"."""
    position: int
    """Of the fold among those that the worker was given; -1 but of an answer."""
    value: Any
    """An epoch's report, a sentence, the placement group of workers that train together, or a fold's answer."""


class TrainingWorker:
    """An actor with one trainer, built from its public arguments."""

    def __init__(self, make: Callable[..., Any], array: Placed, arguments: Mapping[str, Any], reports: bool) -> None:
        """Take what the trainer is made of.

        Args:
            make: The trainer's class.
            array: A `Placed`, its first argument.
            arguments: Its other arguments, by name.
            reports: Whether it takes `on_epoch`.
        """
        # nothing that may fail: of an error here, the caller would only learn that the actor has died
        self._make, self._array, self._arguments, self._reports = make, array, arguments, reports
        self._trainer: Any = None
        self._plan: Any = None
        self._told: Callable[[Any], None] = lambda report: None
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()  # not told yet

    def ready(self) -> bool:
        """Return once the worker runs."""
        return True

    def plan(self) -> Any:
        """Return the trainer's compute plan, None where it has none."""
        return getattr(self._built(None), "plan", None)

    def trains_side_by_side(self, plan: Any) -> bool:
        """Return whether the trainer trains several folds at the same time, with that compute plan."""
        return hasattr(self._built(plan), "fit_predict_each")

    def fit(self, folds: Sequence[Any], plan: Any) -> Iterator[Event]:
        """Train folds; yield epochs, what the trainer notes, and each answer when it is ready.

        Raises what the trainer raises.
        """
        events: queue.Queue[Event | BaseException | None] = queue.Queue()
        last = 0.0

        def told(report: Any) -> None:
            nonlocal last
            if time.monotonic() - last > _REPORT_SECONDS:
                last = time.monotonic()
                events.put(Event("epoch", -1, report))

        def work() -> None:
            try:
                self._told = told
                for position, answer in self._answers([_writable(fold) for fold in folds], plan):
                    events.put(Event("answer", position, answer))
                events.put(None)
            except BaseException as error:  # raised again where the events are read
                events.put(error)

        threading.Thread(target=work, daemon=True).start()
        while True:
            event = events.get()
            while not self._notes.empty():  # also those of an earlier call
                yield Event("note", -1, self._notes.get())
            if event is None:
                return
            if isinstance(event, BaseException):
                raise _as_sentence(event)
            yield event

    def _answers(self, folds: Sequence[Any], plan: Any) -> Iterator[tuple[int, Any]]:
        trainer = self._built(plan)
        if len(folds) > 1 and hasattr(trainer, "fit_predict_each"):
            yield from trainer.fit_predict_each(folds)
        elif hasattr(trainer, "fit_predict_many"):
            yield from enumerate(map(np.asarray, trainer.fit_predict_many(folds)))
        else:
            for position, fold in enumerate(folds):
                yield position, trainer.fit_predict(*fold)

    def _built(self, plan: Any) -> Any:
        if self._trainer is None or plan != self._plan:
            more = {} if plan is None else {"plan": plan}
            if self._reports:
                more["on_epoch"] = lambda report: self._told(report)
            if "note" not in self._arguments and _takes_note(self._make):
                more["note"] = self._notes.put
            self._trainer = self._make(self._array.open(), **{**self._arguments, **more})
            self._plan = plan
        return self._trainer


def _writable(fold: Any) -> Any:
    """Return a fold whose arrays may be written to, as in the process that asked."""
    return type(fold)(np.array(fold[0]), np.array(fold[1]), np.array(fold[2]), fold[3])


def _takes_note(make: Callable[..., Any]) -> bool:
    """Return whether a trainer names a parameter `note`, as ours do."""
    try:
        return "note" in inspect.signature(make).parameters
    except (TypeError, ValueError):  # of a callable without a signature
        return False


def _as_sentence(error: BaseException) -> BaseException:
    if isinstance(error, ValueError) and "read-only" in str(error):
        return InputError(
            f"the trainer writes into the array that it was given ({error}), which all workers of Ray share and none "
            "may change; let it change a copy."
        )
    return error
