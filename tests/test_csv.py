"""Names in our CSVs are no formulas, and come back as they were."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from cvcoteach._csv import escaped, is_ours, unescaped, unescaped_values, write_csv
from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from cvcoteach.issues.corrections import Judged, correct

FORMULAS = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1", "\uff1d1+1", "\uff20a"]
HARMLESS = ["", "cat", "-1", "+0.5", "1e3", "-2.5e-3", "a=b", "'quoted'", "'", "é"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert escaped(text) == "'" + text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_and_numbers_stay(text: str) -> None:
    assert escaped(text) == text


@given(st.text(alphabet=st.sampled_from("'=+-@\t\r\n1.a "), max_size=8))
@example("'-1")
def test_every_text_comes_back(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert not escaped(text).startswith(("=", "@", "\t", "\r", "\n"))
    assert unescaped_values(pd.Series([escaped(text), None])).tolist()[0] == text


def test_values_columns_and_the_index_are_written_escaped_and_numbers_as_they_are(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"=x": ["=a", None, "b"], "n": [-1.5, 2.0, np.nan]}, index=pd.Index(["-r", "s", "t"], name="i")
    )
    write_csv(tmp_path / "t.csv", table, index=True, float_format="%.2f")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["i", "'=x", "n"], ["'-r", "'=a", "-1.50"], ["s", "", "2.00"], ["t", "b", ""]]
    assert table.columns.tolist() == ["=x", "n"]
    assert table.index.tolist() == ["-r", "s", "t"]


def test_a_table_of_ours_is_read_with_the_names_as_they_were_and_others_as_they_are(tmp_path: Path) -> None:
    for name in ("=1.png", "'=1.png", "-2.png", "3.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    table = pd.DataFrame({"path": ["=1.png", "'=1.png", "-2.png", "3.png"], "given_label": ["@a", "@a", "'=b", "c"]})
    write_csv(tmp_path / "issues.csv", table.assign(label_quality=0.5))
    assert is_ours(["path", "given_label", "label_quality"])
    source = read_source(tmp_path / "issues.csv", label_column="given_label")
    assert source.paths == tuple(table.path)
    assert [source.class_names[k] for k in source.labels] == table.given_label.tolist()
    table.to_csv(tmp_path / "theirs.csv", index=False)
    source = read_source(tmp_path / "theirs.csv", label_column="given_label")
    assert source.paths == tuple(table.path)


def test_corrections_name_images_and_classes_as_our_tables_write_them_or_as_they_are(tmp_path: Path) -> None:
    file, nothing = tmp_path / "c.csv", np.zeros(3, bool)
    judged = Judged(("=1.png", "-2.png", "3.png"), tmp_path, np.array([0, 1, 1]), np.array([1, 0, 0]), ("=a", "b"))
    write_csv(file, pd.DataFrame({"path": ["=1.png", "-2.png"], "action": ["set", "set"], "label": ["b", "=a"]}))
    assert correct(file, judged, nothing, nothing).labels.tolist() == [1, 0, 1]
    file.write_text("path,action,label\n=1.png,set,b\n3.png,set,=a\n")
    assert correct(file, judged, nothing, nothing).labels.tolist() == [1, 1, 0]
    file.write_text("path,action,label\n'=4.png,set,b\n")
    with pytest.raises(InputError, match=r"'=4\.png is not an image of the run"):
        correct(file, judged, nothing, nothing)


@pytest.mark.parametrize("place", ["value", "column", "index"])
def test_a_line_end_in_a_name_ends_no_line_that_a_formula_could_begin(tmp_path: Path, place: str) -> None:
    name = "a\r=1+1"
    plain = pd.DataFrame({"path": ["x.png", "y.png"], "label": ["b", "c"]})
    table = {
        "value": plain.assign(label=[name, "c"]),
        "column": plain.rename(columns={"label": name}),
        "index": plain.set_index(pd.Index([name, "z"], name="i")),
    }[place]
    write_csv(tmp_path / "t.csv", table, index=place == "index")
    content = (tmp_path / "t.csv").read_bytes()
    assert b'"a\r=1+1"' in content
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 3
    assert name in [value for row in rows for value in row]


def test_a_line_end_in_the_name_of_a_file_comes_back(tmp_path: Path) -> None:
    paths = ["1\r=b.png", "2.png"]
    for name in paths:
        Image.new("L", (4, 4)).save(tmp_path / name)
    write_csv(tmp_path / "issues.csv", pd.DataFrame({"path": paths, "given_label": ["a", "b"], "label_quality": 0.5}))
    assert read_source(tmp_path / "issues.csv", label_column="given_label").paths == tuple(paths)
