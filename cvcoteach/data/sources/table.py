"""Any table, one row per image -> a source: its columns found, its paths resolved, its labels checked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._validation import InputError, near
from cvcoteach.data.sources.labels import describe, encode, one_hot, refuse_missing
from cvcoteach.data.sources.source import (
    IMAGE_SUFFIXES,
    Choices,
    Source,
    count,
    printable_name,
    spread,
    unlabelled,
)

PATH_COLUMNS = frozenset(
    ["path", "filepath", "file_path", "file", "filename", "file_name", "image", "image_path", "image_file", "img_path"]
)
LABEL_COLUMNS = frozenset(["label", "labels", "given_label", "class", "class_name", "target", "category"])

_LOOKED_AT = 1000
"""Rows of a table whose file is looked for at once; the decoder meets the others."""
_ELSEWHERE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_ENDINGS = (".jpg", ".png", ".jpeg", *sorted(IMAGE_SUFFIXES - {".jpg", ".png", ".jpeg"}))


@dataclass(frozen=True, eq=False)
class Table:
    """A table file, whatever its format."""

    file: Path
    columns: Mapping[str, bool]
    """Each column, and whether it holds text."""
    load: Callable[..., pd.DataFrame]
    """(columns, most=None) -> these columns, of all rows or of the first `most`."""
    words_are_missing: bool = False
    """Whether words such as NA stand for a missing value."""
    notes: tuple[str, ...] = ()
    no_paths: str | None = None
    """Why no column holds paths, where that is known."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the classes 0, 1, … of a column, where the file holds them."""


def read_table(table: Table, choices: Choices) -> Source:
    """Return the images and labels of a table; its columns are found by name, or by what they hold, unless given.

    Raises:
        InputError: for columns that are not there or not obvious, for values that are missing, and for paths that
            point nowhere.
    """
    name = table.file.name
    _check_columns(table, choices)
    path_column = choices.path_column or _find_path_column(table, choices)
    label_column = choices.label_column or _find_label_column(table, path_column)
    if label_column is None:
        columns = [column for column in table.columns if column != path_column]
        frame = table.load([path_column, *columns])
        encoded_as = one_hot(columns, frame[columns].to_numpy())
        if encoded_as is None:
            raise InputError(_say_which(table, "--label-column", "given labels"))
        values = pd.Series(np.array(columns, dtype=object)[encoded_as])
        where, said = f"labels of {name}", f"columns {path_column} and, one-hot, {', '.join(columns)} of {name}"
    else:
        frame = table.load([path_column, label_column])
        values = frame[label_column]
        where, said = (
            f"labels in the column {label_column!r} of {name}",
            f"columns {path_column} and {label_column} of {printable_name(table.file)}",
        )
    if not len(frame):
        raise InputError(f"{name} has columns, but no rows; it takes one row per image.")
    paths, files, notes = _paths(table, path_column, frame[path_column], choices.path_pattern)
    encoded = encode(
        _named(values, table.class_names.get(label_column or "", ()), where),
        where,
        words_are_missing=table.words_are_missing,
    )
    source = Source(
        table.file,
        table.file.parent,
        paths,
        encoded.labels,
        encoded.class_names,
        notes=(*table.notes, *notes, *encoded.notes),
        description=describe(len(paths), len(encoded.class_names), said),
        file_names=files,
    )
    repeats = _check_repeats(source)
    return replace(source, notes=(*source.notes, *repeats))


def read_table_unlabelled(table: Table, choices: Choices) -> Source:
    """Return the images of a table: the column that is named, else one of a usual name, else the first."""
    _check_columns(table, choices)
    usual = [column for column in table.columns if _plain(column) in PATH_COLUMNS]
    path_column = choices.path_column or (usual or list(table.columns))[0]
    frame = table.load([path_column])
    if not len(frame):
        raise InputError(f"{table.file.name} has columns, but no rows; it takes one row per image.")
    paths, files, notes = _paths(table, path_column, frame[path_column], choices.path_pattern)
    source = unlabelled(table.file, table.file.parent, paths)
    return replace(source, notes=(*table.notes, *notes), file_names=files or source.file_names)


def table_has_labels(table: Table, choices: Choices) -> bool:
    """Return whether a column beside that of the paths may hold labels."""
    return choices.label_column is not None or len(table.columns) > 1


# -- columns --


def _check_columns(table: Table, choices: Choices) -> None:
    for option, column in (("--path-column", choices.path_column), ("--label-column", choices.label_column)):
        if column is not None and column not in table.columns:
            raise InputError(f"{table.file.name} has no column {column!r} ({option}); {near(column, table.columns)}")


def _plain(column: str) -> str:
    return column.strip().casefold()


def _say_which(table: Table, option: str, what: str) -> str:
    return (
        f"{table.file.name} has the columns {', '.join(table.columns)}; say with {option} which one holds the {what}."
    )


def _find_path_column(table: Table, choices: Choices) -> str:
    texts = [column for column, text in table.columns.items() if text and column != choices.label_column]
    usual = [column for column in texts if _plain(column) in PATH_COLUMNS]
    # a value for each usual name may be enough; files are looked at all the same, which tell more than a name
    frame = table.load(texts, _LOOKED_AT) if texts else pd.DataFrame()
    rows = spread(len(frame), 20)
    existing = [
        column
        for column in texts
        if len(rows) and 2 * sum(_exists(table.file.parent, str(p)) for p in frame[column].iloc[rows]) >= len(rows)
    ]
    for choice in ([column for column in usual if column in existing], existing, usual):
        if len(choice) == 1:
            return choice[0]
    raise InputError(table.no_paths or _say_which(table, "--path-column", "image paths"))


