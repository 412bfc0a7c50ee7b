"""CSV and TSV as people and spreadsheets write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import write


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_seen(pets: Path, separator: str) -> None:
    text = "path,label\na.png,x\nb.png,y\n".replace(",", separator)
    assert read_source(write(pets / "t.csv", text)).paths == ("a.png", "b.png")
    assert read_source(write(pets / "t.tsv", text.replace(separator, "\t"))).class_names == ("x", "y")


def test_a_byte_order_mark_is_no_part_of_a_name(pets: Path) -> None:
    (pets / "t.csv").write_bytes("\ufeffpath,label\na.png,é\nb.png,y\n".encode())
    assert read_source(pets / "t.csv").class_names == ("y", "é")


def test_text_that_is_no_utf8_gets_a_sentence(pets: Path) -> None:
    (pets / "t.csv").write_bytes("path,label\na.png,é\nb.png,y\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_source(pets / "t.csv")
