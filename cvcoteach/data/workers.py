"""Work in other processes, which end when this one does."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable
from functools import cache
from typing import TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from cvcoteach._validation import InputError
from cvcoteach._working_folder import unsearched

Result = TypeVar("Result")

_IDLE_SECONDS = 20
"""Seconds without work after which a worker exits."""


def cpu_count() -> int:
    """Return how many CPUs this process may use, by affinity and by the quota of its container."""
    return int(joblib.cpu_count())


def in_processes(
    function: Callable[..., Result], tasks: Iterable[tuple[object, ...]], workers: int
) -> Generator[Result]:
    """Yield function(*task) for each task, in the order in which they end; in this process if `workers` is 1.

    When the generator is closed no worker is at work any more.

    Raises what the function raises, and InputError where a worker is killed.
    """
    if workers == 1:
        for task in tasks:
            yield function(*task)
        return
    with unsearched():
        yield from _in_workers(function, tasks, workers)


def _in_workers(
    function: Callable[..., Result], tasks: Iterable[tuple[object, ...]], workers: int
) -> Generator[Result]:
    # started afresh, not forked: a fork of a process with threads (torch, BLAS) may hang
    parallel = joblib.Parallel(
        workers,
        backend="loky",
        return_as="generator_unordered",
        pre_dispatch="2*n_jobs",
        batch_size=1,
        idle_worker_timeout=_IDLE_SECONDS,
    )
    results = parallel(joblib.delayed(_call)(os.getpid(), function, task) for task in tasks)
    try:
        for result in results:  # noqa: UP028 - `yield from` would close the inner generator before `finally`
            yield result
    except TerminatedWorkerError:
        raise InputError(
            f"one of {workers} worker processes was killed, most likely for lack of memory; with fewer workers "
            "the same command resumes from here."
        ) from None
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that results were left; whoever stops early wants none
            results.close()


def _call(parent: int, function: Callable[..., Result], task: tuple[object, ...]) -> Result:
    _end_with(parent)
    return function(*task)


@cache  # once a process
def _end_with(parent: int) -> None:
    """End this process when its parent is gone: one killed would else leave workers that write on behind its back."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    if os.getppid() == parent:
        threading.Thread(target=watch, daemon=True).start()
