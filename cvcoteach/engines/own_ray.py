"""What keeps a Ray that is started here to itself: its token, its folder, and where its workers look for modules."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cvcoteach._files import in_bytes
from cvcoteach.engines.own_code import told

TEMPORARY = "cvcray-"
"""Begins the names of temporary folders, before the number of the process that made them; see `sweep`."""
_AUTHENTICATION = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
_OWN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class SearchedHere(list[str]):
    """Folders that workers search for modules, before any others.

    Ray adds the working folder, though a command does not search it: a file in a folder of data would be run for a
    module that it is called like.
    """

    def __init__(self, own_code: Collection[str] = ()) -> None:
        """Begin with the working folder where this process searches it, and what it imports from there by name."""
        super().__init__()
        self._here = set()
        with suppress(OSError):  # a working folder that is gone
            self._here = {os.path.realpath(folder) for folder in sys.path}  # '' is the working folder
            here = os.getcwd()
            if os.path.realpath(here) in self._here:
                self.append(here)
            self += told(own_code, here)

    def extend(self, folders: Iterable[str]) -> None:
        """Add those that this process searches, too."""
        super().extend(folder for folder in folders if os.path.realpath(folder) in self._here)


def show_token(*, starts_here: bool) -> None:
    """Let Ray ask for a token: one of its own where it starts here, since its ports are open to the network."""
    ray: Any = sys.modules.get("ray")
    if not starts_here and os.environ.get("RAY_AUTH_TOKEN") == _OWN["RAY_AUTH_TOKEN"]:
        for name in _OWN:
            os.environ.pop(name, None)
    if _AUTHENTICATION & os.environ.keys() or (ray is not None and ray.is_initialized()):
        return
    if starts_here:
        os.environ |= _OWN
    elif _has_token():
        # ray start asks for the token of ~/.ray once there is one, but ray.init by itself does not show it
        os.environ["RAY_AUTH_MODE"] = "token"


def shared_memory() -> float:
    """Return how many bytes are free in /dev/shm; infinitely many where there is none, and Ray does not ask for it."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return math.inf


def note_on_memory(store: float, free: float) -> str | None:
    """Return a sentence where an object store of that many bytes lies on disk, since /dev/shm has fewer free."""
    if free >= store:
        return None
    return (
        f"/dev/shm has {in_bytes(free)} free, less than the {in_bytes(store)} that Ray sets aside for arrays, which it "
        f"keeps on disk instead; that is slower. In Docker, --shm-size={math.ceil(store / 1e9)}g gives more."
    )


def sweep() -> None:
    """Remove folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir() if not os.path.isdir("/tmp") else "/tmp").glob(f"{TEMPORARY}*"):
        owner = folder.name.removeprefix(TEMPORARY).partition("-")[0]
        with suppress(OSError):
            if owner.isdecimal() and folder.stat().st_uid == os.getuid() and not _is_alive(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _has_token() -> bool:
    """Return whether Ray keeps a token for this user."""
    try:
        return (Path.home() / ".ray" / "auth_token").is_file()
    except RuntimeError:  # no home
        return False
