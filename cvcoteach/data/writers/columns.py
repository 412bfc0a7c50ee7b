"""Which columns of a table the labels and paths of a source came from, by what they hold."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._validation import InputError, IntArray, is_whole, whole_name
from cvcoteach.data.sources import Choices, Source
from cvcoteach.data.sources.columns import LABEL_COLUMNS
from cvcoteach.data.sources.source import printable_name
from cvcoteach.data.writers.copy import Copy


@dataclass(frozen=True, eq=False)
class Columns:
    """Where the images of a source stand in its table."""

    path: str
    """Column of the paths; empty where the table holds the images themselves."""
    labels: tuple[str, ...]
    """Column of the labels, or the K one-hot ones."""
    rows: IntArray
    """(n,) row of the table of each image, ascending."""


def find_columns(
    names: Sequence[str],
    load: Callable[[str], pd.Series[Any]],
    source: Source,
    choices: Choices,
    class_names: Mapping[str, Sequence[str]],
    rows: IntArray | None = None,
) -> Columns:
    """Return the columns that say what the source says.

    Args:
        names: Of all columns.
        load: Returns a column by name; all rows of the table.
        source: As it was read from the table.
        choices: How it was read.
        class_names: Names of the classes 0, 1, … of a column, where the file holds them.
        rows: (n,) row of the table of each image, ascending, where the table holds the images themselves.

    Raises:
        InputError: None does: the table has changed since, or is of a layout that cannot be written.
    """
    path = ""
    if rows is None:
        path, rows = _find_paths(names if choices.path_column is None else [choices.path_column], load, source)
    others = [name for name in names if name != path]
    usual = sorted(others, key=lambda name: name.strip().casefold() not in LABEL_COLUMNS)  # stable: usual ones first
    for name in usual if choices.label_column is None else [choices.label_column]:
        if _says(load(name).iloc[rows], source, class_names.get(name, ())):
            return Columns(path, (name,), rows)
    of_class = {_plain(name): name for name in others}
    hot = tuple([of_class.get(name, "") for name in source.class_names])
    if all(hot):
        values = np.stack([pd.to_numeric(load(name).iloc[rows], errors="coerce").to_numpy() for name in hot], axis=1)
        if np.isin(values, (0, 1)).all() and (values.argmax(axis=1) == source.labels).all():
            return Columns(path, hot, rows)
    raise InputError(
        f"no column of {source.location.name} holds the labels as they were read; name it: --label-column."
    )


def rows_held(source: Source) -> IntArray | None:
    """Return the row (n,) of each image that a table itself holds; None for a table of paths."""
    prefix = f"{printable_name(source.location)}#"
    rows = [path.removeprefix(prefix) for path in source.paths]
    return np.array(rows, np.int64) if all(map(str.isdecimal, rows)) else None


def relocated(copy: Copy, destination: Path) -> list[str] | None:
    """Return the n paths as a table at `destination` has to say them; None where they stay as they are."""
    folder, source = destination.parent.resolve(), copy.source
    if copy.choices.path_pattern is not None:
        return None
    names = source.paths if source.file_names is None else source.file_names
    if folder == source.root.resolve():
        # files in a folder of the table's own name, which the copy does not have
        own = f"{source.location.stem}/{source.paths[0]}" if source.location.is_file() else ""
        return list(names) if names[0] == own and destination.stem != source.location.stem else None
    prefix = os.path.relpath(source.root.resolve(), folder)
    return [name if os.path.isabs(name) else os.path.join(prefix, name) for name in names]


def pattern_from(copy: Copy, destination: Path) -> str | None:
    """Return the --path-pattern with which the copy is read, where another than the source's is needed."""
    pattern, root = copy.choices.path_pattern, copy.source.root.resolve()
    if pattern is None or os.path.isabs(pattern) or destination.parent.resolve() == root:
        return None
    return os.path.relpath(root / pattern, destination.parent.resolve())


def _find_paths(names: Sequence[str], load: Callable[[str], pd.Series[Any]], source: Source) -> tuple[str, IntArray]:
    for name in names:
        rows = _rows_of(load(name), source.paths)
        if rows is not None:
            return name, rows
    raise InputError(f"no column of {source.location.name} holds the paths as they were read; it has changed since.")


def _rows_of(values: pd.Series[Any], paths: Sequence[str]) -> IntArray | None:
    """Return the rows (n,) at which the paths stand, in their order; None where they do not."""
    there = values.astype(str).tolist()
    if len(there) == len(paths):
        return np.arange(len(paths)) if tuple(there) == tuple(paths) else None
    rows, row = [], -1
    place = iter(enumerate(there))
    for path in paths:  # rows without a label were left out
        row = next((number for number, value in place if value == path), -1)
        if row < 0:
            return None
        rows.append(row)
    return np.array(rows, np.int64)


def _says(values: pd.Series[Any], source: Source, class_names: Sequence[str]) -> bool:
    """Return whether a column (n,) holds the names of the source's classes, as it labels its images."""
    codes, written = pd.factorize(values)
    if (codes < 0).any():
        return False
    label = np.full(len(written), -1, np.int64)
    label[codes] = source.labels
    if not np.array_equal(label[codes], source.labels):
        return False
    for value, number in zip(written.tolist(), label.tolist(), strict=True):
        name = source.class_names[number]
        whole = not isinstance(value, str) and float(value).is_integer() if _is_number(value) else False
        named = class_names[int(value)] if class_names and whole and 0 <= value < len(class_names) else value
        if name not in (_plain(str(named)), _plain(str(value))) and not (whole and name == str(int(value))):
            return False
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(np.isfinite(value))


def _plain(text: str) -> str:
    name = unicodedata.normalize("NFC", text.strip())
    return whole_name(name) if is_whole(name) else name
