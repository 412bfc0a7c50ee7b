"""What runs every check: it brings what the machine lacks, and leaves no test out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / ".ci" / "run"


def said(machine: Path, libraries: str, **environment: str) -> list[str]:
    """The commands it gives on a machine with these libraries, `make` with what CI is to it."""
    stubs = {
        "make": 'echo "make $* with CI=$CI"',
        "sudo": 'exec "$@"',
        "apt-get": 'echo "apt-get $*"',
        "ldconfig": f"echo {libraries}",
    }
    for name, does in stubs.items():
        (machine / name).write_text(f"#!/bin/sh\n{does}\n")
        (machine / name).chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    path = f"{machine}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", str(RUN)], env={**inherited, "PATH": path, **environment}, capture_output=True, text=True, check=True
    )
    return ran.stdout.splitlines()


@pytest.mark.parametrize(("environment", "ci"), [({}, "true"), ({"CI": "1"}, "1")])
def test_the_slow_tests_are_run_too(tmp_path: Path, environment: dict[str, str], ci: str) -> None:
    assert said(tmp_path, "libcurl.so.4", **environment)[-1] == f"make test with CI={ci}"


def test_what_the_database_server_needs_is_installed_where_it_is_missing(tmp_path: Path) -> None:
    assert "apt-get install -q -y libcurl4" in said(tmp_path, "libc.so.6")
    assert not any("libcurl4" in line for line in said(tmp_path, "libcurl.so.4"))