def _find_label_column(table: Table, path_column: str) -> str | None:
    """Return the label column; None where there may be one per class. Raises InputError where it is not clear."""
    # pandas writes its index into a column without a name
    others = [column for column in table.columns if column != path_column and _plain(column) not in ("", "unnamed: 0")]
    usual = [column for column in others if _plain(column) in LABEL_COLUMNS]
    for choice in (usual, others):
        if len(choice) == 1:
            return choice[0]
    if len(others) > 1 and not usual:
        return None
    raise InputError(_say_which(table, "--label-column", "given labels"))


def _named(values: pd.Series[Any], names: Sequence[str], where: str) -> pd.Series[Any]:
    """Return the names of classes that the file holds in place of their numbers."""
    if not names or not pd.api.types.is_integer_dtype(values):
        return values
    if len(values) and not 0 <= values.min() <= values.max() < len(names):
        raise InputError(f"{where} are from {values.min()} to {values.max()}, but the file names {len(names)} classes.")
    return pd.Series(np.array(names, dtype=object)[values.to_numpy(dtype=np.int64)])


# -- paths --


def _exists(folder: Path, path: str) -> bool:
    try:
        return os.path.isfile(os.path.join(folder, path))
    except ValueError:  # a path with a null byte
        return False


def _paths(
    table: Table, column: str, values: pd.Series[Any], pattern: str | None
) -> tuple[tuple[str, ...], tuple[str, ...] | None, tuple[str, ...]]:
    """Return the paths as written, the files where these differ, and notes.

    Raises InputError for missing paths, and where most of the rows, of those looked at, name no file.
    """
    name = table.file.name
    refuse_missing(values, f"paths in the column {column!r} of {name}", words_are_missing=False)
    paths = tuple(values.astype(str).tolist())
    broken = next((row for row, path in enumerate(paths) if "\n" in path.strip()), None)
    if broken is not None:
        raise InputError(
            f"the path in row {broken + 1} of {name} spans several lines ({paths[broken][:40]!r}); a stray quotation "
            "mark swallows the rows after it: take it out."
        )
    folder = table.file.parent
    rows = spread(len(paths), _LOOKED_AT).tolist()
    if pattern is not None:
        if "{}" not in pattern:
            raise InputError(f"--path-pattern is {pattern!r}; it takes {{}} where the value of the column goes.")
        return _checked(table, column, paths, rows, [pattern.replace("{}", path) for path in paths])
    if _n_found(folder, paths, rows) * 2 < len(rows):
        for change, note in _changes():
            files = [change(path) for path in paths]
            if _n_found(folder, files, rows) * 2 >= len(rows):
                return paths, tuple(files), (f"{note} in the column {column!r} of {name}.",)
    return _checked(table, column, paths, rows, None)


def _changes() -> list[tuple[Callable[[str], str], str]]:
    """Return what may be meant by paths that point nowhere, with a note each."""
    endings = [(partial(_with_ending, suffix), f"the ending {suffix} was added to the paths") for suffix in _ENDINGS]
    return [
        (_with_slashes, "backslashes were read as slashes"),
        (str.strip, "spaces around paths were removed"),
        *endings,
    ]


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/")


def _with_ending(suffix: str, path: str) -> str:
    return path + suffix


def _n_found(folder: Path, paths: Sequence[str], rows: Sequence[int]) -> int:
    return sum(_exists(folder, paths[row]) for row in rows)


def _checked(
    table: Table, column: str, paths: tuple[str, ...], rows: Sequence[int], files: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...] | None, tuple[str, ...]]:
    folder, looked_for = table.file.parent, paths if files is None else files
    nowhere = [row for row in rows if not _exists(folder, looked_for[row])]
    if 2 * len(nowhere) <= len(rows):
        return paths, None if files is None else tuple(files), ()
    first = looked_for[nowhere[0]]
    of = f"{len(nowhere):,} of {len(rows):,} paths{'' if len(rows) == len(paths) else ' looked at'}"
    where = f"in the column {column!r} of {table.file.name}"
    if _ELSEWHERE.match(first):
        raise InputError(
            f"{of} {where} are addresses on the web, the first in row {nowhere[0] + 1}: {first}; download the images "
            "first and write where they are."
        )
    hint = "--path-column names another column, --path-pattern '/folder/of/images/{}.png' says where they are"
    beside = next(
        (other for other in (folder.parent, Path.cwd()) if _n_found(other, looked_for, rows) * 2 >= len(rows)), None
    )
    if beside is not None:
        hint = f"they are found from {beside}: --path-pattern '{os.path.join(beside, '')}{{}}'"
    raise InputError(
        f"{of} {where} point nowhere, the first in row {nowhere[0] + 1}: {os.path.join(folder, '')}{first} does not "
        f"exist (paths are relative to the table's folder; {hint})."
    )


def _check_repeats(source: Source) -> tuple[str, ...]:
    """Return a note on paths that come twice; raises InputError where their labels differ."""
    codes, uniques = pd.factorize(np.array(source.paths, object))
    if len(uniques) == len(source):
        return ()
    first_label = np.empty(len(uniques), np.int64)
    first_label[codes[::-1]] = source.labels[::-1]  # the last to be written is the first row
    differs = np.flatnonzero(first_label[codes] != source.labels)
    if len(differs):
        row = int(differs[0])
        earlier, later = (source.class_names[label] for label in (first_label[codes[row]], source.labels[row]))
        raise InputError(
            f"{count(len(differs), 'row')} of {source.location.name} give an earlier path another label, the first is "
            f"row {row + 1}: {source.paths[row]} is {earlier} and {later}; it takes one label per image."
        )
    return (
        f"{len(source) - len(uniques):,} rows of {source.location.name} repeat an earlier path; "
        "a wrong label is hard to see where a model has trained on a copy of the image.",
    )
