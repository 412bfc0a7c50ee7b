"""Folds on a Ray cluster: trainers in other processes, on other machines, that answer as one would here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import IntArray, PredProbs
from cvcoteach.crossval.trainer import Fold
from cvcoteach.engines.cluster import RayCluster
from cvcoteach.engines.placed import Placed
from cvcoteach.engines.pool import Losses, LostError, Pool, got
from cvcoteach.engines.remote import Event, TrainingWorker
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.loop import EpochReport, OnEpoch
from cvcoteach.training.recipe import Recipe


class RayTrainer:
    """A `ParallelFoldTrainer`: each fold is trained by a worker of the cluster, several at the same time.

    Workers stay from fold to fold; one that is lost is replaced, and its fold trained again. Answers equal those of
    the same trainer in this process, with the same plan and on the same kind of device.
    """

    def __init__(
        self,
        cluster: RayCluster,
        make: Callable[..., Any],
        array: npt.NDArray[Any],
        arguments: Mapping[str, Any],
        *,
        device: str | None = None,
        plan: ComputePlan | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        """Take what a trainer is made of: `make(array, **arguments)` in every worker.

        Args:
            cluster: Where workers run.
            make: The trainer's class or what else builds it, such as `TorchTrainer`.
            array: Images or features, n rows; opened by path or put into the object store once.
            arguments: By name, all that can be pickled; `device`, `threads`, `plan` and `on_epoch` are added, and
                `note` where `make` takes one: what workers note is handed to `cluster.note`, the same sentence once.
            device: "cuda" or "cpu"; None: "cuda" where the cluster has GPUs.
            plan: The compute plan of an earlier trainer; its device is taken, and on a CPU its threads, which decide
                how numbers round.
            on_epoch: Called with the state of all running folds together.

        Raises:
            InputError: No machine of the cluster has the device, or threads enough.
        """
        self.cluster, self._on_epoch = cluster, on_epoch
        self._rows: IntArray | None = None
        self._make, self._array = make, array
        if plan is None:
            self.share = cluster.share(device)
        elif plan.device == "cpu":
            self.share = cluster.share("cpu", plan.threads)
        else:  # one process may have had all CPUs for its GPU; here each GPU has its part of them
            self.share = cluster.share(plan.device)
            plan = replace(plan, threads=self.share.threads)
        self.recipe: Recipe | None = arguments.get("recipe")
        self._arguments = {**arguments, "device": self.share.device, "threads": self.share.threads}
        self._plan, self._planned = plan, plan is not None
        self._side_by_side: bool | None = None
        self._noted = set[str]()
        self._pool: Pool | None = None
        self._placed: Placed | None = None

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self._array) if self._rows is None else len(self._rows)

    @property
    def plan(self) -> ComputePlan | None:
        """How the folds are computed, all alike; probed by one worker on first use, None if the trainer has none.

        Raises:
            InputError: The network does not take the images.
        """
        if not self._planned:
            self._plan, self._planned = self._workers(1).asked(lambda worker: worker.plan.remote()), True
        return self._plan

    def on_rows(self, rows: IntArray) -> Self:
        """Return the same trainer for some of its images: image i is row `rows[i]`, (m,)."""
        self._rows = rows
        return self

    @property
    def side_by_side(self) -> int:
        """How many folds are trained at the same time, at most."""
        return self.cluster.room(self.share)

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Do what the trainer does, in a worker."""
        [(_, answer)] = self.fit_predict_each([Fold(train_idx, train_labels, eval_idx, seed)])
        return answer

    def fit_predict_each(self, folds: Sequence[Fold]) -> Iterator[tuple[int, PredProbs]]:
        """Yield the position and the answer of each fold when it is ready.

        Raises:
            InputError: What the trainer says, or that workers were lost again and again.
        """
        if not folds:
            return
        plan, size = self.plan, self._group_size(len(folds))
        pool = self._workers(min(len(folds), self.side_by_side))
        yield from self._trained(pool, folds, plan, size)

    def _trained(
        self, pool: Pool, folds: Sequence[Fold], plan: ComputePlan | None, group_size: int
    ) -> Iterator[tuple[int, PredProbs]]:
        training = _Training(pool, [self._on_rows(fold) for fold in folds], plan, self._on_epoch, self._note_once)
        try:
            yield from training.answers(group_size)
        except BaseException:
            self.cluster.release()  # also of an interruption: nothing goes on behind one's back
            raise

    def _note_once(self, sentence: str) -> None:
        """Say of all workers what each of them would say."""
        if sentence not in self._noted:
            self._noted.add(sentence)
            self.cluster.note(sentence)

    def _group_size(self, n: int) -> int:
        """Return how many of n folds a worker gets at once: one, or its part where a GPU trains them side by side."""
        if self.share.device != "cuda":
            return 1
        if self._side_by_side is None:
            plan = self.plan
            self._side_by_side = bool(self._workers(1).asked(lambda worker: worker.trains_side_by_side.remote(plan)))
        return math.ceil(n / self.side_by_side) if self._side_by_side else 1

    def _on_rows(self, fold: Fold) -> Fold:
        if self._rows is None:
            return fold
        return Fold(self._rows[fold.train_idx], fold.train_labels, self._rows[fold.eval_idx], fold.seed)

    def _workers(self, n: int) -> Pool:
        ray = self.cluster.ray
        if self._placed is None:
            self._placed, self._sent = self.cluster.placed(self._array), ray.put(self._arguments)
        if self._pool is None or self._pool.closed:
            self._pool = Pool(self.cluster, self.share, self._starting())
        self._pool.grow(n)
        return self._pool

    def _starting(self) -> Callable[[], Any]:
        """Return what starts a worker."""
        share = self.share
        actor = self.cluster.ray.remote(num_cpus=share.threads, num_gpus=share.gpus, max_restarts=0)(TrainingWorker)
        made_of = (self._make, self._placed, self._sent, self._on_epoch is not None)
        return lambda: actor.remote(*made_of)


