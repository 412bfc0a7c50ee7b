"""A Ray cluster, found or started: its resources, its nodes, and what a task may ask of them."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from cvcoteach._validation import InputError, counted
from cvcoteach._working_folder import inside
from cvcoteach.data.workers import cpu_count
from cvcoteach.engines.guard import MARK, Guard
from cvcoteach.engines.own_ray import TEMPORARY, SearchedHere, note_on_memory, shared_memory, show_token, sweep
from cvcoteach.engines.placed import Placed, whole_file
from cvcoteach.engines.remote import Seen, look_around
from cvcoteach.training.devices import choose_threads

_LEAST_GPUS = 0.01
_CONNECT_SECONDS = 10.0
_PROBE_SECONDS = 120.0
_QUIET = "CRITICAL"
_STORE_SHARE = 0.8
"""Share of a node's object store that one array may take."""
# nothing is reported to anybody; under `uv run` workers would get a copy of the working folder, and search it first
_ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
# processes whose fellows were killed end after so many seconds, not after a minute: there is no network to wait for
_ON_ONE_MACHINE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}


class Lent(Protocol):
    """Workers that hold resources of the cluster."""

    def close(self) -> None:
        """End them."""


@dataclass(frozen=True)
class Share:
    """What one task gets."""

    device: str
    """"cuda" or "cpu", as the task's process names it."""
    threads: int
    """CPU threads, and CPUs that Ray sets aside."""
    gpus: float
    """GPUs that Ray sets aside; below 1, several tasks share one."""


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster has."""

    id: str
    """As Ray names it."""
    host: str
    """Its address."""
    cpus: float
    """That tasks may take."""
    gpus: float
    """That tasks may take."""
    store: float
    """Bytes of its object store."""

    def holds(self, share: Share) -> int:
        """Return how many tasks of that size run here at once."""
        by_gpu = int(self.gpus / share.gpus + 1e-6) if share.gpus else int(self.cpus)
        return min(int(self.cpus / share.threads + 1e-6), by_gpu)


class RayCluster:
    """Ray, started on this machine or found at an address; what was started here ends with the context.

    A Ray that the calling program has begun itself is used, and left running.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        task_gpus: float = 1.0,
        threads: int | None = None,
        own_code: Collection[str] = (),
        note: Callable[[str], None] | None = None,
    ) -> None:
        """Take where Ray runs; a cluster at an address is asked at once, one on this machine starts when needed.

        Args:
            address: "host:port" of the head node, or "auto" for the cluster that this machine belongs to; None: that of
                the environment's RAY_ADDRESS, else Ray is started on this machine.
            task_gpus: GPUs of each task on a GPU, above 0; a fraction lets several share one.
            threads: CPU threads of each task; None: as many as this process may use.
            own_code: "package.module:function" of the working folder that tasks need, which workers then import.
            note: Called with what the user should know.

        Raises:
            InputError: Ray is not installed, or nothing answers at the address.
        """
        if not _LEAST_GPUS <= task_gpus < float("inf"):
            raise InputError(f"task_gpus is {task_gpus}; it takes a number of GPUs from {_LEAST_GPUS} on, such as 0.5.")
        if task_gpus > 1 and task_gpus != int(task_gpus):
            raise InputError(f"task_gpus is {task_gpus}; above 1 Ray gives whole GPUs only.")
        self.task_gpus, self.threads = task_gpus, threads
        self._note, self._own_code = note, own_code
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        for name, value in {**_ALWAYS, **({} if self._address else _ON_ONE_MACHINE)}.items():
            os.environ.setdefault(name, value)  # Ray reads them when it is imported
        show_token(starts_here=self._address is None)
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise InputError("engine 'ray' needs the package ray; pip install 'cvcoteach[ray]'.") from error
        self._pool: Lent | None = None
        self._temporary: Path | None = None
        self._guard: Guard | None = None
        self._started = False
        if self._address is not None and not self._ray.is_initialized():
            self._connect(self._address)

    # -- beginning and end --

    @property
    def ray(self) -> Any:
        """The module `ray`, connected.

        Raises:
            InputError: Ray could not be started.
        """
        if not self._ray.is_initialized():
            self._start()
        return self._ray

    def _silence(self) -> None:
        """Keep Ray from writing about lost workers on the standard output, which is the program's own."""
        with suppress(ImportError):
            worker: Any = importlib.import_module("ray._private.worker")
            worker._worker_logs_enabled = False

    def _connect(self, address: str) -> None:
        if address.startswith("ray://"):
            raise InputError(
                f"{address} is an address of Ray's client, through which no pixels are shared; run the command on a "
                "node of the cluster (ray job submit) with the address auto."
            )
        if address != "auto":
            _check_reachable(address)
        try:
            self._ray.init(address=address, job_config=self._job(), log_to_driver=False, logging_level=_QUIET)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"no Ray cluster answers at {address} ({lines[0].rstrip('.')}); ray start --head begins one, "
                "and one that asks for a token takes RAY_AUTH_MODE=token."
            ) from error
        self._started = True
        self._silence()

    def _start(self) -> None:
        sweep()
        # Ray leaves its session folder behind; the path must be short, for the sockets in it
        base = "/tmp" if os.path.isdir("/tmp") else None
        self._temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-", dir=base))
        self._started = True
        mark = self._temporary.name
        self._guard = Guard(mark, self._temporary)
        os.environ[MARK] = mark
        free = shared_memory()
        job = self._job()
        try:
            with inside(self._temporary):  # its workers stay there: the working folder may be one of data
                self._ray.init(
                    address="local",
                    num_cpus=max(cpu_count(), self.threads or 1),
                    include_dashboard=False,
                    job_config=job,
                    log_to_driver=False,
                    logging_level=_QUIET,
                    _temp_dir=str(self._temporary),
                )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            self.close()
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"Ray could not be started on this machine ({lines[0].rstrip('.')}).") from error
        finally:
            os.environ.pop(MARK, None)
        self._silence()
        if (sentence := note_on_memory(self.nodes()[0].store, free)) is not None:
            self.note(sentence)

    def _job(self) -> Any:
        """Return Ray's settings of this program, under which workers look for modules where this process does."""
        config: Any = importlib.import_module("ray.job_config").JobConfig()
        config._py_driver_sys_path = SearchedHere(self._own_code)
        return config

    def close(self) -> None:
        """End the workers, and Ray if it was started or connected to here."""
        self.release()
        if self._started:
            self._started = False
            self._ray.shutdown()
        if self._guard is not None:
            self._guard.end()
            self._guard = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def note(self, sentence: str) -> None:
        """Hand on something that the user should know."""
        if self._note is not None:
            self._note(sentence)

    # -- what tasks may ask for --

    def nodes(self) -> list[Node]:
        """Return the machines that are up."""
        found = []
        for node in self.ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                cpus, gpus, store = (float(has.get(name, 0)) for name in ("CPU", "GPU", "object_store_memory"))
                found.append(Node(node["NodeID"], node["NodeManagerAddress"], cpus, gpus, store))
        return found

    def share(self, device: str | None = None, threads: int | None = None) -> Share:
        """Return what each task gets: a GPU, or a part of one, where the device is one.

        Args:
            device: "cuda" or "cpu"; None: "cuda" where the cluster has GPUs.
            threads: CPU threads of a task; None: those asked for, else on a GPU its part of the CPUs, and on a CPU as
                many as this process may use.

        Raises:
            InputError: No machine of the cluster has that much, so that a task would wait for ever.
        """
        nodes = self.nodes()
        if device not in (None, "auto", "cuda", "cpu"):
            raise InputError(
                f"device is {device!r}, but with engine ray it is cuda or cpu: Ray says which GPU a task gets."
            )
        with_gpus = [node for node in nodes if node.gpus >= self.task_gpus]
        has = f"{counted(len(nodes), 'node')} with {sum(node.cpus for node in nodes):g} CPUs"
        if device == "cuda" and not with_gpus:
            most = max((node.gpus for node in nodes), default=0)
            what = "has a GPU" if not most else f"has {self.task_gpus:g} GPUs; the largest has {most:g}"
            raise InputError(
                f"device is 'cuda', but no node of the Ray cluster {what} ({has}), and a task that asks for one waits "
                "for ever; take --device cpu, or add a node that has."
            )
        if device == "cuda" or (device != "cpu" and with_gpus):
            per_gpu = max(node.cpus / node.gpus for node in with_gpus)
            own = max(1, int(per_gpu * min(1.0, self.task_gpus)))
            share = Share("cuda", threads or self.threads or own, self.task_gpus)
            nodes = with_gpus
        else:
            share = Share("cpu", threads or self.threads or choose_threads(), 0.0)
        if not any(node.holds(share) for node in nodes):
            most = max((node.cpus for node in nodes), default=0)
            raise InputError(
                f"a task with {share.threads} threads fits no node of the Ray cluster, the largest of which has "
                f"{most:g} CPUs; take --threads {max(1, int(most))}."
            )
        return share

    def devices(self) -> tuple[str, ...]:
        """Return the devices that a task may have, best first."""
        return ("cuda", "cpu") if any(node.gpus >= self.task_gpus for node in self.nodes()) else ("cpu",)

    def room(self, share: Share) -> int:
        """Return how many tasks of that size run at once on the whole cluster, at least 1."""
        return max(1, sum(node.holds(share) for node in self.nodes()))

    def lend(self, pool: Lent) -> None:
        """Let this pool have the cluster's resources; what another one still holds is released."""
        if self._pool is not pool:
            self.release()
            self._pool = pool

    def release(self) -> None:
        """End the workers that hold resources."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.close()

    # -- arrays --

    def placed(self, array: Any) -> Placed:
        """Make an array available to all workers: by its path where every node sees the file, else in the object store.

        Raises:
            InputError: It is neither on storage that all nodes see, nor does it fit the object stores.
        """
        file = whole_file(array)
        if file is not None and all(self.see([file.path])):
            return file
        nodes = self.nodes()
        least = min(node.store for node in nodes)
        if array.nbytes > _STORE_SHARE * least:
            raise InputError(
                f"{array.nbytes / 1e9:.1f} GB of {array.dtype} do not fit the object store of every node, the smallest "
                f"of which has {least / 1e9:.1f} GB; put them on storage that all nodes see (--cache-dir, --features), "
                "or start Ray with a larger --object-store-memory."
            )
        return Placed(ref=self.ray.put(array))

    def see(self, paths: list[str]) -> list[bool]:
        """Return which of these files every node of the cluster sees as this machine does.

        Raises:
            InputError: A node has other versions of what computes.
        """
        nodes = self.nodes()
        if len({node.host for node in nodes}) == 1 and nodes[0].host in _own_addresses(self.ray):
            return [True] * len(paths)
        here = look_around(paths)
        strategy = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        task = self.ray.remote(num_cpus=0, max_retries=3)(look_around)
        asked = [task.options(scheduling_strategy=strategy(node.id, soft=False)).remote(paths) for node in nodes]
        try:
            found: list[Seen] = self.ray.get(asked, timeout=_PROBE_SECONDS)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"a node of the Ray cluster cannot run cvcoteach ({lines[-1].rstrip('.')}).") from error
        for node, seen in zip(nodes, found, strict=True):
            for package, version in here.versions.items():
                if seen.versions.get(package) != version:
                    raise InputError(
                        f"node {node.host} has {package} {seen.versions.get(package)}, this machine {version}; results "
                        "repeat only with the same version on all nodes."
                    )
        return [
            all(seen.files[i] == here.files[i] and here.files[i] is not None for seen in found)
            for i in range(len(paths))
        ]


def _own_addresses(ray: Any) -> set[str]:
    return {"127.0.0.1", str(ray.util.get_node_ip_address())}


def _check_reachable(address: str) -> None:
    """Raise InputError unless something listens there; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"the Ray address is {address!r}; it takes host:port of the head node, or auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error}); ray start --head begins one, by default on port 6379."
        ) from error
