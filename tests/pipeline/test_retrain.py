"""The order of a retraining; the whole of it is tested as a command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.coteaching.calibration import Calibration
from cvcoteach.data.sources import Choices, read_source
from cvcoteach.pipeline.retrain import (
    _calibration_of,
    _named_sources,
    _read_history,
    _summary_of,
    default_output,
    retrain,
)
from cvcoteach.pipeline.retraining_set import NamedSource
from cvcoteach.pipeline.run_folder import RunFolder
from tests.finished_runs import finished_run
from tests.images import class_folders
from tests.pipeline.test_apply import N, true_of


def test_the_classifier_lies_beside_the_run_by_default(tmp_path: Path) -> None:
    assert default_output(tmp_path / "photos-issues") == (tmp_path / "photos-model").resolve()
    assert default_output(tmp_path / "run") == (tmp_path / "run-model").resolve()


def test_named_columns_are_those_of_the_tables_that_have_them(tmp_path: Path) -> None:
    table, other, folder = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path
    pd.DataFrame({"img": ["a"], "is": ["x"]}).to_csv(table, index=False)
    pd.DataFrame({"img": ["a"], "label": ["x"]}).to_csv(other, index=False)
    named = Choices("img", "is")
    assert _named_sources(table, None, named, named) == (NamedSource(table, named), None)
    assert _named_sources(table, folder, named, named) == (NamedSource(table, named), NamedSource(folder))
    assert _named_sources(folder, table, named, named) == (NamedSource(folder), NamedSource(table, named))
    assert _named_sources(table, other, named, named) == (NamedSource(table, named), NamedSource(other, Choices("img")))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_in_place_of_the_history_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "history.csv")
    with pytest.raises(InputError, match="is not a regular file"):
        _read_history(tmp_path / "history.csv")


def test_an_unknown_export_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"export is 'tflite'; it takes onnx or torch\.export"):
        retrain(tmp_path / "nowhere", exports=["tflite"])


def test_a_missing_package_of_an_export_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="needs the package onnxscript"):
        retrain(tmp_path / "nowhere", exports=["onnx"])


HEAD = "epoch,stage,images,keep_rate,loss_kept,loss_left_out,agreement,images_per_second\n"


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b\n1,2\n", b"epoch\n1\n", HEAD.encode(), HEAD.encode() + b"1,mixed,x,1,1,1,1,1\n", b"\xff\n1\n"],
)
def test_a_damaged_history_of_a_classifier_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"history.csv is damaged .*; retrain into another folder"):
        _read_history(tmp_path / "history.csv")


@pytest.mark.parametrize("found", [{"x": 1}, [1], "x", 3, dict.fromkeys(Calibration.__dataclass_fields__, "x")])
def test_a_damaged_calibration_of_a_classifier_gets_a_sentence(tmp_path: Path, found: object) -> None:
    with pytest.raises(InputError, match=r"run.json is damaged .*; retrain into another folder"):
        _calibration_of(RunFolder(tmp_path, {"calibration": found}))
    assert _calibration_of(RunFolder(tmp_path, {})) is None


@pytest.mark.parametrize("record", [{}, {"summary": {}}, {"summary": {"mode": "incv", "selected": 3}}])
def test_a_classifier_whose_record_lacks_figures_gets_a_sentence(tmp_path: Path, record: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"run.json is damaged"):
        _summary_of(RunFolder(tmp_path, record))


@pytest.mark.skipif(sys.platform == "win32", reason="links take a right there")
def test_labels_are_not_judged_again_through_a_link(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=N)
    source = read_source(tmp_path / "shapes")
    finished_run(tmp_path / "run", source, true_of(source))
    for folder in ("model", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "model" / "recheck").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="recheck is a link"):
        retrain(tmp_path / "run", tmp_path / "model", recheck=True)
    assert not any((tmp_path / "elsewhere").iterdir())
