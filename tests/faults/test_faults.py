"""A command that is killed, or whose disk is full, ends as if nothing had been, once it is called again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

import cvcoteach.coteaching.training
import cvcoteach.pipeline.find_issues
import cvcoteach.pipeline.predict
import cvcoteach.pipeline.retrain  # noqa: F401 (loaded once, before the forks)
from tests.faults.harness import Command, Fault, broken_runs, litter, prepared, run
from tests.images import class_folders, dataset

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")

MACHINE = ("--device", "cpu", "--threads", "1", "-q")
EXACT = (*MACHINE, "--precision", "float32")
TRUST = ("--trust", "tests.backbones:colours")
FIND = Command(("find-issues", "shapes", "-o", "run", "--epochs", "1", "--rounds", "2", *EXACT), ("run",))
ON_FEATURES = Command(("find-issues", "shapes", "--features", "f.npy", "-o", "run", "--rounds", "2", *EXACT), ("run",))
WRITTEN = "already exists; name another place"
UNDONE = "were taken back already"
APPLY = ("apply", "run", "--action", "reviews", "--corrections", "c.csv", "-o", "fixed", "--write", "-q")
ON_TABLE = Command(("find-issues", "t.csv", "--features", "f.npy", "-o", "table", "--rounds", "2", *EXACT), ("table",))
TABLE = ("apply", "table", "--action", "reviews", "--corrections", "d.csv", "-o", "fixed.csv", "--write", "-q")
COMMANDS = {
    "on a table": ON_TABLE,
    "find-issues": FIND,
    "on features": ON_FEATURES,
    "agreement": Command((*FIND.arguments, "--select", "agreement"), ("run",)),
    "backbone": Command(
        ("find-issues", "shapes", "-o", "run", "--rounds", "1", "--backbone", TRUST[1], *TRUST, *EXACT), ("run",)
    ),
    "retrain": Command(
        ("retrain", "run", "-o", "model", "--epochs", "2", "--mode", "vanilla", "--test", "t.npz", *EXACT), ("model",)
    ),
    "export": Command(
        (
            "retrain",
            "run",
            "-o",
            "model",
            "--epochs",
            "2",
            "--mode",
            "vanilla",
            "--test",
            "t.npz",
            *EXACT,
            "--export",
            "torch.export",
        ),
        ("model",),
    ),
    "recheck": Command(
        ("retrain", "run", "-o", "model", "--epochs", "2", "--mode", "vanilla", "--recheck", *EXACT), ("model",)
    ),
    "apply": Command(APPLY, ("fixed", "fixed.changes.json"), WRITTEN),
    "undo": Command(
        ("apply", "--undo", "fixed.changes.json", "--write", "-q"), ("fixed", "fixed.changes.json"), UNDONE
    ),
    "apply table": Command(TABLE, ("fixed.csv", "fixed.csv.changes.json"), WRITTEN),
    "undo table": Command(
        ("apply", "--undo", "fixed.csv.changes.json", "--write", "-q"), ("fixed.csv", "fixed.csv.changes.json"), UNDONE
    ),
    "predict": Command(("predict", "model", "shapes", "-o", "p.csv", *MACHINE), ("p.csv",)),
}
STEP = int(os.environ.get("CVCOTEACH_FAULTS_STEP", "40"))
"""Every so many operations of a command there is a fault; `make faults` takes every one, in an hour or two."""
BEFORE = {
    "retrain": ("find-issues",),
    "recheck": ("find-issues",),
    "predict": ("find-issues", "retrain"),
    "export": ("find-issues", "retrain"),
    "apply": ("on features",),
    "undo": ("on features", "apply"),
    "apply table": ("on a table",),
    "undo table": ("on a table", "apply table"),
}


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A folder with 36 images, their features, and test images."""
    folder = tmp_path / "start"
    folder.mkdir()
    class_folders(folder / "shapes", n=36, wrong=0.1)
    np.save(folder / "f.npy", np.random.default_rng(0).normal(size=(36, 4)).astype(np.float32))
    images, true, _ = dataset(6, 0.0, seed=1)
    np.savez(folder / "t.npz", images=images, labels=np.array(sorted(os.listdir(folder / "shapes")))[true])
    rows = sorted(path.relative_to(folder).as_posix() for path in (folder / "shapes").rglob("*.png"))
    (folder / "t.csv").write_text("".join(["path,label\n", *[f"{row},{row.split('/')[1]}\n" for row in rows]]))
    for name, paths in (("c.csv", [row.removeprefix("shapes/") for row in rows]), ("d.csv", rows)):
        changed = [f"{path},set,{'ring' if '/ring/' not in f'/{path}' else 'bar'}\n" for path in paths[::8]]
        (folder / name).write_text("".join(["path,action,label\n", *changed, f"{paths[1]},excluded,\n"]))
    return folder


@pytest.mark.parametrize("fault", ["killed", "full"])
def test_a_run_on_features_survives_a_fault_at_a_few_operations(start: Path, fault: Fault) -> None:
    differences, tally = broken_runs(ON_FEATURES, start, fault, step=23, first=4)
    assert differences == []
    assert {"killed": tally.killed, "full": tally.full}[fault] >= 4


def removed_meanwhile(command: Command, start: Path, moments: Iterable[int]) -> int:
    """Remove the folder of a command before some of its operations; return how often there was one to remove."""
    work, n_removed = start.with_name("work"), 0
    for at in moments:
        shutil.copytree(start, work, symlinks=True)
        ended = run(command, work, fault="removed", at=at)
        if ended.operations < at:
            break
        made = work / command.made[0]
        if ended.code:  # else it was removed before it was made
            assert ended.code == 1, ended.said
            assert f"Error: {made.name} was removed while the run was going on" in ended.said, ended.said
            assert "Traceback" not in ended.said
            assert not made.exists()
            n_removed += 1
        elif at < ended.operations - 1:  # else it was removed once all was done: the last two take the lock away
            assert (made / "run.json").exists() or (made / "model.json").exists()
        assert {*os.listdir(work)} - {made.name} <= {*os.listdir(start), "cache"}
        shutil.rmtree(work)
    shutil.rmtree(work, ignore_errors=True)
    return n_removed


def test_a_run_folder_that_is_removed_meanwhile_is_named_and_not_made_anew(start: Path) -> None:
    assert removed_meanwhile(ON_FEATURES, start, (20, 33, 57)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["find-issues", "on features", "retrain"])
def test_a_folder_that_is_removed_at_any_operation_is_named(start: Path, name: str) -> None:
    prepared(start, [COMMANDS[earlier] for earlier in BEFORE.get(name, ())])
    step = max(1, STEP // 2)
    assert removed_meanwhile(COMMANDS[name], start, range(step, 10_000, step)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_survives_a_fault_at_any_operation(
    start: Path, name: str, fault: Fault, record_property: Callable[[str, object], None]
) -> None:
    prepared(start, [COMMANDS[earlier] for earlier in BEFORE.get(name, ())])
    assert litter(start) == []
    differences, tally = broken_runs(COMMANDS[name], start, fault, step=STEP, first=STEP // 2 + 1)
    print(f"{name}: {tally}", flush=True)
    record_property("tally", tally)
    assert differences == []
