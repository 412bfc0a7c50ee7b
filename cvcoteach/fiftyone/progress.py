"""Long work behind an operator, with live progress: in a thread for the App, in line for Python and delegated runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from cvcoteach._checks import InputError

Tell = Callable[[float, str], None]
"""Share done, in [0, 1], and what is going on."""


def in_app(ctx: Any) -> bool:
    """Whether a browser waits for the answer: the App tells what is on its screen, a call from Python does not."""
    return not ctx.delegated and "query_performance" in ctx.request_params


def with_progress(ctx: Any, work: Callable[[Tell], Any], finish: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    """Do `work`, telling `ctx` how far it is; then yield what `finish` makes of its result.

    In the App an error becomes a toast, since an exception in a generator is seen by nobody there. Elsewhere it is
    raised. A browser that goes away does not stop the work.
    """
    if not in_app(ctx):
        result = work(lambda share, label: ctx.set_progress(share, label))
        yield from finish(result)
        return
    told: queue.SimpleQueue[tuple[float, str] | None] = queue.SimpleQueue()
    outcome: list[Any] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work(lambda share, label: told.put((share, label))))
        except BaseException as error:
            problem.append(error)
        finally:
            told.put(None)

    yield ctx.ops.set_progress(progress=0, label="starting")
    thread = threading.Thread(target=run, name="cvcoteach", daemon=True)
    thread.start()
    ended = False
    while not ended:
        steps = [told.get()]
        while not told.empty():
            steps.append(told.get())
        ended = steps[-1] is None
        shown = [step for step in steps if step is not None]
        if shown:  # the browser needs the newest only
            yield ctx.ops.set_progress(progress=shown[-1][0], label=shown[-1][1])
    thread.join()
    if problem:
        yield from report(ctx, problem[0])
        return
    yield ctx.ops.set_progress(progress=1, label="done")
    yield from finish(outcome[0])


def report(ctx: Any, error: BaseException) -> Iterator[Any]:
    """An error as a toast: the sentence of an InputError, else what went wrong and where to look."""
    message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    if not isinstance(error, InputError):
        import logging

        logging.getLogger(__name__).error("the operator failed", exc_info=error)
        message += " (the whole traceback is in the App's log)"
    yield ctx.ops.set_progress(progress=1, label=message)
    yield ctx.ops.notify(message, variant="error")
