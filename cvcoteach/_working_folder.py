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
_places: list[list[str | os.PathLike[str]]] = []
"""Where this process was before anybody was inside of another folder, then those, the last one last; empty outside."""
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
    """Be in another folder meanwhile, with what is started there; where this one is gone, stay.

    The whole process is: where several threads are inside of some, it is back once the last of them has left.
    """
    place = [folder]  # its own, also where another is inside of the same
    with _lock:
        if not _places:
            with suppress(OSError):
                _places.append([os.getcwd()])
        if _places:
            _places.append(place)
            _go(folder)
    try:
        yield
    finally:
        with _lock:
            if any(each is place for each in _places):
                _places[:] = [each for each in _places if each is not place]
                _go(_places[-1][0])
            if len(_places) == 1:
                _places.clear()


def _go(folder: str | os.PathLike[str]) -> None:
    with suppress(OSError):
        os.chdir(folder)


class _Loader(Loader):
    """Loads a module while in the root of the file system."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with inside(os.sep):
            self._loader.exec_module(module)


class _Finder(MetaPathFinder):
    """Finds some modules, for whoever imports them and whoever only asks whether they could be found."""

    def __init__(self) -> None:
        self.modules = set[str]()
        self._asked = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.modules or getattr(self._asked, "now", False):
            return None
        self._asked.now = True  # it is asked itself
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asked.now = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def import_elsewhere(*modules: str) -> None:
    """Let modules that follow files of the working folder be imported while in another, where they are not there yet.

    torch: a library that comes with it for CUDA 13, nvidia-cusparselt-cu13 0.8.1, looks for the driver `libcuda.so.1`
    in the working folder before anywhere else. matplotlib: it reads `matplotlibrc` there.
    """
    finder = next((each for each in sys.meta_path if isinstance(each, _Finder)), None)
    if finder is None:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    finder.modules.update(modules)
