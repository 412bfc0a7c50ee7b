"""Images decoded, and features computed, in pieces on a Ray cluster."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from cvcoteach.data.decode import Target
from cvcoteach.data.workers import in_processes
from cvcoteach.engines.cluster import RayCluster
from cvcoteach.engines.extracting import ExtractingWorker, Sent
from cvcoteach.engines.packed import run_packed
from cvcoteach.engines.pool import Losses, LostError, Pool, got
from cvcoteach.training.backbones import Backbone
from cvcoteach.training.extraction import Elsewhere

Result = TypeVar("Result")

_AHEAD = 2
"""Pieces handed out per CPU or worker before the first is back."""
_BATCHES = 4
"""Batches in a piece of features."""
_CANCEL_SECONDS = 30.0


class RayTasks:
    """`in_processes` on a cluster: files are decoded wherever they and the cache can be seen."""

    def __init__(self, cluster: RayCluster) -> None:
        """Take where tasks run."""
        self._cluster = cluster

    def __call__(
        self, function: Callable[..., Result], tasks: Iterable[tuple[object, ...]], workers: int
    ) -> Generator[Result]:
        """Yield function(*task) for each task, in the order in which they end; in this process if `workers` is 1.

        When the generator is closed, no task is at work any more.

        Raises what the function raises, and InputError where workers are lost again and again.
        """
        tasks = [tuple(map(_absolute, task)) for task in tasks]  # workers are in other folders
        if workers == 1 or not self._are_seen(tasks):
            yield from in_processes(function, tasks, workers)
            return
        ray = self._cluster.ray
        self._cluster.release()
        remote = ray.remote(num_cpus=1, max_retries=0)(run_packed)
        at_once = _AHEAD * max(1, int(sum(node.cpus for node in self._cluster.nodes())))
        todo, losses = list(enumerate(tasks))[::-1], Losses()
        pending: dict[Any, tuple[int, tuple[object, ...]]] = {}
        try:
            while todo or pending:
                while todo and len(pending) < at_once:
                    number, task = todo.pop()
                    pending[remote.remote(pickle.dumps((function, task)))] = number, task
                ready, _ = ray.wait([*pending], num_returns=1, timeout=1.0)
                for ref in ready:
                    number, task = pending.pop(ref)
                    try:
                        result = got(ray, ref)
                    except LostError as error:
                        losses.add([number], error)
                        todo.append((number, task))
                        continue
                    yield pickle.loads(result)
        finally:
            for ref in pending:
                ray.cancel(ref, force=True)
            if pending:
                ray.wait([*pending], num_returns=len(pending), timeout=_CANCEL_SECONDS)

    def _are_seen(self, tasks: list[tuple[object, ...]]) -> bool:
        """Return whether every node sees the first file and what is written to; else this machine decodes alone."""
        paths: list[str] = []
        for argument in tasks[0] if tasks else ():
            if isinstance(argument, Target):
                paths.append(str(argument.file))
            elif isinstance(argument, list) and argument and isinstance(argument[0], str):
                paths.append(argument[0])
        if all(self._cluster.see(paths)):
            return True
        self._cluster.note(
            "Images are read on this machine alone: other nodes of the Ray cluster do not see them, or not the cache; "
            "storage that all nodes share would let them help."
        )
        return False


def _absolute(argument: object) -> object:
    """Return a list of files, or a target, by absolute paths; anything else as it is."""
    if isinstance(argument, Target):
        return argument._replace(file=argument.file.absolute())
    if isinstance(argument, list) and argument and isinstance(argument[0], str):
        return [os.path.abspath(file) for file in argument]
    return argument


def features_on(
    cluster: RayCluster, backbone: Backbone, pixels: npt.NDArray[np.uint8], device: str | None
) -> Elsewhere:
    """Return what computes the features of stretches of images, piece by piece and in order, on a cluster.

    Its workers stay until the last of them is computed.

    Args:
        cluster: Where workers run.
        backbone: The network that computes them.
        pixels: (n, H, W, C) uint8.
        device: "cuda" or "cpu"; None: "cuda" where the cluster has GPUs.

    Raises:
        InputError: No machine of the cluster has the device.
    """
    share = cluster.share(device)

    def computed(stretches: Sequence[range]) -> Generator[npt.NDArray[np.float16]]:
        if not stretches:
            return
        ray = cluster.ray
        actor = ray.remote(num_cpus=share.threads, num_gpus=share.gpus, max_restarts=0)(ExtractingWorker)
        made_of = (ray.put(Sent.of(backbone)), cluster.placed(pixels), share.device, share.threads)
        pool = Pool(cluster, share, lambda: actor.remote(*made_of))
        try:
            for stretch in stretches:
                yield from _in_order(pool, stretch.start, stretch.stop)
        finally:
            cluster.release()  # whatever comes next has the memory of the GPUs

    return computed


def _in_order(pool: Pool, start: int, stop: int) -> Iterator[npt.NDArray[np.float16]]:
    ray, room = pool.cluster.ray, pool.cluster.room(pool.share)
    step = _BATCHES * int(pool.asked(lambda worker: worker.ready.remote()))
    starts = range(start, stop, step)
    pool.grow(min(room, len(starts)))
    todo, losses = list(starts)[::-1], Losses()
    running: dict[Any, tuple[Any, int]] = {}
    done: dict[int, npt.NDArray[np.float16]] = {}
    for wanted in starts:
        while wanted not in done:
            while todo and pool.idle and todo[-1] < wanted + _AHEAD * room * step:
                worker, at = pool.take(), todo.pop()
                running[worker.features.remote(at, min(at + step, stop))] = worker, at
            for ref in pool.wait(running):
                worker, at = running.pop(ref)
                try:
                    done[at] = np.array(got(ray, ref))
                    pool.give_back(worker)
                except LostError as error:
                    losses.add([at], error)
                    todo = sorted([*todo, at], reverse=True)
                    pool.lose(worker)
        yield done.pop(wanted)
