"""Folds that several workers of a Ray cluster train together, by Ray Train: data-parallel."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import InputError, PredProbs
from cvcoteach.crossval.trainer import Fold
from cvcoteach.engines.cluster import RayCluster, Share
from cvcoteach.engines.own_ray import TEMPORARY
from cvcoteach.engines.placed import Placed
from cvcoteach.engines.remote import Event
from cvcoteach.engines.trainer import RayTrainer
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.shared_training import Crew, peer_lost

_LOOK_SECONDS = 0.5


class TrainingGang:
    """An actor with the methods of `TrainingWorker`, whose folds are trained by several workers each.

    It holds no CPU and no GPU; what it starts ends with it.
    """

    def __init__(
        self, make: Callable[..., Any], array: Placed, arguments: Mapping[str, Any], share: Share, n_workers: int
    ) -> None:
        """Take what the trainer is made of, see `TrainingWorker`; and how many workers have which share each."""
        self._made_of = (make, array, arguments)
        self._share, self._n_workers = share, n_workers

    def ready(self) -> bool:
        """Return once the actor runs."""
        return True

    def fit(self, folds: Sequence[Fold], plan: ComputePlan) -> Iterator[Event]:
        """Train folds one after the other; yield their placement group, epochs, notes and each answer when it is ready.

        Raises what the trainer raises; and a `RayError`, which says that what has no answer yet has to be trained
        again, where a worker was lost.
        """
        ray = importlib.import_module("ray")
        queues: Any = importlib.import_module("ray.util.queue")
        events = queues.Queue(actor_options={"num_cpus": 0})
        # Ray Train wants one, though nothing is kept there
        folder = tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-", dir="/tmp" if os.path.isdir("/tmp") else None)
        failed: list[BaseException] = []
        trainer = self._trainer({"made_of": self._made_of, "folds": folds, "plan": plan, "events": events}, folder)

        def work() -> None:
            try:
                trainer.fit()
            except BaseException as error:  # told below
                failed.append(error)

        running = threading.Thread(target=work, daemon=True)
        running.start()
        parts: list[dict[int, PredProbs]] = [{} for _ in folds]
        try:
            while any(len(of_fold) < self._n_workers for of_fold in parts):
                ended = not running.is_alive()
                try:
                    kind, position, rank, value = events.get(timeout=_LOOK_SECONDS)
                except queues.Empty:
                    if ended:
                        raise ray.exceptions.WorkerCrashedError from (failed[0] if failed else None)
                    continue
                if kind == "error":
                    raise value
                if kind != "answer":
                    yield Event(kind, -1, value)
                    continue
                of_fold = parts[position]
                of_fold[rank] = value
                if len(of_fold) == self._n_workers:
                    yield Event(kind, position, np.concatenate([of_fold[each] for each in sorted(of_fold)]))
            running.join()
        finally:
            events.shutdown(force=True)
            shutil.rmtree(folder, ignore_errors=True)

    def _trainer(self, config: dict[str, Any], folder: str) -> Any:
        train: Any = importlib.import_module("ray.train")
        on_gpu = self._share.device == "cuda"
        resources: dict[str, float] = {"CPU": self._share.threads}
        if on_gpu:
            resources["GPU"] = self._share.gpus
        trainers: Any = importlib.import_module("ray.train.torch")
        return trainers.TorchTrainer(
            _share_of_training,
            train_loop_config=config,
            torch_config=trainers.TorchConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=train.ScalingConfig(
                num_workers=self._n_workers, use_gpu=on_gpu, resources_per_worker=resources
            ),
            run_config=train.RunConfig(
                name="fold", storage_path=folder, failure_config=train.FailureConfig(max_failures=0)
            ),
        )


def _share_of_training(config: Mapping[str, Any]) -> None:
    """Train folds in one of their workers, and tell what there is to tell."""
    context: Any = importlib.import_module("ray.train").get_context()
    crew, events = Crew(context.get_world_rank(), context.get_world_size()), config["events"]
    make, array, arguments = config["made_of"]
    plan = config["plan"]
    if plan.device != "cpu":
        torch: Any = importlib.import_module("torch")
        device = importlib.import_module("ray.train.torch").get_device()
        torch.cuda.set_device(device)
        plan = replace(plan, device=str(device))

    def tell(kind: str, value: Any) -> None:
        if crew.rank == 0:
            events.put((kind, -1, crew.rank, value))

    try:
        tell("group", importlib.import_module("ray.util").get_current_placement_group())
        trainer = make(
            array.open(),
            **{**arguments, "device": plan.device},
            plan=plan,
            crew=crew,
            on_epoch=lambda report: tell("epoch", report),
            note=lambda sentence: tell("note", sentence),
        )
        for position, fold in enumerate(config["folds"]):
            answer = trainer.fit_predict(*(np.array(part) for part in fold[:3]), fold.seed)
            events.put(("answer", position, crew.rank, answer))
    except Exception as error:
        if not peer_lost(error):  # else Ray Train tells of the worker that is
            events.put(("error", -1, crew.rank, error))
        raise


class RaySharedTrainer(RayTrainer):
    """A `RayTrainer` of networks, each fold of which is trained by several workers together."""

    def __init__(
        self,
        cluster: RayCluster,
        make: Callable[..., Any],
        array: npt.NDArray[Any],
        arguments: Mapping[str, Any],
        *,
        workers_per_fold: int,
        **rest: Any,
    ) -> None:
        """Take what `RayTrainer` takes; `make` takes `crew` too, as `TorchTrainer` does.

        workers_per_fold: Of each fold, each with the GPUs and CPUs of a task.

        Raises:
            InputError: The cluster has too little room, or workers would share a GPU.
        """
        super().__init__(cluster, make, array, arguments, **rest)
        self._n_workers = workers_per_fold
        if 0 < self.share.gpus < 1:
            raise InputError(
                f"task_gpus is {self.share.gpus:g}, but workers that train a fold together need a GPU each; leave it "
                "out, or workers_per_fold."
            )
        room = cluster.room(self.share)
        if room < workers_per_fold:
            raise InputError(
                f"workers_per_fold is {workers_per_fold}, but the Ray cluster has room for {room} with "
                f"{self.share.threads} threads{f' and {self.share.gpus:g} GPUs' if self.share.gpus else ''} each."
            )

    @property
    def side_by_side(self) -> int:
        """How many folds are trained at the same time, at most."""
        return max(1, self.cluster.room(self.share) // self._n_workers)

    @property
    def plan(self) -> ComputePlan | None:
        """How the folds are computed; probed by one worker on as many images as it will have of a batch.

        Raises:
            InputError: The network does not take the images.
        """
        if not self._planned:
            recipe = self._arguments["recipe"]
            part = replace(recipe, batch_size=max(2, recipe.batch_of(self.n_images) // self._n_workers))
            alone = RayTrainer(
                self.cluster, self._make, self._array, {**self._arguments, "recipe": part}, device=self.share.device
            )
            self._plan, self._planned = alone.plan, True
            self.cluster.release()
        if self._plan is not None and (self._plan.captured or self._plan.side_by_side > 1):
            self._plan = replace(self._plan, captured=False, side_by_side=1)
        return self._plan

    def _group_size(self, n: int) -> int:
        return -(-n // self.side_by_side)  # Ray Train takes seconds to begin

    def _starting(self) -> Callable[[], Any]:
        assert self._placed is not None
        actor = self.cluster.ray.remote(num_cpus=0, num_gpus=0, max_restarts=0)(TrainingGang)
        placed, sent = self._placed, self._sent
        return lambda: actor.remote(self._make, placed, sent, self.share, self._n_workers)
