"""A table file -> its path and label columns, found by name or by what they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from cvcoteach._validation import InputError, IntArray, near

TABLE_SUFFIXES = frozenset([".csv", ".tsv", ".parquet", ".pq"])
PATH_COLUMNS = frozenset(
    ["path", "filepath", "file_path", "file", "filename", "file_name", "image", "image_path", "image_file", "img_path"]
)
LABEL_COLUMNS = frozenset(["label", "labels", "given_label", "class", "class_name", "target", "category"])

_TEXT_SUFFIXES = frozenset([".csv", ".tsv"])
_LOOKED_AT = 50
"""Rows that tell a column of paths from others."""


def is_table(location: Path) -> bool:
    """Whether that is a file with the ending of a table."""
    return location.suffix.lower() in TABLE_SUFFIXES and location.is_file()


class Columns(NamedTuple):
    """One row an image."""

    path_column: str
    label_column: str
    paths: pd.Series[Any]
    labels: pd.Series[Any]


def read_columns(location: Path, path_column: str | None, label_column: str | None) -> Columns:
    """The path and the label column of a .csv, .tsv or .parquet; values of text tables stay text, as written.

    Raises InputError for what is no table, for columns that are not there, and where they are not obvious.
    """
    columns = columns_of(location)
    for option, column in (("--path-column", path_column), ("--label-column", label_column)):
        if column is not None and column not in columns:
            raise InputError(f"{location.name} has no column {column!r} ({option}); {near(column, columns)}")
    if path_column is None:
        path_column = _find_path_column(location, columns, label_column)
    if label_column is None:
        label_column = _find_label_column(location, columns, path_column)
    table = _load(location, [path_column, label_column])
    if not len(table):
        raise InputError(f"{location.name} has columns, but no rows; it takes one row an image.")
    return Columns(path_column, label_column, table[path_column], table[label_column])


def spread(n: int, most: int) -> IntArray:
    """At most `most` of 0..n-1, evenly spread, ascending."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.empty(0, np.int64)


@contextmanager
def _csv(location: Path, columns: Sequence[str] | None = None) -> Iterator[csv.CSVStreamingReader]:
    """A text table in pieces, all its values (or those of `columns`) as written.

    Raises InputError for what is none, and where a row has more or fewer values than the header.
    """
    try:
        with open(location, encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count) if location.suffix.lower() == ".csv" else "\t"
        with csv.open_csv(
            location,
            parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns or [], pa.string()), include_columns=columns
            ),
        ) as reader:
            yield reader
    except OSError as error:
        raise InputError(f"{location} cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{location.name} is no UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise InputError(f"{location.name} is no UTF-8 text; save it as UTF-8.") from None
        if "Empty CSV" in str(error):
            raise InputError(f"{location.name} is empty; it takes a header and one row an image.") from None
        raise InputError(f"{location.name} cannot be read as a table: {' '.join(str(error).split())}") from None


def _schema(location: Path) -> pa.Schema:
    try:
        return pq.read_schema(location)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{location.name} cannot be read as Parquet: {' '.join(str(error).split())}") from None


def columns_of(location: Path) -> dict[str, bool]:
    """Each column of a table, and whether it holds text. Raises InputError for what is no table."""
    if location.suffix.lower() in _TEXT_SUFFIXES:
        with _csv(location) as reader:
            names = reader.schema.names
        if len(set(names)) < len(names):
            raise InputError(f"{location.name} has two columns of the same name: {', '.join(names)}.")
        return dict.fromkeys(names, True)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return {field.name: any(test(field.type) for test in text) for field in _schema(location)}


def _load(location: Path, columns: Sequence[str], most: int | None = None) -> pd.DataFrame:
    """These columns, of all rows or of the first."""
    wanted = list(dict.fromkeys(columns))
    if location.suffix.lower() in _TEXT_SUFFIXES:
        with _csv(location, wanted) as reader:
            return _rows(reader, most)
    schema = _schema(location)
    for column in wanted:
        kind = schema.field(column).type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise InputError(f"the column {column!r} of {location.name} holds {kind}; it takes text or whole numbers.")
    try:
        with pq.ParquetFile(location) as file:
            batches = file.iter_batches(columns=wanted)
            return _rows(
                pa.RecordBatchReader.from_batches(pa.schema([schema.field(name) for name in wanted]), batches), most
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{location.name} cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _rows(reader: pa.RecordBatchReader, most: int | None) -> pd.DataFrame:
    if most is None:
        return reader.read_all().to_pandas(ignore_metadata=True)
    first = next(iter(reader), None)
    return pd.DataFrame(columns=reader.schema.names) if first is None else first.slice(0, most).to_pandas()


def _find_path_column(location: Path, columns: dict[str, bool], label_column: str | None) -> str:
    texts = [column for column, text in columns.items() if text and column != label_column]
    table = _load(location, texts) if texts else pd.DataFrame()
    rows = spread(len(table), 20)
    existing = [
        column
        for column in texts
        if len(rows)
        and sum(os.path.isfile(os.path.join(location.parent, str(p))) for p in table[column].iloc[rows]) * 2
        >= len(rows)
    ]
    usual = [column for column in texts if column.casefold() in PATH_COLUMNS]
    for choice in ([column for column in usual if column in existing], existing, usual):
        if len(choice) == 1:
            return choice[0]
    raise InputError(
        f"{location.name} has the columns {', '.join(columns)}; say with --path-column which one holds the image paths."
    )


def _point_to_files(paths: pd.Series[Any], folder: Path) -> bool:
    """Whether half of them at least do."""
    return bool(len(paths)) and 2 * sum(os.path.isfile(os.path.join(folder, str(path))) for path in paths) >= len(paths)


def _find_label_column(location: Path, columns: dict[str, bool], path_column: str) -> str:
    others = [column for column in columns if column != path_column]
    usual = [column for column in others if column.casefold() in LABEL_COLUMNS]
    for choice in (usual, others):
        if len(choice) == 1:
            return choice[0]
    raise InputError(
        f"{location.name} has the columns {', '.join(columns)}; "
        "say with --label-column which one holds the given labels."
    )
