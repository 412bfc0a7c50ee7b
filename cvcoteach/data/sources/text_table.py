"""CSV and TSV: separator, header and quotation marks as people and spreadsheets write them."""

from __future__ import annotations

import csv as plain_csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from cvcoteach._csv import is_ours, unescaped_values
from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import OF_TABLES, Table, listing
from cvcoteach.data.sources.source import IMAGE_SUFFIXES, Choices, Format, Source
from cvcoteach.data.sources.table import read_table, read_table_unlabelled, table_has_labels

SUFFIXES = frozenset([".csv", ".tsv"])
_BLOCK = 2**20
_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Dialect:
    """How a text table is written."""

    separator: str
    names: tuple[str, ...]
    """Of the columns: the header, or 1, 2, … where there is none."""
    skipped: int
    """Lines before the first row, the header among them."""
    has_header: bool


def separator_of(file: Path) -> tuple[str, int]:
    """Return the separator of a text table with a header, and the lines before that. Errors as of `dialect_of`."""
    dialect = dialect_of(file)
    return dialect.separator, dialect.skipped - dialect.has_header


def dialect_of(file: Path) -> Dialect:
    """Return how a text table is written, by its first lines.

    A first row that names an image is not a header. `sep=;`, which spreadsheets write, is obeyed.

    Raises:
        InputError: where the file is empty, is not UTF-8, or cannot be read.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as opened:
            first, second = opened.readline(_BLOCK), opened.readline(_BLOCK)
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}).") from None
    declared = first.strip().strip('"')
    skipped = 0
    if declared.lower().startswith("sep=") and len(declared) <= 5:
        separator, first, skipped = declared[4:] or "\t", second, 1
        if separator not in _SEPARATORS:
            raise InputError(f"{file.name} names {separator!r} as its separator; it takes one of , ; | or a tab.")
    else:
        separator = max(_SEPARATORS, key=first.count) if file.suffix.lower() != ".tsv" else "\t"
    if not first.strip():
        raise InputError(f"{file.name} is empty; it takes a header and one row per image.")
    try:
        fields = next(plain_csv.reader([first], delimiter=separator), [])
    except plain_csv.Error as error:
        raise InputError(f"{file.name} cannot be read as a table: its first line is no header ({error}).") from None
    if any(_names_an_image(field, file.parent) for field in fields):
        return Dialect(separator, tuple(str(i + 1) for i in range(len(fields))), skipped, False)
    return Dialect(separator, tuple(field.strip() for field in fields), skipped + 1, True)


def open_text_table(file: Path) -> Table:
    """Return a CSV or TSV, of which nothing but the first lines is read yet; its values stay text, as written.

    Raises:
        InputError: for a file that is not a table, and for two columns of one name.
    """
    dialect = dialect_of(file)
    if len(set(dialect.names)) < len(dialect.names):
        raise InputError(f"{file.name} has two columns of the same name: {listing(dialect.names)}.")
    with _reader(file, dialect):
        pass  # the first block has rows of one length, or this raises
    notes: tuple[str, ...] = ()
    if not dialect.has_header:
        notes = (f"{file.name} has no header: its first row is read as an image, its columns are 1, 2, ….",)

    def as_it_was(table: pd.DataFrame) -> pd.DataFrame:
        return table.apply(unescaped_values) if is_ours(dialect.names) and len(table) else table

    def load(columns: Sequence[str], most: int | None = None) -> pd.DataFrame:
        with _reader(file, dialect, columns) as reader:
            if most is None:
                table = reader.read_all().to_pandas(ignore_metadata=True)
                _refuse_swallowed(file, dialect, len(table))
                return as_it_was(table)
            first = next(iter(reader), None)
            return pd.DataFrame(columns=list(columns)) if first is None else as_it_was(first.slice(0, most).to_pandas())

    return Table(file, dict.fromkeys(dialect.names, True), load, words_are_missing=True, notes=notes)


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of a CSV or TSV."""
    return read_table(open_text_table(location), choices)


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of a CSV or TSV."""
    return read_table_unlabelled(open_text_table(location), choices)


FORMAT = Format(
    lambda path: path.suffix.lower() in SUFFIXES and not path.is_dir(),
    read,
    read_unlabelled,
    lambda path, choices: table_has_labels(open_text_table(path), choices),
    OF_TABLES,
    name="csv",
)


def _names_an_image(field: str, folder: Path) -> bool:
    value = field.strip()
    if os.path.splitext(value)[1].lower() in IMAGE_SUFFIXES:
        return True
    place = os.path.join(folder, value.replace("\\", "/"))
    return "\0" not in value and any(os.path.isfile(place + suffix) for suffix in ("", *IMAGE_SUFFIXES) if value)


@contextmanager
def _reader(file: Path, dialect: Dialect, columns: Sequence[str] | None = None) -> Iterator[csv.CSVStreamingReader]:
    """Yield a text table in pieces, all its columns or some, as text.

    Raises InputError where a row has more or fewer values than the header, and for what is not UTF-8.
    """
    wanted = list(dict.fromkeys(columns)) if columns is not None else list(dialect.names)
    try:
        with csv.open_csv(
            file,
            read_options=csv.ReadOptions(column_names=list(dialect.names), skip_rows=dialect.skipped),
            parse_options=csv.ParseOptions(delimiter=dialect.separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted),
        ) as reader:
            yield reader
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}).") from error
    except pa.ArrowInvalid as error:
        said = " ".join(str(error).split())
        if "UTF8" in said:
            raise InputError(f"{file.name} is not UTF-8 text; save it as UTF-8.") from None
        if "Empty CSV" in said:
            raise InputError(f"{file.name} has columns, but no rows; it takes one row per image.") from None
        raise InputError(f"{file.name} cannot be read as a table: {said}") from None


def _refuse_swallowed(file: Path, dialect: Dialect, n_rows: int) -> None:
    """Raise InputError where a value holds what looks like further rows: a stray quotation mark swallowed them."""
    if _count_lines(file) <= n_rows + dialect.skipped:
        return
    row = 0
    with _reader(file, dialect) as reader:
        for batch in reader:
            for column in batch.columns:
                for i, value in enumerate(column.to_pylist()):
                    lines = (value or "").splitlines()[1:]
                    # the last line of a swallowed piece ends in the middle of a row
                    if any(line.count(dialect.separator) >= len(dialect.names) - 1 for line in lines):
                        raise InputError(
                            f"a value in row {row + i + 1} of {file.name} holds {len(lines):,} further lines "
                            f"({value[:40]!r}); a stray quotation mark swallows the rows after it: take it out."
                        )
            row += batch.num_rows


def _count_lines(file: Path) -> int:
    with open(file, "rb") as opened:
        return sum(block.count(b"\n") for block in iter(lambda: opened.read(_BLOCK), b""))
