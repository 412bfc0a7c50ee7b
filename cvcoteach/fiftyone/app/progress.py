"""Long work behind an operator, with live progress: in a thread for the App, inline for Python and delegated runs."""

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
from cvcoteach.pipeline.progress import TimeLeft

Show = Callable[[float, str], None]
"""Shows the share done, in [0, 1], and what is going on."""

_LEAST_PAUSE = 0.3  # seconds between two updates: the database or browser has other things to do
_UNTIL = {"reading images": 0.05, "computing features": 0.5}
"""The share at which a stage ends; any other lasts to the end of the work."""
_LAST = 0.99
_log = logging.getLogger(__name__)


class ProgressWatcher:
    """Follows a run (see `cvcoteach._progress.Watcher`) as one share done, which never falls, and a line of text."""

    def __init__(self, show: Show) -> None:
        """show: called with the share done, in [0, 1], and what is going on."""
        self._show = show
        self._share = 0.0
        self._stage, self._from = "", 0.0  # the stage under way, and the share at which it began
        self._left = TimeLeft()
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Keep a sentence for the user, and show it."""
        self.notes.append(sentence)
        self._show(self._share, sentence)

    def progress(self, update: Progress) -> None:
        """Show how far a stage has come, and the time that is left of it."""
        if update.stage != self._stage:
            self._stage, self._from = update.stage, self._share
        until = max(_UNTIL.get(update.stage, _LAST), self._from)
        share = self._from + (until - self._from) * min(update.done / update.total, 1.0)
        self._share = max(self._share, share)
        count = f"{update.done:,.0f} of {update.total:,.0f}"
        self._show(self._share, f"{update.stage}{self._left.after(update)}: {update.message or count}")


def in_app(ctx: Any) -> bool:
    """Return whether a browser waits for the answer: the App sends what it shows, a call from Python does not."""
    return not ctx.delegated and "query_performance" in ctx.request_params


def with_progress(
    ctx: Any, work: Callable[[ProgressWatcher], Any], finish: Callable[[Any], Iterator[Any]]
) -> Iterator[Any]:
    """Do `work`, showing its progress in `ctx`; then yield what `finish` makes of its result.

    In the App an error becomes a toast, since nobody sees an exception in a generator there. Elsewhere it is raised.
    A browser that goes away does not stop the work.
    """
    if in_app(ctx):
        try:
            result = yield from _in_a_thread(ctx, work)
            yield ctx.ops.set_progress(progress=1, label="done")
            yield from finish(result)
        except Exception as error:
            yield from report(ctx, error)
        return
    with _on_a_terminal(ctx) as show:
        result = work(ProgressWatcher(_seldom(show)))
    yield from finish(result)


def say(ctx: Any, message: str) -> None:
    """Show the closing sentence of long work outside the App."""
    ctx.set_progress(1, message)
    if not ctx.delegated and fo.config.show_progress_bars:
        print(message, file=sys.stderr)


def report(ctx: Any, error: BaseException) -> Iterator[Any]:
    """Yield an error as a toast: the sentence of an InputError, else what went wrong and where to look."""
    message = in_words(error)
    yield ctx.ops.set_progress(progress=1, label=message)
    yield ctx.ops.notify(message, variant="error")


def errors_in_words(execute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Decorate the `execute` of an operator that is not a generator: FiftyOne shows the text of its errors."""

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
    """Return the sentence of an InputError; for anything else what it is, and where to look."""
    if isinstance(error, InputError):
        return str(error)
    _log.error("the operator failed", exc_info=error)
    return f"{type(error).__name__}: {error} (the full traceback is in the log of the App or the service)"


def _in_a_thread(ctx: Any, work: Callable[[ProgressWatcher], Any]) -> Generator[Any, None, Any]:
    updates: queue.SimpleQueue[tuple[float, str] | None] = queue.SimpleQueue()
    outcome: list[Any] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work(ProgressWatcher(_seldom(lambda share, label: updates.put((share, label))))))
        except BaseException as error:  # whatever it is: the browser waits for an answer
            problem.append(error)
        finally:
            updates.put(None)

    yield ctx.ops.set_progress(progress=0, label="starting")
    thread = threading.Thread(target=run, name="cvcoteach", daemon=True)
    thread.start()
    while (step := updates.get()) is not None:
        yield ctx.ops.set_progress(progress=step[0], label=step[1])
    thread.join()
    if problem:
        if isinstance(problem[0], Exception):
            raise problem[0]
        raise RuntimeError(f"the work was stopped ({type(problem[0]).__name__})") from problem[0]
    return outcome[0]


@contextmanager
def _on_a_terminal(ctx: Any) -> Iterator[Show]:
    """Yield what shows progress outside the App: in `fiftyone delegated info`, or as a bar on a terminal."""
    if ctx.delegated or not fo.config.show_progress_bars:
        yield ctx.set_progress
        return
    with tqdm(total=100, file=sys.stderr, leave=False, bar_format="{percentage:3.0f}% |{bar:20}| {desc}") as bar:

        def show(share: float, label: str) -> None:
            bar.n = 100 * share
            bar.set_description_str(label)
            ctx.set_progress(share, label)

        yield show


def _seldom(show: Show) -> Show:
    """Show no more often than somebody can read."""
    last = 0.0

    def sometimes(share: float, label: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LEAST_PAUSE:
            last = time.monotonic()
            show(share, label)

    return sometimes
