"""Files of records, one per image: `path number` lines and JSON lines -> a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cvcoteach._json import parsed_text
from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import OF_TABLES, Table
from cvcoteach.data.sources.source import IMAGE_SUFFIXES, Format
from cvcoteach.data.sources.table import read_table, read_table_unlabelled, table_has_labels

LIST_SUFFIXES = frozenset([".txt", ".lst"])
LINES_SUFFIXES = frozenset([".jsonl", ".ndjson"])


def frame_table(file: Path, frame: pd.DataFrame, notes: tuple[str, ...] = ()) -> Table:
    """Return a table whose rows are in memory."""

    def load(columns: Sequence[str], most: int | None = None) -> pd.DataFrame:
        return frame[list(dict.fromkeys(columns))].head(len(frame) if most is None else most)

    text = {name: not pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns}
    return Table(file, text, load, notes=notes)


def open_list(file: Path) -> Table:
    """Return lines such as `images/1.jpg 3`, or `0<tab>3<tab>images/1.jpg` as MXNet writes them.

    Raises:
        InputError: for lines of another kind.
    """
    lines = [line for line in _text(file).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise InputError(f"{file.name} is empty; it takes a path and a label in each line.")
    rows = [path_and_label(line) for line in lines]
    wrong = next((number for number, row in enumerate(rows) if row is None), None)
    if wrong is not None:
        raise InputError(
            f"line {wrong + 1} of {file.name} is {lines[wrong][:60]!r}; it takes a path and a label, such as "
            "`images/1.jpg 3`."
        )
    return frame_table(file, pd.DataFrame(rows, columns=["path", "label"]))


def open_lines(file: Path) -> Table:
    """Return JSON lines, each an object with a path and a label, as the `metadata.jsonl` of Hugging Face.

    Raises:
        InputError: for lines that are no objects.
    """
    records: list[Mapping[str, Any]] = []
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = parsed_text(line)
        except ValueError as error:
            raise InputError(f"line {number} of {file.name} is no JSON ({error}).") from None
        if not isinstance(record, dict):
            raise InputError(f"line {number} of {file.name} is {line[:40]!r}; it takes an object per image.")
        records.append(record)
    if not records:
        raise InputError(f"{file.name} is empty; it takes an object per image in each line.")
    return frame_table(file, pd.DataFrame(records))


def _format(name: str, suffixes: frozenset[str], opened: Any) -> Format:
    return Format(
        lambda path: path.suffix.lower() in suffixes and not path.is_dir(),
        lambda path, choices: read_table(opened(path), choices),
        lambda path, choices: read_table_unlabelled(opened(path), choices),
        lambda path, choices: table_has_labels(opened(path), choices),
        OF_TABLES,
        name,
    )


LIST, LINES = _format("list", LIST_SUFFIXES, open_list), _format("jsonl", LINES_SUFFIXES, open_lines)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}).") from None


def path_and_label(line: str) -> tuple[str, str] | None:
    """Return the path, which may hold spaces, and the label of a line; None where it has no such pair."""
    parts = line.split("\t") if "\t" in line else line.rsplit(None, 1)
    parts = [part.strip() for part in parts]
    if len(parts) == 3 and _is_image(parts[2]) and not _is_image(parts[1]):
        return parts[2], parts[1]
    if len(parts) != 2 or not all(parts):
        return None
    return (parts[1], parts[0]) if _is_image(parts[1]) and not _is_image(parts[0]) else (parts[0], parts[1])


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
