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
    """A guard of processes whose environment has the mark."""

    def __init__(self, mark: str, folder: Path) -> None:
        """Start it. folder: Ray's own, removed at the end."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, mark, str(folder)],
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


def marked(mark: str) -> list[int]:
    """Return the processes of this user whose environment has the mark; none where the system does not tell."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(entry.name) != os.getpid() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def main(mark: str, folder: str) -> None:
    """Wait for the end of the program, and do what is to be done."""
    sys.stdin.read()
    for _ in range(3):  # a process may just have started another
        for pid in marked(mark):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
