"""The working folder may be one of data: no file in it is run, whatever it is called."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_SAFE_PATH = "PYTHONSAFEPATH"
_lock = threading.Lock()
_users: list[str | None] = []
"""The variable as it was before the first of those who need it now; empty where nobody does."""


@contextmanager
def unsearched() -> Iterator[None]:
    """Let no process of Python that is started meanwhile look for modules in the working folder.

    Python does, for `-c` and `-m`, by which workers and their trackers are started.
    """
    with _lock:
        _users.append(_users[0] if _users else os.environ.get(_SAFE_PATH))
        os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        with _lock:
            before = _users.pop()
            if not _users:
                if before is None:
                    os.environ.pop(_SAFE_PATH, None)
                else:
                    os.environ[_SAFE_PATH] = before


@contextmanager
def inside(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Be in another folder meanwhile, with what is started there; where this one is gone, stay."""
    here = None
    with suppress(OSError):
        here = os.getcwd()
        os.chdir(folder)
    try:
        yield
    finally:
        if here is not None:
            with suppress(OSError):
                os.chdir(here)


class _Elsewhere(Loader):
    """Loads a module while in the root of the file system."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        try:
            with inside(os.sep):
                self._loader.exec_module(module)
        finally:
            sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _TorchElsewhere)]


class _TorchElsewhere(MetaPathFinder):
    """Finds torch, until it is there: others only ask whether it could be found."""

    def __init__(self) -> None:
        self._asked = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch" or self._asked:
            return None
        self._asked = True  # it is asked itself
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asked = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Elsewhere(spec.loader)
        return spec


def load_torch_elsewhere() -> None:
    """Let torch be imported while in another folder, where it is not there yet.

    A library that comes with it for CUDA 13, nvidia-cusparselt-cu13 0.8.1, looks for the driver `libcuda.so.1` in the
    working folder before anywhere else.
    """
    if "torch" not in sys.modules and not any(isinstance(finder, _TorchElsewhere) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchElsewhere())
