"""Ends what is left of a Ray that was started here, once the program that started it is gone, however it ended.

A process of its own, which needs nothing but Python: it reads its standard input, a pipe that closes with the program.
Ray's own agents would outlive a killed program by more than a minute.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

MARK = "CVCOTEACH_RAY_STARTED_BY"
"""Environment variable that all processes of a Ray inherit."""
_END_SECONDS = 10.0


class Guard:
    """A guard of Ray's processes, which have the mark in their environment or files of the folder open."""

    def __init__(self, mark: str, folder: Path) -> None:
        """Start it. folder: Ray's own, removed at the end."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, mark, str(folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end(self) -> None:
        """End what is left, and the guard."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)


def marked(mark: str, folder: Path, owner: int) -> list[int]:
    """Return the processes of this user whose environment has the mark; none where the system does not tell.

    Ray's agents write their name over their environment; those are known by their log, a file of the folder. The
    `owner`, the program that started Ray, is none of them, nor is another program that logs there.
    """
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(entry.name) in (os.getpid(), owner):
                continue
            environment = (entry / "environ").read_bytes()
            overwritten = b"=" not in environment
            if wanted in environment.split(b"\0") or (overwritten and _has_open(entry, f"{folder}{os.sep}")):
                found.append(int(entry.name))
    return found


def _has_open(process: Path, prefix: str) -> bool:
    for file in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if os.readlink(file).startswith(prefix):
                return True
    return False


def main(mark: str, folder: str, owner: str) -> None:
    """Wait for the end of the program, and do what is to be done."""
    sys.stdin.read()
    for _ in range(3):  # a process may just have started another
        for pid in marked(mark, Path(folder), int(owner)):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
