"""The order of a retraining; the whole of it is tested as a command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices
from cvcoteach.pipeline.retrain import _named_sources, _read_history, default_output, retrain
from cvcoteach.pipeline.retraining_set import NamedSource


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
