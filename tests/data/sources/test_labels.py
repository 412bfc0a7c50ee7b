"""Given labels of any kind become class numbers and names."""

from __future__ import annotations

from pathlib import Path

from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import write


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
