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


@pytest.mark.parametrize("text", ["a.png,x\nb.png,y\n", "a.png;x\nb.png;y\n", "x,sub/d.png\ny,b.png\n"])
def test_without_a_header_the_first_row_is_an_image(pets: Path, text: str) -> None:
    source = read_source(write(pets / "t.csv", text))
    assert len(source) == 2
    assert source.class_names == ("x", "y")
    assert source.notes[0].startswith("t.csv has no header: its first row is read as an image")
    assert source.description == f"2 images, 2 classes, columns {'1 and 2' if text[0] == 'a' else '2 and 1'} of t.csv"


def test_columns_without_a_header_have_numbers(pets: Path) -> None:
    table = write(pets / "t.csv", "a.png,p,x\nb.png,q,y\n")
    assert read_source(table, label_column="3").class_names == ("x", "y")


def test_the_separator_that_a_spreadsheet_names_is_obeyed(pets: Path) -> None:
    for head in ("sep=;\n", '"sep=;"\n', "SEP=;\r\n"):
        assert read_source(write(pets / "t.csv", f"{head}path;label\na.png;x,1\nb.png;y\n")).class_names == ("x,1", "y")


@pytest.mark.parametrize(
    "rows",
    [
        ['a.png,"x', "b.png,x", 'c.png,y"', "sub/d.png,y"],
        ['"a.png,x', "b.png,x", 'c.png",y', "sub/d.png,y"],
    ],
)
def test_stray_quotes_that_swallow_rows_get_a_sentence(pets: Path, rows: list[str]) -> None:
    with pytest.raises(
        InputError, match=r"a stray quotation mark swallows the rows after it|cannot be read as a table"
    ):
        read_source(write(pets / "t.csv", "path,label\n" + "\n".join(rows) + "\n"))


def test_stray_quotes_in_a_column_that_is_not_used_get_a_sentence(pets: Path) -> None:
    text = 'path,label,note\na.png,x,"5\nb.png,y,\nc.png,x,7"\nsub/d.png,y,\n'
    with pytest.raises(InputError, match=r"a value in row 1 of t\.csv holds 2 further lines"):
        read_source(write(pets / "t.csv", text))


def test_notes_of_several_lines_are_fine(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", 'path,label,note\na.png,x,"two\nlines"\nb.png,y,\n'))
    assert source.class_names == ("x", "y")


def test_a_pointer_in_place_of_a_table_is_named(pets: Path) -> None:
    table = write(pets / "t.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="is a Git LFS pointer, not the file itself; `git lfs pull` fetches it"):
        read_source(table)


def test_a_word_for_missing_says_how_a_class_of_that_name_is_kept(pets: Path) -> None:
    with pytest.raises(InputError, match=r"is missing, .* \('NA' stands for a missing value .* Parquet holds it"):
        read_source(write(pets / "t.csv", "path,label\na.png,EU\nb.png,NA\n"))


def test_the_index_that_pandas_writes_is_no_label(pets: Path) -> None:
    assert read_source(write(pets / "t.csv", ",path,kind\n0,a.png,x\n1,b.png,y\n")).class_names == ("x", "y")
