"""The record of a corrected copy: read, not trusted; and what is left of a copy that was cut short."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from cvcoteach.data.writers.registry import fingerprint
from cvcoteach.pipeline.apply import record_of, undo, write
from cvcoteach.pipeline.apply_plan import ApplySettings, plan
from cvcoteach.pipeline.results import RunResults
from tests.finished_runs import finished_run
from tests.images import class_folders
from tests.pipeline.test_apply import N, true_of


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    """A run on a folder with twelve wrong labels."""
    class_folders(tmp_path / "shapes", n=N)
    source = read_source(tmp_path / "shapes")
    return finished_run(tmp_path / "run", source, true_of(source))


@pytest.mark.parametrize("name", ["../stolen.png", "/tmp/stolen.png", "link/stolen.png", ""])
@pytest.mark.parametrize("field", ["file", "file_in_copy"])
def test_a_record_that_leads_out_of_the_copy_is_refused(run: RunResults, tmp_path: Path, name: str, field: str) -> None:
    written = write(plan(run.folder, ApplySettings("relabel")), tmp_path / "fixed")
    (tmp_path / "fixed" / "link").symlink_to(tmp_path)
    record = json.loads(written.record.read_text())
    record["changes"][0][field] = name
    written.record.write_text(json.dumps(record))
    before = fingerprint(tmp_path / "fixed")
    with pytest.raises(InputError, match=r"lies outside of .*fixed; nothing was changed"):
        undo(written.record)
    assert fingerprint(tmp_path / "fixed") == before


@pytest.mark.parametrize("name", ["notes.txt", ".ssh/id_rsa", "bar/run.sh"])
@pytest.mark.parametrize("field", ["file", "file_in_copy"])
def test_a_record_brings_back_and_moves_images_only(run: RunResults, tmp_path: Path, name: str, field: str) -> None:
    written = write(plan(run.folder, ApplySettings("relabel")), tmp_path / "fixed")
    for root in (tmp_path / "fixed", tmp_path / "shapes"):
        (root / name).parent.mkdir(exist_ok=True)
    (tmp_path / "shapes" / name).write_text("not to be copied")
    record = json.loads(written.record.read_text())
    record["changes"][0] |= {"file_in_copy": None, field: name}
    written.record.write_text(json.dumps(record))
    before = fingerprint(tmp_path / "fixed")
    with pytest.raises(InputError, match="is no image; nothing was changed"):
        undo(written.record)
    assert fingerprint(tmp_path / "fixed") == before


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the system has no links")
def test_a_record_brings_back_nothing_that_a_link_called_like_an_image_names(run: RunResults, tmp_path: Path) -> None:
    written = write(plan(run.folder, ApplySettings("relabel")), tmp_path / "fixed")
    (tmp_path / "secret").write_text("for the owner's eyes")
    (tmp_path / "shapes" / "bar" / "z.png").symlink_to(tmp_path / "secret")
    record = json.loads(written.record.read_text())
    record["changes"][0] |= {"file_in_copy": None, "file": "bar/z.png"}
    written.record.write_text(json.dumps(record))
    before = fingerprint(tmp_path / "fixed")
    with pytest.raises(InputError, match=r"z\.png is a link to .*secret"):
        undo(written.record)
    assert fingerprint(tmp_path / "fixed") == before


@pytest.mark.parametrize(
    "change",
    [{"changes": 3}, {"changes": ["x"]}, {"changes": [{"file": 3}]}, {"root": None}, {"reading": []}, {"state": []}],
)
def test_a_damaged_record_is_refused(run: RunResults, tmp_path: Path, change: dict[str, Any]) -> None:
    written = write(plan(run.folder, ApplySettings("relabel")), tmp_path / "fixed")
    written.record.write_text(json.dumps({**json.loads(written.record.read_text()), **change}))
    with pytest.raises(InputError, match="is no record of changes"):
        undo(written.record)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_record_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(record_of(tmp_path / "fixed"))
    with pytest.raises(InputError, match="is not a regular file"):
        undo(record_of(tmp_path / "fixed"))


@pytest.mark.parametrize("name", ["fixed", "fixed.csv"])
def test_a_copy_whose_record_was_not_finished_is_taken_back(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "shapes", n=N)
    source = read_source(tmp_path / "shapes")
    if name.endswith(".csv"):
        table = pd.DataFrame({"path": source.paths, "label": [source.class_names[k] for k in source.labels]})
        table.to_csv(tmp_path / "shapes" / "labels.csv", index=False)
        source = read_source(tmp_path / "shapes" / "labels.csv")
    run = finished_run(tmp_path / "run", source, true_of(source))
    planned = plan(run.folder, ApplySettings("relabel"))

    class KilledError(BaseException):
        pass

    def killed(file: Path, **_: object) -> str:
        if file.name == name:
            raise KilledError
        return fingerprint(file)

    monkeypatch.setattr("cvcoteach.pipeline.apply.fingerprint", killed)
    with pytest.raises(KilledError):
        write(planned, tmp_path / name)
    monkeypatch.undo()
    assert undo(record_of(tmp_path / name)).n_changes == 12
    assert (read_source(tmp_path / name).labels == source.labels).all()


def test_two_copies_to_one_place_do_not_take_each_others_half(
    run: RunResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, copy2, n = plan(run.folder, ApplySettings("relabel")), shutil.copy2, 0

    def other_meanwhile(*files: Any) -> Any:
        nonlocal n
        n += 1
        if n == 5:
            write(planned, tmp_path / "fixed")
        return copy2(*files)

    monkeypatch.setattr("shutil.copy2", other_meanwhile)
    with pytest.raises(InputError, match="could not be written: Directory not empty"):
        write(planned, tmp_path / "fixed")
    assert len(read_source(tmp_path / "fixed")) == N
    assert undo(record_of(tmp_path / "fixed")).n_changes == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixed", "fixed.changes.json", "run", "shapes"]


def test_what_a_killed_copy_left_goes_after_an_hour(
    run: RunResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".fixed.abcd_123.partial" / "ring").mkdir(parents=True)
    (tmp_path / ".other.abcd_123.partial").mkdir()
    planned = plan(run.folder, ApplySettings("relabel"))
    write(planned, tmp_path / "fixed")
    assert (tmp_path / ".fixed.abcd_123.partial").exists()
    shutil.rmtree(tmp_path / "fixed")
    record_of(tmp_path / "fixed").unlink()
    monkeypatch.setattr("cvcoteach._files._ABANDONED", -1.0)
    write(planned, tmp_path / "fixed")
    assert not (tmp_path / ".fixed.abcd_123.partial").exists()
    assert (tmp_path / ".other.abcd_123.partial").exists()


class KilledError(BaseException):
    """Stands for a kill."""


def table_run(folder: Path) -> RunResults:
    """Return a run on a table of images with twelve wrong labels."""
    class_folders(folder / "shapes", n=N)
    source = read_source(folder / "shapes")
    table = pd.DataFrame({"path": source.paths, "label": [source.class_names[k] for k in source.labels]})
    table.to_csv(folder / "shapes" / "labels.csv", index=False)
    source = read_source(folder / "shapes" / "labels.csv")
    return finished_run(folder / "run", source, true_of(source))


def test_a_copy_whose_record_was_not_finished_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(file: Path, **_: object) -> str:
        if file.name == "fixed.csv":
            raise KilledError
        return fingerprint(file)

    planned = plan(table_run(tmp_path).folder, ApplySettings("relabel"))
    monkeypatch.setattr("cvcoteach.pipeline.apply.fingerprint", killed)
    with pytest.raises(KilledError):
        write(planned, tmp_path / "fixed.csv")
    monkeypatch.undo()
    before = (tmp_path / "fixed.csv").read_bytes()
    written = write(planned, tmp_path / "fixed.csv")
    assert json.loads(written.record.read_text())["state"] == "done"
    assert (tmp_path / "fixed.csv").read_bytes() == before
    with pytest.raises(InputError, match="already exists"):
        write(planned, tmp_path / "fixed.csv")
    assert not list(tmp_path.glob(".again-*"))


def test_a_file_of_somebody_in_the_place_of_an_unfinished_copy_stays(tmp_path: Path) -> None:
    planned = plan(table_run(tmp_path).folder, ApplySettings("relabel"))
    record = write(planned, tmp_path / "fixed.csv").record
    content = json.loads(record.read_text())
    record.write_text(json.dumps({k: v for k, v in content.items() if k != "copy_digest"} | {"state": "writing"}))
    (tmp_path / "fixed.csv").write_text("mine\n")
    with pytest.raises(InputError, match="already exists; name another"):
        write(planned, tmp_path / "fixed.csv")
    assert (tmp_path / "fixed.csv").read_text() == "mine\n"


def test_an_undo_of_a_table_that_was_killed_before_its_record_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KilledError

    written = write(plan(table_run(tmp_path).folder, ApplySettings("relabel")), tmp_path / "fixed.csv")
    monkeypatch.setattr("cvcoteach.pipeline.apply.write_json", killed)
    with pytest.raises(KilledError):
        undo(written.record)
    monkeypatch.undo()
    assert undo(written.record).n_changes == 12
    assert json.loads(written.record.read_text())["state"] == "undone"


def test_what_a_killed_undo_left_in_the_copy_goes_with_the_next(run: RunResults, tmp_path: Path) -> None:
    planned = plan(run.folder, ApplySettings("exclude"))
    written = write(planned, tmp_path / "fixed")
    back = json.loads(written.record.read_text())["changes"][0]["file"]
    left = (tmp_path / "fixed" / back).parent / f".{Path(back).name}.abcd_123.partial"
    left.write_bytes(b"half")
    assert undo(written.record).n_changes == 12
    assert not left.exists()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the system has no links")
def test_a_copy_that_is_a_link_is_not_taken_back(run: RunResults, tmp_path: Path) -> None:
    written = write(plan(run.folder, ApplySettings("relabel")), tmp_path / "fixed")
    (tmp_path / "fixed").rename(tmp_path / "mine")
    (tmp_path / "fixed").symlink_to(tmp_path / "mine")
    before = fingerprint(tmp_path / "mine")
    with pytest.raises(InputError, match="fixed is a link, and no copy that apply wrote"):
        undo(written.record)
    assert fingerprint(tmp_path / "mine") == before
