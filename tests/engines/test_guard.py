"""What is left of a Ray ends with the program that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvcoteach.engines.guard import MARK, Guard, marked

SLEEP = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not tell of processes")
@pytest.mark.parametrize("how", ["environment", "log"])
def test_a_process_of_ray_is_known_by_its_environment_or_by_its_log(how: str, tmp_path: Path) -> None:
    mark, folder = f"mark-of-{tmp_path}", tmp_path / "ray"
    (folder / "logs").mkdir(parents=True)
    log = (folder / "logs" if how == "log" else tmp_path) / "agent.out"
    environment = {**os.environ, MARK: mark} if how == "environment" else {}
    with log.open("wb") as file, (folder / "logs" / "driver.log").open("wb") as open_here:
        left = subprocess.Popen(SLEEP, env=environment, stdout=file)
        other = subprocess.Popen(SLEEP, stdout=open_here)  # another program on that Ray
    try:
        with (folder / "logs" / "owner.log").open("wb"):
            while not log.read_bytes() or not (folder / "logs" / "driver.log").read_bytes():
                assert left.poll() is None
            assert marked(mark, folder, os.getpid()) == [left.pid]
            Guard(mark, folder).end()
        assert left.wait(10) < 0
        assert other.poll() is None
        assert not folder.exists()
    finally:
        for process in (left, other):
            process.kill()
            process.wait()
