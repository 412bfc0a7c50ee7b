"""CSVs of our own, in which no name is a formula: `=1+1` is written as `'=1+1`, and read back as it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from cvcoteach._files import check_regular, replacing
from cvcoteach._validation import InputError

_STARTS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""The last four are the first four at the width of Chinese letters, which some spreadsheets take for the same."""
_FORMULA = re.compile(r"'*(?![+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?\Z)[" + re.escape(_STARTS) + "]")
"""The start of a text that a spreadsheet may take for a formula, or that looks like one we escaped; not a number."""

_OURS = ({"path", "label_quality"}, {"path", "predicted_label", "probability"})
"""Columns by which our own tables are known: issues.csv and FiftyOne's export, predictions."""
LISTED = ("path", "label", "file")
"""All columns of a list of images, by which it is known."""


def escaped(text: str) -> str:
    """Return a text with an apostrophe before it where a spreadsheet could take it for a formula."""
    return "'" + text if _FORMULA.match(text) else text


def unescaped(text: str) -> str:
    """Return the text that `escaped` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def is_ours(columns: Iterable[str]) -> bool:
    """Return whether a table has the columns of one that we wrote, whose texts are escaped."""
    names = tuple(columns)
    there = set(names)
    return names == LISTED or any(ours <= there for ours in _OURS)


def unescaped_values(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of our own CSVs as it was before it was written."""
    return _changed(values, "'", unescaped)


def write_csv(path: Path, table: pd.DataFrame, *, index: bool = False, float_format: str | None = None) -> None:
    """Write a table atomically, its texts escaped: values, column names and, where it is written, the index.

    Raises:
        InputError: The disk is full or the folder cannot be written; what was there stays.
    """
    table = _escaped_table(table)
    if index:
        table.index = pd.Index([escaped(str(name)) for name in table.index], name=table.index.name)
    with replacing(path) as file:
        table.to_csv(file, index=index, float_format=float_format, lineterminator=_line_end(table))


def check_output(output: Path, source: str | Path, ours: Callable[[list[str]], bool], what: str) -> None:
    """Raise InputError if no CSV can be written there, or if a file of another kind would be lost.

    Args:
        output: The file to write.
        source: What is read for it, which is never replaced.
        ours: Whether the names of the columns are those of an earlier output.
        what: What that holds, such as predictions.
    """
    if output.is_dir():
        raise InputError(f"{output} is a folder; the output is a file.")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output.parent}, the folder for the {what}, does not exist; create it first.")
    if not output.exists():
        return
    check_regular(output)
    try:
        with open(output, encoding="utf-8") as file:
            header = file.readline().rstrip("\n").split(",")
    except (OSError, UnicodeDecodeError):
        header = []
    if not ours(header) or output.resolve() == Path(source).resolve():
        raise InputError(f"{output} exists and holds no earlier {what}; name another output.")


def csv_text(table: pd.DataFrame, *, float_format: str | None = None) -> str:
    """Return a table as text, its texts escaped, as `write_csv` writes it."""
    table = _escaped_table(table)
    return table.to_csv(index=False, float_format=float_format, lineterminator=_line_end(table))


def _line_end(table: pd.DataFrame) -> str:
    """Return what ends each line of a table: both letters where a name holds the first, else it would end a line too.

    Names are quoted where they hold a letter of the line end.
    """
    names = [*table.columns, *(() if pd.api.types.is_numeric_dtype(table.index) else table.index)]
    texts = [values for _, values in table.items() if _is_text(values)]
    odd = any("\r" in str(name) for name in names) or any(
        values.dropna().astype(str).str.contains("\r", regex=False).any() for values in texts
    )
    return "\r\n" if odd else "\n"


def _is_text(values: pd.Series[Any]) -> bool:
    return pd.api.types.is_object_dtype(values) or pd.api.types.is_string_dtype(values)


def _escaped_table(table: pd.DataFrame) -> pd.DataFrame:
    table = table.apply(lambda values: _changed(values, f"'{_STARTS}", escaped)) if len(table) else table.copy()
    table.columns = pd.Index([escaped(str(name)) for name in table.columns], name=table.columns.name)
    return table


def _changed(values: pd.Series[Any], starts: str, change: Any) -> pd.Series[Any]:
    """Return values with `change` made to the texts that begin with one of the characters in `starts`."""
    if not _is_text(values):
        return values
    text = values[values.notna()].astype(str)
    text = text[text.str.slice(0, 1).isin(list(starts))]
    if text.empty:
        return values
    values = values.astype(object)
    values.loc[text.index] = text.map(change)
    return values
