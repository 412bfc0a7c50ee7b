"""A run with `--engine ray`: the result of one process, whatever is killed on the way, and nothing left behind."""

from __future__ import annotations

import glob
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from cvcoteach.cli.main import main
from tests.images import class_folders

MACHINE = ("--device", "cpu", "--threads", "1", "--precision", "float32", "--rounds", "2")
NETWORKS = (*MACHINE, "--epochs", "1", "--folds", "2")
BACKBONE = (*MACHINE, "--backbone", "tests.backbones:colours", "--trust", "tests.backbones:colours")
MOMENTS = int(os.environ.get("CVCOTEACH_RAY_MOMENTS", "1"))
"""Moments at which each process is killed."""
ORPHANS_END = 150.0
"""Seconds after which all processes of Ray have ended, whichever was killed; mostly a few. An agent of a Ray whose
command was killed while it started has been seen to end by itself alone, after more than twenty."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


def find_issues(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["find-issues", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result


def test_a_run_on_ray_gives_the_table_of_one_process_and_is_gone_on_with_by_it(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=60)
    find_issues(tmp_path / "shapes", "-o", tmp_path / "here", *NETWORKS)
    find_issues(tmp_path / "shapes", "-o", tmp_path / "ray", *NETWORKS, "--engine", "ray")
    assert (tmp_path / "ray" / "issues.csv").read_bytes() == (tmp_path / "here" / "issues.csv").read_bytes()
    (tmp_path / "ray" / "issues.csv").unlink()
    again = find_issues(tmp_path / "shapes", "-o", tmp_path / "ray", *NETWORKS)
    assert "nothing was computed again" in again.stderr


@pytest.mark.slow
def test_features_and_heads_on_ray_give_the_table_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "shapes", n=90)
    (tmp_path / "shapes" / "bar" / "broken.png").write_bytes(b"no image")
    find_issues(tmp_path / "shapes", "-o", tmp_path / "here", *BACKBONE)
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "other"))
    find_issues(tmp_path / "shapes", "-o", tmp_path / "ray", *BACKBONE, "--engine", "ray")
    assert (tmp_path / "ray" / "issues.csv").read_bytes() == (tmp_path / "here" / "issues.csv").read_bytes()


# -- processes of their own --


class Started:
    """The command in a process of its own, in a session of its own, which starts its own Ray."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        words = ["find-issues", "shapes", "-o", "ray", *options, "--engine", "ray", "--json"]
        environment = {**os.environ, "CVCOTEACH_CACHE_DIR": str(folder / "ray-cache"), "PYTHONPATH": os.getcwd()}
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("cvcoteach"), *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.seen: dict[int, psutil.Process] = {}

    def look(self, name: str = "") -> list[psutil.Process]:
        """Its processes that are alive, of that name."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen |= {child.pid: child for child in children}
        return [child for child in children if name in _words(child)]

    def wait_for(self, name: str) -> psutil.Process | None:
        """Return the first process of that name; None where the command ends before."""
        while self.process.poll() is None:
            if found := self.look(name):
                return found[0]
            time.sleep(0.1)
        return None

    def ended(self, timeout: float = 240) -> tuple[int, str, str]:
        """Exit code and both outputs, once no process of it is left."""
        out, err = self.process.communicate(timeout=timeout)
        until = time.monotonic() + ORPHANS_END
        while left := [child for child in self.seen.values() if _runs(child)]:
            assert time.monotonic() < until, [_words(child) for child in left]
            time.sleep(0.2)
        return self.process.returncode, out, err


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _worker(started: Started) -> None:
    while started.process.poll() is None:
        at_work = [each for each in started.look("ray::") if not re.search("Agent|IDLE", _words(each))]
        if at_work:
            at_work[0].kill()
            return
        time.sleep(0.1)


def _node(started: Started) -> None:
    node = started.wait_for("/raylet/raylet")
    if node is not None and _runs(node):
        node.kill()


def _driver(started: Started) -> None:
    started.process.kill()


def _interrupted(started: Started) -> None:
    with suppress(ProcessLookupError):  # it may be over
        os.killpg(started.process.pid, signal.SIGINT)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, bytes, float]]:
    """Folder, issues.csv and seconds of unbroken runs."""
    made = {}
    for name, options in (("networks", NETWORKS), ("extraction", BACKBONE)):
        folder = tmp_path_factory.mktemp(name)
        class_folders(folder / "shapes", n=60)
        (folder / "pandas.py").write_text("open('ran', 'w').close()\nraise SystemExit\n")
        began = time.monotonic()
        started = Started(folder, options)
        while started.process.poll() is None:
            started.look()
            time.sleep(0.5)
        code, out, err = started.ended()
        assert code == 0, err
        assert json.loads(out)["n_images"] == 60
        assert not (folder / "ran").exists()  # workers take no file of the working folder for a module
        made[name] = folder / "shapes", (folder / "ray" / "issues.csv").read_bytes(), time.monotonic() - began
    return made


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("kill", [_worker, _node, _driver, _interrupted])
@pytest.mark.parametrize("what", ["networks", "extraction"])
def test_a_run_that_is_killed_anywhere_ends_as_if_nothing_had_been(
    what: str,
    kill: Callable[[Started], None],
    moment: int,
    expected: dict[str, tuple[Path, bytes, float]],
    tmp_path: Path,
) -> None:
    shapes, table, seconds = expected[what]
    (tmp_path / "shapes").symlink_to(shapes)
    options = NETWORKS if what == "networks" else BACKBONE
    started = Started(tmp_path, options)
    until = time.monotonic() + random.Random(f"{what} {kill.__name__} {moment}").uniform(0.2, 1.0) * seconds
    while time.monotonic() < until and started.process.poll() is None:
        started.look()
        time.sleep(0.1)
    while not (tmp_path / "ray").exists() and started.process.poll() is None:
        time.sleep(0.1)  # a machine that is busier than before: there is nothing to interrupt yet
    kill(started)
    code, out, err = started.ended()
    if kill is _worker:
        assert code == 0, err
        assert json.loads(out)["n_images"] == 60  # and nothing else on the standard output
    if kill is _interrupted and code != 0:
        assert code == 130, err
        assert "the same command resumes from there" in err
    code, out, err = Started(tmp_path, options).ended()
    assert code == 0, err
    assert (tmp_path / "ray" / "issues.csv").read_bytes() == table
    assert not glob.glob(f"/tmp/cvcray-{started.process.pid}-*")
