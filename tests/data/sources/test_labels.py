"""Given labels of any kind become class numbers and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import save, touch, write


def test_whole_numbers_are_ordered_by_value(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na.png,10\nb.png,9\nc.png,-1\n"))
    assert source.class_names == ("-1", "9", "10")
    assert source.labels.tolist() == [2, 1, 0]


def test_whole_numbers_that_became_floats_are_whole_numbers(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na.png,10.0\nb.png,9.0\nc.png,9\n"))
    assert source.class_names == ("9", "10")
    assert source.labels.tolist() == [1, 0, 0]


def test_numbers_among_names_are_names(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na.png,10\nb.png,9\nc.png,none\n"))
    assert source.class_names == ("10", "9", "none")


def test_spaces_and_composed_accents_make_no_other_class(pets: Path) -> None:
    source = read_source(
        write(pets / "t.csv", "path,label\na.png,one \nb.png, caf\u00e9\nc.png,cafe\u0301\nsub/d.png,one\n")
    )
    assert source.class_names == ("caf\u00e9", "one")
    assert source.labels.tolist() == [1, 0, 0, 1]
    assert source.notes[0].startswith("3 labels in the column 'label' of t.csv were read without the spaces")


@pytest.mark.parametrize(("one", "other"), [("7", "007"), ("Cat", "cat"), ("big cat", "big_cat")])
def test_labels_that_may_be_meant_as_one_get_a_note(pets: Path, one: str, other: str) -> None:
    source = read_source(write(pets / "t.csv", f"path,label\na.png,{one}\nb.png,{other}\nc.png,{one}\n"))
    assert len(source.class_names) == 2
    assert source.notes == (
        "classes that may be meant as one: "
        + " and ".join(map(repr, source.class_names))
        + "; write them alike if they are.",
    )


def test_minus_one_among_numbers_from_zero_is_refused(pets: Path) -> None:
    with pytest.raises(InputError, match=r"1 of 3 labels .* is -1 among 0-1, which often means that there is no label"):
        read_source(write(pets / "t.csv", "path,label\na.png,0\nb.png,1\nc.png,-1\n"))


def test_plus_and_minus_one_are_two_classes(pets: Path) -> None:
    assert read_source(write(pets / "t.csv", "path,label\na.png,-1\nb.png,1\n")).class_names == ("-1", "1")


def test_a_class_called_na_is_a_class_where_missing_values_are_something_else(pets: Path) -> None:
    labels = ["EU", "NA"]
    pd.DataFrame({"path": ["a.png", "b.png"], "label": labels}).to_parquet(pets / "t.parquet")
    npz = save(pets, images=np.zeros((2, 4, 4), np.uint8), labels=np.array(labels))
    folder = touch(pets / "in", "EU/1.png", "NA/2.png")
    for location in (pets / "t.parquet", npz, folder):
        assert read_source(location).class_names == ("EU", "NA")
