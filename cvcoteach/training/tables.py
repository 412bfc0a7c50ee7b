"""A table file -> its path and label columns, found by name or by what they hold."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from cvcoteach._checks import InputError, IntArray, near

TABLE_SUFFIXES = frozenset([".csv", ".tsv", ".parquet", ".pq"])
PATH_COLUMNS = frozenset(
    ["path", "filepath", "file_path", "file", "filename", "file_name", "image", "image_path", "image_file", "img_path"]
)
LABEL_COLUMNS = frozenset(["label", "labels", "given_label", "class", "class_name", "target", "category"])


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
    columns = _columns(location)
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


def _csv(location: Path, **options: Any) -> pd.DataFrame:
    """A text table, every value as written; raises InputError for what is none."""
    try:
        with open(location, encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(",;\t", key=header.count) if location.suffix.lower() == ".csv" else "\t"
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            return pd.read_csv(
                location,
                sep=separator,
                dtype=str,
                na_filter=False,
                index_col=False,
                encoding="utf-8-sig",
                **options,
            )
    except UnicodeDecodeError as error:
        raise InputError(f"{location.name} is no UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{location.name} is empty; it takes a header and one row an image.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise InputError(f"{location.name} cannot be read as a table: {' '.join(str(error).split())}") from None


def _schema(location: Path) -> pa.Schema:
    try:
        return pq.read_schema(location)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{location.name} cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _columns(location: Path) -> dict[str, bool]:
    """Each column, and whether it holds text."""
    if location.suffix.lower() in (".csv", ".tsv"):
        return dict.fromkeys(_csv(location, nrows=1).columns, True)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return {field.name: any(test(field.type) for test in text) for field in _schema(location)}


def _load(location: Path, columns: Sequence[str]) -> pd.DataFrame:
    if location.suffix.lower() in (".csv", ".tsv"):
        return _csv(location, usecols=list(dict.fromkeys(columns)))
    try:
        return pq.read_table(location, columns=list(dict.fromkeys(columns))).to_pandas(ignore_metadata=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{location.name} cannot be read as Parquet: {' '.join(str(error).split())}") from None


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
