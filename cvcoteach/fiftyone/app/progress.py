"""Long work behind an operator, with live progress: in a thread for the App, in line for Python and delegated runs."""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import fiftyone as fo
from tqdm import tqdm

from cvcoteach._progress import Progress
from cvcoteach._validation import InputError
from cvcoteach.fiftyone.work.tell import Tell

_ROOM = {"reading images": (0.0, 0.05), "computing features": (0.05, 0.5)}  # share of the whole
_LEAST_PAUSE = 0.3  # seconds between two tellings: the database or browser has other things to do
_log = logging.getLogger(__name__)


class ProgressWatcher:
    """A `cvcoteach.pipeline.settings.Watcher` that makes of what it is told a share done and a line of text.

    The share never falls: of the trainings, those of INCV are given 60 % and those of the final scoring the rest.
    """

    def __init__(self, tell: Tell) -> None:
        """tell: called with the share done, in [0, 1], and what is going on."""
        self._tell = tell
        self._share = 0.0
        self._base: float | None = None
        self._incv: tuple[int, int] | None = None  # rounds and folds, as first told
        self._first_pass: int | None = None  # of the final scoring: its round
        self._from, self._step = 0.0, 0.0  # of the training under way
        self._where = ""
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Kept, and shown."""
        self.notes.append(sentence)
        self._say(self._share, sentence)

    def progress(self, update: Progress) -> None:
        """Turn how far a stage has come into the share done."""
        if update.stage not in _ROOM and self._base is None:
            self._base = max(self._share, 0.05)
        begin, end = _ROOM.get(update.stage, (self._base or 0.0, 0.99))
        self._say(begin + (end - begin) * update.done / update.total, f"{update.stage}: {update.message}")

    def reading(self, done: int, total: int) -> None:
        """Images decoded so far."""
        self._say(0.05 * done / max(total, 1), f"reading images: {done:,} of {total:,}")

    def extracting(self, done: int, total: int, images_per_second: float) -> None:
        """Features computed so far."""
        speed = f" ({images_per_second:,.0f} images/s)"
        self._say(0.05 + 0.45 * done / max(total, 1), f"computing features: {done:,} of {total:,}{speed}")

    def fold(self, progress: Any) -> None:
        """A training begins or has ended."""
        if self._base is None:
            self._base, self._incv = max(self._share, 0.05), (progress.n_rounds, progress.n_folds)
        room = 0.99 - self._base
        number = progress.key.fold - (progress.state == "start")
        if self._incv == (progress.n_rounds, progress.n_folds):
            number += (progress.key.round - 1) * progress.n_folds
            begin, part, of = self._base, 0.6 * room, progress.n_rounds * progress.n_folds
            self._where = f"round {progress.key.round} of {progress.n_rounds}, fold {progress.key.fold}"
            self._where += f" of {progress.n_folds}"
        else:
            self._first_pass = progress.key.round if self._first_pass is None else self._first_pass
            done, passes = progress.key.round - self._first_pass, progress.n_rounds - self._first_pass + 1
            number += done * progress.n_folds
            begin, part, of = self._base + 0.6 * room, 0.4 * room, passes * progress.n_folds
            which = f"pass {done + 1} of {passes}, " if passes > 1 else ""
            self._where = f"final scoring, {which}fold {progress.key.fold} of {progress.n_folds}"
        self._from, self._step = begin + part * number / of, part / of
        self._say(self._from, self._where + (": kept from before" if progress.state == "kept" else ""))

    def epoch(self, progress: Any) -> None:
        """An epoch has ended."""
        share = self._from + self._step * progress.epoch / progress.n_epochs
        self._say(share, f"{self._where}: epoch {progress.epoch} of {progress.n_epochs}")

    def _say(self, share: float, label: str) -> None:
        self._share = max(self._share, share)
        self._tell(self._share, label)


def in_app(ctx: Any) -> bool:
    """Whether a browser waits for the answer: the App tells what is on its screen, a call from Python does not."""
    return not ctx.delegated and "query_performance" in ctx.request_params


def with_progress(ctx: Any, work: Callable[[Tell], Any], finish: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    """Do `work`, telling `ctx` how far it is; then yield what `finish` makes of its result.

    In the App an error becomes a toast, since an exception in a generator is seen by nobody there. Elsewhere it is
    raised. A browser that goes away does not stop the work.
    """
    if in_app(ctx):
        try:
            result = yield from _in_a_thread(ctx, work)
            yield ctx.ops.set_progress(progress=1, label="done")
            yield from finish(result)
        except Exception as error:
            yield from report(ctx, error)
        return
    with _on_a_terminal(ctx) as tell:
        result = work(_seldom(tell))
    yield from finish(result)


def say(ctx: Any, message: str) -> None:
    """The last word of long work without an App."""
    ctx.set_progress(1, message)
    if not ctx.delegated and fo.config.show_progress_bars:
        print(message, file=sys.stderr)


def report(ctx: Any, error: BaseException) -> Iterator[Any]:
    """An error as a toast: the sentence of an InputError, else what went wrong and where to look."""
    message = in_words(error)
    yield ctx.ops.set_progress(progress=1, label=message)
    yield ctx.ops.notify(message, variant="error")


def told_in_words(execute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Decorates the `execute` of an operator that is no generator: FiftyOne shows its error's text, so it gets one."""

    @wraps(execute)
    def wrapped(self: Any, ctx: Any) -> Any:
        try:
            return execute(self, ctx)
        except InputError:
            raise
        except Exception as error:
            raise RuntimeError(in_words(error)) from error

    return wrapped


def in_words(error: BaseException) -> str:
    """The sentence of an InputError; of anything else what it is, and where to look."""
    if isinstance(error, InputError):
        return str(error)
    _log.error("the operator failed", exc_info=error)
    return f"{type(error).__name__}: {error} (the whole traceback is in the log of the App or the service)"


def _in_a_thread(ctx: Any, work: Callable[[Tell], Any]) -> Generator[Any, None, Any]:
    told: queue.SimpleQueue[tuple[float, str] | None] = queue.SimpleQueue()
    outcome: list[Any] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work(_seldom(lambda share, label: told.put((share, label)))))
        except BaseException as error:  # whatever it is: the browser waits for a word
            problem.append(error)
        finally:
            told.put(None)

    yield ctx.ops.set_progress(progress=0, label="starting")
    thread = threading.Thread(target=run, name="cvcoteach", daemon=True)
    thread.start()
    while (step := told.get()) is not None:
        yield ctx.ops.set_progress(progress=step[0], label=step[1])
    thread.join()
    if problem:
        if isinstance(problem[0], Exception):
            raise problem[0]
        raise RuntimeError(f"the work was stopped ({type(problem[0]).__name__})") from problem[0]
    return outcome[0]


@contextmanager
def _on_a_terminal(ctx: Any) -> Iterator[Tell]:
    """Delegated: what `fiftyone delegated info` shows. From Python: a line on a terminal, as FiftyOne's own bars."""
    if ctx.delegated or not fo.config.show_progress_bars:
        yield ctx.set_progress
        return
    with tqdm(total=100, file=sys.stderr, leave=False, bar_format="{percentage:3.0f}% |{bar:20}| {desc}") as bar:

        def tell(share: float, label: str) -> None:
            bar.n = 100 * share
            bar.set_description_str(label)
            ctx.set_progress(share, label)

        yield tell


def _seldom(tell: Tell) -> Tell:
    """Not more often than somebody can read."""
    last = 0.0

    def sometimes(share: float, label: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LEAST_PAUSE:
            last = time.monotonic()
            tell(share, label)

    return sometimes
