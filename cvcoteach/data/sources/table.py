"""Any table, one row per image -> a source: its columns found, its paths resolved, its labels checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._validation import BoolArray, InputError, IntArray, near
from cvcoteach.data.sources.joined import describe_splits
from cvcoteach.data.sources.labels import describe, encode, group_codes, one_hot, refuse_several_labels, split_names
from cvcoteach.data.sources.paths import Found, find_files, names_files, note_on_repeats
from cvcoteach.data.sources.source import (
    SPLIT_WORDS,
    Choices,
    Source,
    UnlabelledError,
    count,
    printable_name,
    spread,
    unlabelled,
)
from cvcoteach.data.sources.unpacked import unpack
from cvcoteach.data.splits import Names, is_train, rows_by_split

PATH_COLUMNS = frozenset(
    ["path", "filepath", "file_path", "file", "filename", "file_name", "image", "image_path", "image_file", "img_path"]
)
LABEL_COLUMNS = frozenset(["label", "labels", "given_label", "class", "class_name", "target", "category"])

SPLIT_COLUMNS = frozenset(["split", "splits", "subset", "partition", "fold"])
"""Columns that say to which part of a dataset an image belongs."""

OF_TABLES = frozenset(["path_column", "label_column", "path_pattern", "group_column", "split_column", "split"])
"""The fields of `Choices` that mean something to a table."""

_LOOKED_AT = 1000
"""Rows of a table in which a column is looked for."""


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
    images: Mapping[str, Callable[[], Iterator[bytes]]] = field(default_factory=dict)
    """Columns that hold encoded images, and what gives them, row by row."""
    stamp: str = ""
    """What tells whether these have changed."""
    part: str = ""
    """Which part of the file it is, where the file holds several tables."""
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
    label_column = choices.label_column or _find_label_column(table, path_column, choices)
    split_column, together = _find_split_column(table, path_column, label_column, choices)
    also = [column for column in (choices.group_column, split_column) if column is not None]
    if label_column is None:
        others = _others(table, path_column, choices)
        parts = _splits(table, others)
        columns = [column for column in others if column not in parts]
        frame = table.load([*_unless_images(table, path_column), *columns, *also])
        hot = frame[columns].to_numpy()
        encoded_as = one_hot(columns, hot)
        if encoded_as is None:
            refuse_several_labels(hot, f"the columns {columns[0]} to {columns[-1]} of {name}")
            raise InputError(_say_which(table, "--label-column", "given labels"))
        values = pd.Series(np.array(columns, dtype=object)[encoded_as])
        where, said = f"labels of {name}", f"columns {path_column} and, one-hot, {', '.join(columns)} of {name}"
    else:
        frame = table.load([*_unless_images(table, path_column), label_column, *also])
        values = frame[label_column]
        where, said = (
            f"labels in the column {label_column!r} of {name}",
            f"columns {path_column} and {label_column} of {printable_name(table.file)}",
        )
    if not len(frame):
        raise InputError(f"{name} has columns, but no rows; it takes one row per image.")
    names = table.class_names.get(label_column or "", ())
    unknown, wanted = _unknown(values, names), np.ones(len(frame), np.bool_)
    splits = None if split_column is None else _splits_in(table, split_column, frame)
    if choices.split is not None and splits is not None:
        wanted = _of_split(splits, choices.split, f"{name}, column {split_column!r},")
        unknown, splits = unknown & wanted, None
    unlabelled_rows: tuple[str, ...] = ()
    known = np.flatnonzero(wanted & ~unknown)
    if len(known) < len(frame):
        frame, values = frame.iloc[known].reset_index(drop=True), values.iloc[known].reset_index(drop=True)
        splits = None if splits is None else splits[known]
    if unknown.any():
        verb = "was" if unknown.sum() == 1 else "were"
        unlabelled_rows = (f"{count(int(unknown.sum()), 'row')} of {name} without a label (-1) {verb} left out.",)
        if not len(frame):
            raise UnlabelledError(
                f"none of {len(unknown):,} {where} is known: all are -1; it takes one label per image."
            )
    paths, files, notes = _images_of(table, path_column, frame, choices, known)
    encoded = encode(_named(values, names, where), where, words_are_missing=table.words_are_missing)
    source = Source(
        table.file,
        table.file.parent,
        paths,
        encoded.labels,
        encoded.class_names,
        notes=(*table.notes, *unlabelled_rows, *notes, *encoded.notes),
        description=describe(len(paths), len(encoded.class_names), said),
        file_names=files,
    )
    if choices.group_column is not None:
        where = f"groups in the column {choices.group_column!r} of {name}"
        groups = group_codes(frame[choices.group_column], where, words_are_missing=table.words_are_missing)
        source = replace(source, groups=groups.codes, group_names=groups.names)
    elif others := [name for name in _others(table, path_column, choices) if name != label_column and label_column]:
        source = replace(source, other_columns=partial(_rest, table, others, known))
    if splits is not None and len(sizes := rows_by_split(splits)) > 1:
        told = describe_splits({each: len(rows) for each, rows in sizes.items()}, len(encoded.class_names), source)
        source = replace(source, splits=splits, description=f"{told}, splits in the column {split_column}")
    if together is not None:
        source = replace(source, notes=(*source.notes, together))
    return replace(source, notes=(*source.notes, *note_on_repeats(source)))


def _rest(table: Table, columns: Sequence[str], rows: IntArray) -> pd.DataFrame:
    """Return columns that hold neither paths nor labels, without those of several values per row."""
    plain = []
    for column in columns:
        try:
            plain.append(table.load([column]).iloc[rows])
        except InputError:  # nested values
            continue
    return pd.concat(plain, axis=1) if plain else pd.DataFrame(index=range(len(rows)))


def _unless_images(table: Table, column: str) -> list[str]:
    """Return the column as a list to load, without those that hold images."""
    return [] if column in table.images else [column]


def _images_of(table: Table, column: str, frame: pd.DataFrame, choices: Choices, rows: IntArray) -> Found:
    """Return the files that a column names, or holds; rows: those of the table that are left in `frame`."""
    if column not in table.images:
        return find_files(table.file, column, frame[column], choices.path_pattern)
    if choices.path_pattern is not None:
        raise InputError(f"--path-pattern is given, but the column {column!r} of {table.file.name} holds the images.")
    files = unpack(table.file, table.stamp, table.images[column], choices, f"{table.part} {column}")
    name = printable_name(table.file)
    return Found(tuple([f"{name}#{row}" for row in rows.tolist()]), tuple([files[row] for row in rows.tolist()]))


def read_table_unlabelled(table: Table, choices: Choices) -> Source:
    """Return the images of a table: the column that is named, else one of a usual name, else the first."""
    _check_columns(table, choices)
    usual = [column for column in table.columns if _plain(column) in PATH_COLUMNS and column not in table.images]
    path_column = choices.path_column or [*table.images, *usual, *table.columns][0]
    if path_column in table.images:
        inside = unpack(table.file, table.stamp, table.images[path_column], choices, f"{table.part} {path_column}")
        names = [f"{printable_name(table.file)}#{row}" for row in range(len(inside))]
        return replace(unlabelled(table.file, table.file.parent, names), file_names=tuple(inside), notes=table.notes)
    frame = table.load([path_column])
    if not len(frame):
        raise InputError(f"{table.file.name} has columns, but no rows; it takes one row per image.")
    paths, files, notes = find_files(table.file, path_column, frame[path_column], choices.path_pattern)
    source = unlabelled(table.file, table.file.parent, paths)
    return replace(source, notes=(*table.notes, *notes), file_names=files or source.file_names)


def table_has_labels(table: Table, choices: Choices) -> bool:
    """Return whether a column beside that of the paths may hold labels."""
    return choices.label_column is not None or len(table.columns) > 1


# -- columns --


def _check_columns(table: Table, choices: Choices) -> None:
    for option, column in (
        ("--path-column", choices.path_column),
        ("--label-column", choices.label_column),
        ("--group-column", choices.group_column),
        ("--split-column", choices.split_column),
    ):
        if column is not None and column not in table.columns:
            raise InputError(f"{table.file.name} has no column {column!r} ({option}); {near(column, table.columns)}")


def _plain(column: str) -> str:
    return column.strip().casefold()


def _say_which(table: Table, option: str, what: str) -> str:
    return (
        f"{table.file.name} has the columns {', '.join(table.columns)}; say with {option} which one holds the {what}."
    )


def _find_path_column(table: Table, choices: Choices) -> str:
    if len(table.images) == 1:
        return next(iter(table.images))
    if table.images:
        raise InputError(_say_which(table, "--path-column", "images"))
    taken = (choices.label_column, choices.group_column, choices.split_column)
    texts = [column for column, text in table.columns.items() if text and column not in taken]
    usual = [column for column in texts if _plain(column) in PATH_COLUMNS]
    # a value for each usual name may be enough; files are looked at all the same, which tell more than a name
    frame = table.load(texts, _LOOKED_AT) if texts else pd.DataFrame()
    rows = spread(len(frame), 20)
    existing = [column for column in texts if names_files(table.file, [str(path) for path in frame[column].iloc[rows]])]
    for choice in ([column for column in usual if column in existing], existing, usual):
        if len(choice) == 1:
            return choice[0]
    raise InputError(_say_which(table, "--path-column", "image paths"))


def _others(table: Table, path_column: str, choices: Choices) -> list[str]:
    """Return the columns that may hold labels; pandas writes its index into one without a name."""
    taken = (path_column, choices.group_column, choices.split_column, *table.images)
    return [column for column in table.columns if column not in taken and _plain(column) not in ("", "unnamed: 0")]


def _find_label_column(table: Table, path_column: str, choices: Choices) -> str | None:
    """Return the label column; None where there may be one per class. Raises InputError where it is not clear."""
    others = _others(table, path_column, choices)
    usual = [column for column in others if _plain(column) in LABEL_COLUMNS]
    # exports of a reviewed dataset have the label of now beside the one that was given
    of_now = [column for column in usual if _plain(column) != "given_label"]
    of_fiftyone = [column for column in others if column.endswith(".label")]
    named = [column for column in others if column in table.class_names]
    for choice in (usual, of_now, named, others, [] if usual else of_fiftyone):
        if len(choice) == 1:
            return choice[0]
    if len(others) > 1 and not usual:
        parts = _splits(table, others)
        rest = [column for column in others if column not in parts]
        return rest[0] if len(rest) == 1 else None
    raise InputError(_say_which(table, "--label-column", "given labels"))


def _splits(table: Table, columns: Sequence[str]) -> list[str]:
    """Return the columns that say train or test, by their name or by all of their values."""
    found = [column for column in columns if _plain(column) in SPLIT_COLUMNS]
    texts = [column for column in columns if table.columns[column] and column not in found]
    frame = table.load(texts, _LOOKED_AT) if texts else pd.DataFrame()
    return found + [
        column for column in texts if len(frame) and frame[column].astype(str).str.lower().isin(SPLIT_WORDS).all()
    ]


def _find_split_column(
    table: Table, path_column: str, label_column: str | None, choices: Choices
) -> tuple[str | None, str | None]:
    """Return the column of splits, and a note where one names parts of another kind, such as numbered folds.

    A column that is not named counts where it says nothing but train, test and the like, and train among them.
    """
    if choices.split_column is not None:
        return choices.split_column, None
    others = [column for column in _others(table, path_column, choices) if column != label_column]
    found = _splits(table, others)
    for column in found:
        values = table.load([column])[column].dropna().astype(str).str.strip().str.lower()
        values = values[values != ""]
        if len(values) and values.isin(SPLIT_WORDS).all() and values.map(is_train).any():
            return column, None
    if choices.split is not None:
        raise InputError(
            f"--split is {choices.split!r}, but no column of {table.file.name} says of which split an image is; "
            "--split-column names it."
        )
    if not found or label_column is None:
        return None, None
    return None, (
        f"the column {found[0]!r} of {table.file.name} names parts of a dataset; images of all parts are judged "
        f"together (--split-column {found[0]} keeps them apart)."
    )


def _splits_in(table: Table, column: str, frame: pd.DataFrame) -> Names:
    where = f"splits in the column {column!r} of {table.file.name}"
    return split_names(frame[column], where, words_are_missing=table.words_are_missing)


def _of_split(splits: Names, wanted: str, where: str) -> BoolArray:
    """Return which images (n,) are of a split. Raises InputError where none is."""
    found: BoolArray = np.char.lower(splits) == wanted.lower()
    if not found.any():
        names = ", ".join(np.unique(splits).tolist())
        raise InputError(f"--split is {wanted!r}, but {where} holds the splits {names}.")
    return found


def _unknown(values: pd.Series[Any], names: Sequence[str]) -> BoolArray:
    """Return which labels (n,) are -1 among numbers of named classes: Hugging Face's "not known"."""
    if not names or not pd.api.types.is_integer_dtype(values):
        return np.zeros(len(values), np.bool_)
    return (values == -1).to_numpy(dtype=np.bool_, na_value=False)


def _named(values: pd.Series[Any], names: Sequence[str], where: str) -> pd.Series[Any]:
    """Return the names of classes that the file holds in place of their numbers."""
    if not names or not pd.api.types.is_integer_dtype(values):
        return values
    if len(values) and not 0 <= values.min() <= values.max() < len(names):
        raise InputError(f"{where} are from {values.min()} to {values.max()}, but the file names {len(names)} classes.")
    return pd.Series(np.array(names, dtype=object)[values.to_numpy(dtype=np.int64)])
