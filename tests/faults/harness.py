"""Runs a command that dies, whose disk is full, or whose folder is gone, before its n-th file operation."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import signal
import sys
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

Fault = Literal["killed", "full", "removed"]

_CHANGES = frozenset(["os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime", "os.link"])
_VOLATILE = ("timings", "plan", "machine", "run", "when", "id", "undone")
"""Fields of records that differ from run to run."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Command:
    """A command of cvcoteach in a folder that holds what it reads, and the files that it makes."""

    arguments: tuple[str, ...]
    """In the folder; its cache is `cache` there."""
    made: tuple[str, ...]
    """Files and folders, by name."""
    finished: str = ""
    """What it says, with exit code 1, where everything was done already; empty: it then ends as if it had done it."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int | None
    """Exit code; None where it was killed."""
    said: str
    """On both outputs."""
    operations: int
    """File operations that it came to."""


def run(command: Command, folder: Path, *, fault: Fault | None = None, at: int = 0) -> Outcome:
    """Run a command in a process of its own, forked from this one, which has loaded everything already.

    fault: befalls its file operation number `at`, counted from 1: it is killed before it, told that the disk is full
    then and from there on, or the first folder that it makes is removed before it.
    """
    report = folder.with_name(f"{folder.name}.report")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, about threads, of which the child needs none
        process = os.fork()
    if process == 0:
        code = 70
        try:
            code = _in_child(command, folder, report, fault, at)
        finally:
            os._exit(code)
    _, status = os.waitpid(process, 0)
    killed = os.WIFSIGNALED(status)
    assert not killed or os.WTERMSIG(status) == signal.SIGKILL, f"died of signal {os.WTERMSIG(status)}"
    said = report.read_text(errors="replace")
    counted = folder.with_name(f"{folder.name}.count")
    return Outcome(None if killed else os.WEXITSTATUS(status), said, int(counted.read_text() or 0))


@dataclass
class Tally:
    """What `broken_runs` did and found."""

    killed: int = 0
    """Runs that were killed."""
    full: int = 0
    """Runs whose disk was full."""
    differences: int = 0
    """Ends that were not those of an unbroken run."""

    def __str__(self) -> str:
        return f"{self.killed} kills, {self.full} full disks, {self.differences} differences"

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.killed + other.killed, self.full + other.full, self.differences + other.differences)


def _in_child(command: Command, folder: Path, report: Path, fault: Fault | None, at: int) -> int:
    from cvcoteach.cli.main import main  # imported by the parent

    os.chdir(folder)
    os.environ["CVCOTEACH_CACHE_DIR"] = str(folder / "cache")
    output = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count = os.open(folder.with_name(f"{folder.name}.count"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    _watch(str(folder), count, fault, at, folder / command.made[0])
    try:
        main(list(command.arguments), prog_name="cvcoteach")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _watch(folder: str, count: int, fault: Fault | None, at: int, made: Path) -> None:
    """Count this process's changes of files below a folder, and let the fault befall it."""
    done, removing = 0, False

    def step() -> None:
        nonlocal done, removing
        if removing:
            return
        done += 1
        os.pwrite(count, str(done).encode(), 0)
        if fault == "killed" and done == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "removed" and done == at:
            removing = True
            shutil.rmtree(made, ignore_errors=True)
            removing = False
        if fault == "full" and done >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & _WRITES:
                return
        elif event in _CHANGES and not (fault == "full" and event in ("os.remove", "os.rmdir")):
            path = arguments[0]
        else:
            return
        if isinstance(path, str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(path)).startswith(folder):
            step()

    sys.addaudithook(hook)


def outcome_of(command: Command, folder: Path) -> dict[str, bytes]:
    """Return what a command made, by name: to be equal, whatever befell it on the way."""
    found = {}
    for name in command.made:
        place = folder / name
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            relative = str(file.relative_to(folder))
            if not file.is_file() or file.name.startswith(".lock"):
                continue
            content = file.read_bytes()
            if file.name in ("run.json", "model.json") or file.name.endswith(".changes.json"):
                record = json.loads(content)
                content = json.dumps({key: value for key, value in record.items() if key not in _VOLATILE}).encode()
            if file.name == "history.csv":
                content = pd.read_csv(file).drop(columns="images_per_second").to_csv(index=False).encode()
            if file.suffix == ".pt2":
                content = _content_of_archive(file)
            if file.suffix == ".html":
                content = re.sub(rb"seconds</dt><dd>[^<]*", b"", content)
            found[relative] = content
    return found


def _content_of_archive(file: Path) -> bytes:
    """Return the weights in an exported network; the traced program beside them says where it was traced."""
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if "weights" in name or "constants" in name]
        assert names
        return b"".join(name.encode() + archive.read(name) for name in names)


def litter(folder: Path) -> list[str]:
    """Return files that only a killed command leaves.

    Notes of the cache go with the next one that is written; what lies beside a file of predictions goes after an hour,
    since nothing tells whether another call is still writing it.
    """
    names = [*folder.rglob("*.building"), *folder.rglob("*.done.json"), *folder.rglob("sources/*/building")]
    names += folder.rglob(".again-*")
    later = [*folder.glob("*.partial"), *folder.rglob("sources/*/*.partial")]
    partial = {*folder.rglob("*.partial")} - {*later}
    return sorted(str(path.relative_to(folder)) for path in [*names, *partial])


def broken_runs(command: Command, start: Path, fault: Fault, step: int = 1, first: int = 1) -> tuple[list[str], Tally]:
    """Return what differs from an unbroken run, for faults at every `step`-th operation, and how many there were.

    start: a folder that holds what the command reads; it stays as it is.
    """
    tally = Tally()
    differences = list(_differences(command, start, fault, range(first, sys.maxsize, step), tally))
    tally.differences = len(differences)
    return differences, tally


def _differences(command: Command, start: Path, fault: Fault, moments: range, tally: Tally) -> Iterator[str]:
    work = start.with_name(f"{start.name}.work")

    def fresh() -> Path:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(start, work, symlinks=True)
        return work

    whole = run(command, fresh())
    assert whole.code == 0, whole.said
    expected = outcome_of(command, work)
    assert expected, "the command made nothing"
    for at in itertools.takewhile(lambda moment: moment <= whole.operations, moments):
        where = f"{fault} at {at} of {whole.operations}"
        broken = run(command, fresh(), fault=fault, at=at)
        tally.killed += broken.code is None
        tally.full += fault == "full" and broken.operations >= at
        if fault == "full" and (broken.code != 1 or "Traceback" in broken.said) and broken.code != 0:
            yield f"{where}: exit code {broken.code}: {broken.said[-2000:]}"
        if fault == "killed" and broken.code is not None and (broken.code or broken.operations >= at):
            yield f"{where}: it was not killed, exit code {broken.code}: {broken.said[-2000:]}"
        again = run(command, work)
        already = bool(command.finished) and again.code == 1 and command.finished in again.said
        if again.code != 0 and not already:
            yield f"{where}: the same command then ended with {again.code}: {again.said[-2000:]}"
            continue
        found = outcome_of(command, work)
        different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if different:
            yield f"{where}: {', '.join(different)} differ"
        if left := litter(work):
            yield f"{where}: {', '.join(left)} was left"


def prepared(folder: Path, commands: Sequence[Command]) -> Path:
    """Run commands in a folder that later ones build on, and return it."""
    for command in commands:
        ended = run(command, folder)
        assert ended.code == 0, ended.said
    return folder
