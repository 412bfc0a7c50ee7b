"""The engine of a command: begun before its work, ended after it, however that ends."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec, TypeVar

from cvcoteach._validation import InputError
from cvcoteach.engines.cluster import RayCluster
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.devices import choose_device
from cvcoteach.training.pretrained import of_working_folder

P = ParamSpec("P")
T = TypeVar("T")


def on_engine(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function with parameters `machine` and `watcher` run with the machine's cluster, if it is to have one."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs)
        machine = given.arguments.get("machine")
        if not isinstance(machine, Machine) or machine.engine == "serial" or machine.cluster is not None:
            return function(*args, **kwargs)
        note = RunProgress(given.arguments.get("watcher")).note
        with RayCluster(
            machine.ray_address,
            task_gpus=machine.task_gpus,
            threads=machine.threads,
            own_code=[name for name in machine.trusted if of_working_folder(name)],
            note=note,
        ) as cluster:
            given.arguments["machine"] = replace(machine, cluster=cluster)
            return function(*given.args, **given.kwargs)

    return run


def here(machine: Machine) -> Machine:
    """Return the machine for what this process computes itself: its own device where that asked for is elsewhere.

    Workers of the cluster are ended, so that they hold none of this machine's memory.

    Raises:
        InputError: Neither this machine nor the cluster has the device.
    """
    if machine.cluster is not None:
        machine.cluster.release()
    if machine.cluster is None or machine.device in (None, "auto", "cpu"):
        choose_device(machine.device)
        return machine
    machine.cluster.share(machine.device, 1)
    try:
        choose_device(machine.device)
    except InputError:
        machine.cluster.note(
            f"This machine has no {machine.device}, only other nodes of the Ray cluster have: what the command trains "
            "by itself is trained on the CPU."
        )
        return replace(machine, device="cpu")
    return machine
