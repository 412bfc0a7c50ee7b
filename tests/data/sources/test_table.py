"""Tables: columns found, paths resolved, labels checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import write


def test_a_csv_names_its_images_relative_to_itself(pets: Path) -> None:
    absolute = pets / "c.png"
    table = write(pets / "t.csv", f"path,label\nsub/d.png,dog\na.png,cat\n{absolute},dog\n")
    source = read_source(table)
    assert source.paths == ("sub/d.png", "a.png", str(absolute))
    assert source.files == (str(pets / "sub/d.png"), str(pets / "a.png"), str(absolute))
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    assert (source.root, source.location) == (pets, table)


@pytest.mark.parametrize(
    "header",
    ["filename,class", "Image_Path,TARGET", "file,something", "whatever,category", "whatever,given_label"],
)
def test_obvious_columns_are_found(pets: Path, header: str) -> None:
    source = read_source(write(pets / "t.csv", f"{header}\na.png,x\nb.png,y\n"))
    assert source.paths == ("a.png", "b.png")
    assert source.class_names == ("x", "y")


def test_the_path_column_is_the_one_whose_files_exist(pets: Path) -> None:
    table = write(pets / "t.csv", "image,where,note,label\n17,a.png,p,x\n18,b.png,q,y\n")
    assert read_source(table).paths == ("a.png", "b.png")


def test_of_two_usual_names_the_one_whose_files_exist_is_taken(pets: Path) -> None:
    table = write(pets / "t.csv", "filename,filepath,label\nd.png,sub/d.png,x\nx.png,a.png,y\n")
    assert read_source(table).paths == ("sub/d.png", "a.png")


def test_columns_can_be_named(pets: Path) -> None:
    table = write(pets / "t.csv", "path,second,label,worse\na.png,c.png,x,p\nb.png,sub/d.png,y,q\n")
    source = read_source(table, path_column="second", label_column="worse")
    assert source.paths == ("c.png", "sub/d.png")
    assert source.class_names == ("p", "q")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,u,v\n1,x,p\n2,y,q\n", "has the columns id, u, v; say with --path-column"),
        ("path,u,v\na.png,x,p\nb.png,y,q\n", "has the columns path, u, v; say with --label-column"),
        ("path,label,class\na.png,x,p\nb.png,y,q\n", "say with --label-column"),
        ("path\na.png\n", "say with --label-column"),
        ("", "is empty"),
        ("path,label\n", "has columns, but no rows"),
        ("path,label\na.png,x\nb.png,x\n", r"holds one class only \(x\)"),
        (
            "path,label\na.png,x\nb.png,\nc.png, \n",
            "2 of 3 labels in the column 'label' of t.csv are missing, .* row 2",
        ),
        ("path,label\na.png,x\nb.png,NaN\n", "1 of 2 labels in .* are missing, the first in row 2"),
        ("path,label\na.png,x\n,y\n", "1 of 2 paths in the column 'path' of t.csv are missing, the first in row 2"),
        ("path,label\na.png,x\nb.png,y,z\n", "cannot be read as a table"),
        (
            "path,label\na.png,x\n1.png,y\n2.png,y\n",
            "2 of 3 paths in the column 'path' of t.csv point nowhere, .* row 2",
        ),
        (
            "path,label\na.png,x\nb.png,y\na.png,y\n",
            "1 row of t.csv give an earlier path another label, .* row 3: a.png",
        ),
    ],
)
def test_a_table_that_does_not_fit_gets_a_sentence(pets: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(write(pets / "t.csv", text))


def test_an_unknown_column_names_the_near_one(pets: Path) -> None:
    table = write(pets / "t.csv", "path,label\na.png,x\nb.png,y\n")
    with pytest.raises(InputError, match=r"no column 'lable' \(--label-column\); did you mean label\?"):
        read_source(table, label_column="lable")


def test_a_few_missing_files_are_left_to_the_decoder(pets: Path) -> None:
    assert len(read_source(write(pets / "t.csv", "path,label\na.png,x\nb.png,y\ngone.png,y\n"))) == 3


def test_a_path_that_comes_twice_is_noted(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na.png,x\nb.png,y\na.png,x\n"))
    assert len(source) == 3
    assert source.notes[0].startswith("1 rows of t.csv repeat an earlier path")