class RayBatchTrainer(RayTrainer):
    """A `BatchFoldTrainer`: all folds of a round go to one worker, which trains them in one computation."""

    def __init__(
        self,
        cluster: RayCluster,
        make: Callable[..., Any],
        array: npt.NDArray[Any],
        arguments: Mapping[str, Any],
        **rest: Any,
    ) -> None:
        """Take what `RayTrainer` takes."""
        super().__init__(cluster, make, array, arguments, **rest)
        self.features = array

    def fit_predict_many(self, folds: Sequence[Fold]) -> list[PredProbs]:
        """Do what `fit_predict` does for all folds at once; return one answer per fold, (len(eval_idx), K)."""
        answers = dict(self._trained(self._workers(1), folds, None, len(folds)))
        return [answers[position] for position in range(len(folds))]


@dataclass(eq=False)
class _Task:
    """Folds that one worker has in hand."""

    worker: Any
    positions: list[int]
    """Of its folds among all."""
    report: EpochReport | None = None
    """The last one of what it trains now."""
    answered: set[int] = field(default_factory=set)
    """Positions that are done."""

    def unanswered(self) -> list[int]:
        return [position for position in self.positions if position not in self.answered]


class _Training:
    """The folds of a round on their way through the workers of a pool."""

    def __init__(
        self,
        pool: Pool,
        folds: Sequence[Fold],
        plan: ComputePlan | None,
        on_epoch: OnEpoch | None,
        note: Callable[[str], None],
    ) -> None:
        self._pool, self._folds, self._plan, self._on_epoch, self._note = pool, folds, plan, on_epoch, note
        self._ray = pool.cluster.ray
        self._todo = list(range(len(folds)))
        self._tasks: dict[Any, _Task] = {}  # by the stream of its events
        self._losses = Losses()

    def answers(self, group_size: int) -> Iterator[tuple[int, PredProbs]]:
        """Yield the position and the answer of each fold when it is ready.

        group_size: How many folds a worker gets at once.
        """
        while self._todo or self._tasks:
            while self._pool.idle and self._todo:
                worker = self._pool.take()
                group, self._todo = self._todo[:group_size], self._todo[group_size:]
                folds = [self._folds[i] for i in group]
                events = worker.fit.options(num_returns="streaming").remote(folds, self._plan)
                self._tasks[events] = _Task(worker, group)
            for events in self._pool.wait(self._tasks):
                task = self._tasks[events]
                try:
                    event = self._next(events)
                except LostError as error:
                    self._begin_again(events, task, error)
                    continue
                if event is None:
                    del self._tasks[events]
                    self._pool.give_back(task.worker)
                elif event.kind == "note":
                    self._note(event.value)
                elif event.kind == "group":
                    self._pool.has_reserved(task.worker, event.value)
                elif event.kind == "epoch":
                    task.report = event.value
                    if self._on_epoch is not None:
                        self._on_epoch(_together(list(self._tasks.values()), len(self._todo)))
                else:
                    position = task.positions[event.position]
                    task.answered.add(position)
                    task.report = None
                    yield position, event.value

    def _next(self, events: Any) -> Event | None:
        """Return what comes next, None at the end; the arrays in it are this process's own."""
        try:
            ref = next(events)
        except StopIteration:
            return None
        event: Event = got(self._ray, ref)
        # what Ray gives is read-only, and holds its place in the object store
        return event._replace(value=np.array(event.value)) if event.kind == "answer" else event

    def _begin_again(self, events: Any, task: _Task, error: LostError) -> None:
        del self._tasks[events]
        lost = task.unanswered()
        self._losses.add(lost, error)
        self._todo = [*lost, *self._todo]
        self._pool.lose(task.worker)


def _together(tasks: Sequence[_Task], waiting: int) -> EpochReport:
    """Return one report for all folds that run: the mean of their epochs, the sum of their speeds."""
    reports = [task.report for task in tasks if task.report is not None]
    first = reports[0]
    n_folds = sum(len(task.unanswered()) for task in tasks) + waiting
    # a worker's number is the mean over those of its folds that have no answer yet
    epochs = sum(task.report.epoch * len(task.unanswered()) for task in tasks if task.report is not None)
    loss = float(np.mean([report.loss for report in reports]))
    mean = max(1, min(first.n_epochs, round(epochs / max(1, n_folds))))
    return replace(first, epoch=mean, images_per_second=sum(each.images_per_second for each in reports), loss=loss)
