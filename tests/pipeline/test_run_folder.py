"""A run's folder: atomic writes, going on, refusing what is not its own."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from cvcoteach import _files
from cvcoteach._files import digest, held_by, locked, write_json
from cvcoteach._validation import InputError
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.trainer import FoldKey
from cvcoteach.pipeline.run_folder import FoldFiles, RunFolder
from tests.fakes import NearestMeans, clouds

IDENTITY = {"seed": 0, "n_folds": 2, "labels_digest": "abc"}


def test_a_fold_is_on_disk_the_moment_it_is_set(tmp_path: Path) -> None:
    folds = FoldFiles(tmp_path / "folds")
    assert FoldKey(1, 2) not in folds
    assert len(folds) == 0
    probs = np.array([[0.25, 0.75]], np.float32)
    folds[FoldKey(1, 2)] = probs
    again = FoldFiles(tmp_path / "folds")
    assert list(again) == [FoldKey(1, 2)]
    np.testing.assert_array_equal(again[FoldKey(1, 2)], probs)
    del again[FoldKey(1, 2)]
    with pytest.raises(KeyError):
        folds[FoldKey(1, 2)]


def test_a_fold_of_which_any_byte_has_changed_counts_as_not_trained(tmp_path: Path) -> None:
    key, file = FoldKey(1, 1), tmp_path / "round-1-fold-1.npy"
    FoldFiles(tmp_path)[key] = np.array([[0.25, 0.75]], np.float32)
    whole = file.read_bytes()
    assert key in FoldFiles(tmp_path)
    for i in range(len(whole)):
        file.write_bytes(whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :])
        assert key not in FoldFiles(tmp_path), i
    for content in (b"", whole[:-1], b"\x93NUMPY nonsense"):
        file.write_bytes(content)
        assert key not in FoldFiles(tmp_path)


def test_a_pickle_in_place_of_a_fold_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "round-1-fold-1.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert FoldKey(1, 1) not in FoldFiles(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links take rights")
@pytest.mark.parametrize("name", [".lock", ".lock.holder", "run.json"])
def test_nothing_is_written_through_a_link_in_a_shared_folder(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    with RunFolder.open(tmp_path / "run", IDENTITY):
        pass
    outside.write_bytes((tmp_path / "run" / "run.json").read_bytes())
    before = outside.read_bytes()
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(outside)
    with suppress(InputError), RunFolder.open(tmp_path / "run", IDENTITY) as run:
        run.save(state="done")
    assert outside.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="links take rights")
@pytest.mark.parametrize("name", ["folds", "folds/second"])
def test_folds_that_are_a_link_to_another_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    with RunFolder.open(tmp_path / "run", IDENTITY):
        pass
    (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "run" / name).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="is a link; a run writes its folds into its own folder"):
        RunFolder.open(tmp_path / "run", IDENTITY)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_in_place_of_who_holds_the_lock_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock.holder")
    assert held_by(tmp_path / ".lock") == "another process"
    with RunFolder.open(tmp_path, IDENTITY):
        assert held_by(tmp_path / ".lock").startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / ".lock.holder").exists()


def test_what_a_killed_write_left_goes_and_files_of_others_stay(tmp_path: Path) -> None:
    ours = [".run.json.ab_1cd23.partial", "folds/.round-1-fold-2.npy.abcd1234.partial"]
    theirs = [".git/objects/.x.abcd1234.partial", ".mine.partial", "folds/kept.partial", ".x.ABCD1234.partial"]
    with RunFolder.open(tmp_path, IDENTITY) as run:
        run.folds[FoldKey(1, 1)] = np.ones((2, 2), np.float32)
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    for name in (*ours, *theirs):
        (tmp_path / name).touch()
    with RunFolder.open(tmp_path, IDENTITY):
        assert not any((tmp_path / name).exists() for name in ours)
        assert all((tmp_path / name).exists() for name in theirs)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.json"
    write_json(file, {"a": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(InputError, match=r"run\.json could not be written: the disk is full"):
        write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_run_goes_on_under_the_same_identity(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", IDENTITY) as run:
        run.save(plan={"device": "cpu"})
    with RunFolder.open(tmp_path / "run", IDENTITY) as run:
        assert run.record["plan"] == {"device": "cpu"}
        assert not run.done
        run.save(state="done")
    assert RunFolder.read(tmp_path / "run").done


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"labels_digest": "xyz"}, "its labels have changed since"),
        ({"model": "small"}, "it has no model, which is 'small' here"),
        ({"n_folds": None}, "its n folds are 2, here there is none"),
    ],
)
def test_another_runs_folder_is_refused_and_untouched(tmp_path: Path, other: dict[str, object], sentence: str) -> None:
    with RunFolder.open(tmp_path, IDENTITY) as run:
        run.folds[FoldKey(1, 1)] = np.ones((2, 2), np.float32)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(InputError, match=sentence):
        RunFolder.open(tmp_path, {**IDENTITY, **other})
    assert (tmp_path / "run.json").read_bytes() == before
    with RunFolder.open(tmp_path, IDENTITY):  # the lock was given back
        pass


def test_a_run_that_failed_before_it_wrote_anything_is_begun_anew(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, IDENTITY) as run:
        run.save(plan={"device": "cpu"})
    with RunFolder.open(tmp_path, {**IDENTITY, "seed": 1}) as run:
        assert run.record["identity"]["seed"] == 1
        assert "plan" not in run.record
        run.save(state="done")
    with pytest.raises(InputError, match="its seed is 1, not 2"):
        RunFolder.open(tmp_path, {**IDENTITY, "seed": 2})


def test_of_settings_within_settings_the_one_that_differs_is_named(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, {"recipe": {"epochs": 3, "rate": 0.1}, "labels_digest": "x"}) as run:
        run.save(state="done")
    with pytest.raises(InputError, match=r"its rate is 0\.1, not 0\.2"):
        RunFolder.open(tmp_path, {"recipe": {"epochs": 3, "rate": 0.2}, "labels_digest": "y"})


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="not empty and holds no run"):
        RunFolder.open(tmp_path, IDENTITY)
    with pytest.raises(InputError, match="is a file; the output is a folder"):
        RunFolder.open(tmp_path / "holiday.jpg", IDENTITY)
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.read(tmp_path)


def test_a_damaged_or_newer_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        RunFolder.open(tmp_path, IDENTITY)
    (tmp_path / "run.json").write_text(json.dumps({"format": 99, "identity": {}, "state": "done"}))
    with pytest.raises(InputError, match="format 99"):
        RunFolder.read(tmp_path)


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path, IDENTITY),
        pytest.raises(InputError, match=r"another process is at work in .* \(process \d+ on "),
    ):
        RunFolder.open(tmp_path, IDENTITY)


def test_who_waits_for_a_lock_is_told_for_whom(tmp_path: Path) -> None:
    lock, told = tmp_path / "lock", []
    with ThreadPoolExecutor(1) as other:

        def waits() -> None:
            with locked(lock, told.append):
                pass

        with locked(lock):
            waiting = other.submit(waits)
            while not told and not waiting.done():
                time.sleep(0.01)
        waiting.result(timeout=60)
    assert told == [f"Waiting for process {os.getpid()} on {socket.gethostname()}, which is at work on the same."]


def test_equal_content_has_an_equal_digest_and_other_content_another() -> None:
    a = np.arange(6).reshape(2, 3)
    assert digest(a, "x") == digest(a.copy(), "x")
    others = [digest(a.reshape(3, 2), "x"), digest(a + 1, "x"), digest(a.astype(np.int32), "x"), digest(a, "y")]
    assert digest(a, "x") not in others
    assert digest("ab", "c") != digest("a", "bc")


@pytest.mark.slow
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """SIGKILL after every fold in turn, and in the middle of a write; then the run is finished."""
    x, _, y = clouds(120, 3, 0.3, 8)
    np.savez(tmp_path / "problem.npz", x=x, y=y)
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from cvcoteach import _files
        from cvcoteach.crossval.incv import IterativeCV
        from cvcoteach.pipeline.run_folder import RunFolder
        from tests.fakes import NearestMeans
        folder, when = Path(sys.argv[1]), int(sys.argv[2])
        problem = np.load(folder / "problem.npz")
        writes = 0
        real = os.fsync
        def fsync(fd):
            global writes
            writes += 1
            if writes == when:
                os.kill(os.getpid(), signal.SIGKILL)
            real(fd)
        _files.os.fsync = fsync
        with RunFolder.open(folder / "run", {"seed": 1}) as run:
            incv = IterativeCV(n_rounds=2, n_folds=2, seed=1)
            incv.run(NearestMeans(problem["x"], 3), problem["y"], finished=run.folds)
    """)
    for when in (1, 2, 3, 2, 1):
        code = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(when)], check=False).returncode
        assert code == -9
    with RunFolder.open(tmp_path / "run", {"seed": 1}) as run:
        assert 0 < len(run.folds) < 4
        resumed = IterativeCV(n_rounds=2, n_folds=2, seed=1).run(NearestMeans(x, 3), y, finished=run.folds)
        assert not list((tmp_path / "run").rglob(".*.partial"))
    whole = IterativeCV(n_rounds=2, n_folds=2, seed=1).run(NearestMeans(x, 3), y)
    np.testing.assert_array_equal(whole.pred_probs, resumed.pred_probs)
    np.testing.assert_array_equal(whole.selected, resumed.selected)
