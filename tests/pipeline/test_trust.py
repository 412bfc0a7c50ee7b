"""A folder that somebody else shares does not choose whose code runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cvcoteach.cli.main import main
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.settings import Machine, Settings
from tests.images import CLASSES, dataset

MACHINE = Machine("cpu", 1, "float32")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run in the current folder, beside a module that leaves a mark when it is imported."""
    images, true, _ = dataset(40, 0.1, seed=1)
    np.savez(tmp_path / "images.npz", images=images, labels=np.array(CLASSES)[true])
    np.save(tmp_path / "features.npy", np.eye(len(CLASSES), dtype=np.float32)[true])
    settings = Settings(features=tmp_path / "features.npy", n_rounds=1)
    find_issues(tmp_path / "images.npz", tmp_path / "run", settings, MACHINE)
    (tmp_path / "marking.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "marking", raising=False)
    return tmp_path


def rewritten(folder: Path, **identity: object) -> None:
    record = json.loads((folder / "run.json").read_text())
    record["identity"] = {**record["identity"], **identity}
    (folder / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("identity", "asked"),
    [
        ({"recipe": {"model": "marking:net"}}, "marking:net"),
        ({"recipe": {"model": "backbone:marking:net"}}, "marking:net"),
        ({"backbone": "marking:net", "weights_digest": ""}, "marking:net"),
        ({"backbone": "net.pt2", "weights_digest": ""}, "net.pt2"),
        ({"backbone": "timm:hf-hub:somebody/net", "weights_digest": ""}, "timm:hf-hub:somebody/net"),
    ],
)
def test_retrain_runs_no_code_that_only_the_run_names(shared: Path, identity: dict, asked: str) -> None:
    (shared / "net.pt2").write_bytes(b"")
    rewritten(shared / "run", **identity)
    result = call("retrain", "run", "--device", "cpu")
    assert result.exit_code == 1, result.output
    assert f"run/run.json asks for {asked!r}: " in result.stderr
    assert f"add --trust {asked}." in result.stderr
    assert not (shared / "ran").exists()
    assert not (shared / "run-model").exists()


def test_code_that_the_command_line_names_runs_once_it_is_trusted(shared: Path) -> None:
    refused = call("find-issues", "images.npz", "-o", "new", "--model", "marking:net", "--device", "cpu")
    assert "'marking:net' is not trusted: " in refused.stderr
    assert not (shared / "ran").exists()
    ran = call("find-issues", "images.npz", "-o", "new", "--model", "marking:net", "--trust", "marking:net")
    assert "cannot be imported" in ran.stderr
    assert (shared / "ran").exists()
