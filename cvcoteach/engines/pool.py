"""Workers on a Ray cluster that stay from one piece of work to the next, and are replaced when they are lost."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from cvcoteach._validation import InputError, counted
from cvcoteach.engines.cluster import RayCluster, Share

_MOST_LOSSES = 3
"""Workers that may be lost over one piece of work."""
_LOST = "A worker of Ray was lost; another one takes up its work."
_PATIENCE = 20.0
"""Seconds without a worker after which the user is told what is waited for."""


class LostError(Exception):
    """A worker is gone, or what it had answered."""

    def sentence(self) -> InputError:
        """Return what to tell the user."""
        said = str(self)
        why = "for lack of memory" if "OOM" in said or "memory" in said.lower() else "its process ended"
        return InputError(
            f"a worker of Ray was lost {_MOST_LOSSES + 1} times over the same work ({why}); what is finished is kept, "
            "and the same command resumes from there; fewer tasks at a time need less memory (--threads, --task-gpus)."
        )


def got(ray: Any, ref: Any) -> Any:
    """Return the value behind a reference. Raises what the worker raised, and LostError where it is gone."""
    errors = ray.exceptions
    try:
        return ray.get(ref)
    except errors.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, errors.RayError) and not isinstance(cause, errors.RayTaskError):
            raise LostError(str(cause)) from error
        raise (cause if isinstance(cause, BaseException) else error) from None
    except errors.RayError as error:
        raise LostError(str(error)) from error


class Losses:
    """Counts the workers that were lost over each piece of work."""

    def __init__(self) -> None:
        self._times: dict[Hashable, int] = {}

    def add(self, works: Iterable[Hashable], error: LostError) -> None:
        """Count one more for each. Raises InputError where it is one too many."""
        for work in works:
            self._times[work] = self._times.get(work, 0) + 1
            if self._times[work] > _MOST_LOSSES:
                raise error.sentence() from error


class Pool:
    """Actors of one kind, each with the same share of the cluster."""

    def __init__(self, cluster: RayCluster, share: Share, start: Callable[[], Any]) -> None:
        """Take where and how large workers are, and what starts one: an actor with a method `ready`."""
        self.cluster, self.share, self._start = cluster, share, start
        self.starting: dict[Any, Any] = {}
        """Workers that do not run yet, by the reference that says so."""
        self.idle: list[Any] = []
        """Workers that wait for work."""
        self.busy: list[Any] = []
        """Workers that have some."""
        self.closed = False
        self._groups: dict[Any, Any] = {}  # by worker
        self._target = 1
        self._losses, self._waiting_since, self._told = Losses(), time.monotonic(), False

    def grow(self, target: int | None = None) -> None:
        """Start workers until there are as many; None: as many as before."""
        self.cluster.lend(self)
        self._target = self._target if target is None else target
        while len(self.starting) + len(self.idle) + len(self.busy) < self._target:
            worker = self._start()
            self.starting[worker.ready.remote()] = worker

    def close(self) -> None:
        """End all workers at once."""
        self.closed = True
        for worker in (*self.starting.values(), *self.idle, *self.busy):
            self._end(worker)
        self.starting, self.idle, self.busy = {}, [], []

    def take(self) -> Any:
        """Return a worker that waits for work, which is busy then."""
        worker = self.idle.pop()
        self.busy.append(worker)
        return worker

    def give_back(self, worker: Any) -> None:
        """Let a worker that was busy wait for work."""
        self.busy.remove(worker)
        self.idle.append(worker)

    def lose(self, worker: Any) -> None:
        """Forget a worker that is gone, and start another in its place."""
        self.busy.remove(worker)
        self._end(worker)
        self.cluster.note(_LOST)
        self.grow()

    def has_reserved(self, worker: Any, group: Any) -> None:
        """Remember the placement group that a worker reserved: the newest one goes with it.

        Ray keeps a group that an actor made until the whole job ends, and the helper of Ray Train that should remove
        it needs a dashboard (Ray 2.60.0).
        """
        self._groups[worker] = group

    def _end(self, worker: Any) -> None:
        self.cluster.ray.kill(worker, no_restart=True)
        group = self._groups.pop(worker, None)
        if group is not None:
            importlib.import_module("ray.util").remove_placement_group(group)

    def wait(self, refs: Iterable[Any]) -> list[Any]:
        """Return those of `refs` that are ready, after a second none; workers that begin to run are idle then.

        Raises:
            InputError: Workers are lost before they run, again and again, or say what does not fit.
        """
        ray = self.cluster.ray
        refs = list(refs)
        ready, _ = ray.wait([*refs, *self.starting], num_returns=1, timeout=1.0, fetch_local=False)
        for ref in ready:
            if ref not in self.starting:
                continue
            worker = self.starting.pop(ref)
            try:
                got(ray, ref)
                self.idle.append(worker)
            except LostError as error:
                self._losses.add(["start"], error)
                self.cluster.note(_LOST)
                self.grow()
        self._tell_of_waiting()
        return [ref for ref in ready if ref in refs]

    def any_worker(self) -> Any:
        """Return a worker that waits for work, once there is one; it is busy then."""
        self.grow()
        while not self.idle:
            self.wait([])
        return self.take()

    def asked(self, question: Callable[[Any], Any]) -> Any:
        """Return what some worker answers; one that is lost is replaced, and the next one asked.

        Args:
            question: A worker -> the reference to its answer.

        Raises:
            InputError: What the worker says, or that workers were lost again and again.
        """
        losses = Losses()
        try:
            while True:
                worker = self.any_worker()
                try:
                    answer = got(self.cluster.ray, question(worker))
                except LostError as error:
                    losses.add(["question"], error)
                    self.lose(worker)
                    continue
                self.give_back(worker)
                return answer
        except BaseException:
            self.cluster.release()  # a worker that has not answered is not waited for a second time
            raise

    def _tell_of_waiting(self) -> None:
        if self.idle or self.busy:
            self._waiting_since = time.monotonic()
        elif not self._told and time.monotonic() - self._waiting_since > _PATIENCE and not self._has_room():
            self._told = True
            wanted = counted(self.share.threads, "CPU")
            wanted += f" and {self.share.gpus:g} of a GPU" if self.share.gpus else ""
            self.cluster.note(f"Waiting for Ray to give a task {wanted}, which others use at the moment.")

    def _has_room(self) -> bool:
        free = self.cluster.ray.available_resources()
        return bool(free.get("CPU", 0) >= self.share.threads and free.get("GPU", 0) >= self.share.gpus)
