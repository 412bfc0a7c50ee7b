"""A folder of several Parquet files, as Hugging Face's hub lays a dataset out -> one table for each split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import OF_TABLES, Listed, Table, listing
from cvcoteach.data.sources.parquet import SHARD, SUFFIXES, open_parquet
from cvcoteach.data.sources.source import (
    IMAGE_SUFFIXES,
    Choices,
    Format,
    Source,
    chosen_split,
    count,
    some,
)
from cvcoteach.data.sources.table import read_table, read_table_unlabelled, table_has_labels
from cvcoteach.data.sources.unpacked import stamp_of
from cvcoteach.data.splits import split_in_name

_DEPTH = 3
"""Folders that the hub puts around files at most: configuration, split."""


def recognises(location: Path) -> bool:
    """Return whether a path is a folder with Parquet files in it and no images."""
    return location.is_dir() and bool(_files(location))


def splits_of(location: Path, choices: Choices) -> list[str]:
    """Return the splits that names of files or their folders tell, as Hugging Face reads them; none for one table."""
    return [name for name in _by_split(location) if name]


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of all files, or those of one split.

    Raises InputError for files that do not go together.
    """
    table, notes = _opened(location, choices)
    taken = None if splits_of(location, choices) else choices.split
    source = read_table(table, replace(choices, split=taken))
    return replace(source, location=location).noted(*notes)


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of all files, or those of one split."""
    table, notes = _opened(location, choices)
    return replace(read_table_unlabelled(table, choices), location=location).noted(*notes)


FORMAT = Format(
    recognises,
    read,
    read_unlabelled,
    lambda path, choices: table_has_labels(_opened(path, choices)[0], choices),
    OF_TABLES,
    "parquet-files",
    splits_of,
)


def files_and_table(location: Path, choices: Choices) -> tuple[list[Path], Table]:
    """Return the files of the split to read, in order, and the table that they are; errors as of `read`."""
    parts = _by_split(location)
    named = [name for name in parts if name]
    name = chosen_split(named, choices, location.name)[0] if named else ""
    return parts[name], _opened(location, choices)[0]


def _files(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder, at a depth of three at most, by name; none beside images or partitions."""
    found: list[Path] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        depth = len(Path(where).relative_to(folder).parts)
        if any("=" in name for name in folders) or (folders and depth == _DEPTH):
            return []
        if any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in names):
            return []
        own = sorted(name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES)
        found += [Path(where, name) for name in own]
    return found


def _by_split(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split; of one table without splits under an empty name."""
    result: dict[str, list[Path]] = {}
    for file in _files(folder):
        result.setdefault(_split_of(file.relative_to(folder)), []).append(file)
    return result


def _split_of(file: Path) -> str:
    """Return the split that the name of a file tells, or that of its folder; empty for none."""
    shard = SHARD.fullmatch(file.stem)
    own = shard["name"] if shard else file.stem
    for part in (own, *reversed(file.parts[:-1])):
        if name := split_in_name(part):
            return name
    return own if shard else ""


def _opened(location: Path, choices: Choices) -> tuple[Table, tuple[str, ...]]:
    """Return the files of the split to read as one table, and notes. Raises InputError where they differ."""
    parts = _by_split(location)
    if not parts:
        raise InputError(f"{location} holds no Parquet files, or images beside them.")
    named = [name for name in parts if name]
    if not named:
        return _one_table(location, parts[""], ""), ()
    name, notes = chosen_split(named, choices, location.name)
    if "" in parts:
        left = some(file.name for file in parts[""])
        notes = (*notes, f"{left} in {location.name} say nothing of a split and were left out.")
    return _one_table(location, parts[name], name), notes


def _one_table(location: Path, files: Sequence[Path], split: str) -> Table:
    """Return several files as one table, with the classes of all of them by name."""
    tables = [open_parquet(file) for file in files]
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns) or set(table.images) != set(first.images):
            raise InputError(
                f"{table.file.name} has the columns {listing(table.columns)}, but {first.file.name} has "
                f"{listing(first.columns)}; files of one dataset have the same."
            )
    named = {column for table in tables for column in table.class_names}
    lacking = [(column, table) for column in sorted(named) for table in tables if column not in table.class_names]
    if lacking:
        column, table = lacking[0]
        raise InputError(
            f"{table.file.name} names no classes of the column {column!r}, but other files of {location.name} do; save "
            "them again with the same features."
        )
    class_names = {
        column: tuple(dict.fromkeys(name for table in tables for name in table.class_names[column])) for column in named
    }

    def load(columns: Sequence[str], most: int | None = None) -> pd.DataFrame:
        some_of = tables[:1] if most is not None else tables
        return pd.concat([_renumbered(table, columns, most, class_names) for table in some_of], ignore_index=True)

    def images(column: str) -> Iterator[bytes]:
        for table in tables:
            yield from table.images[column]()

    def listed(column: str) -> Listed:
        parts = [_renumbered_lists(table, column, class_names) for table in tables]
        before = np.cumsum([0, *[part.n_rows for part in parts]])
        rows = [part.row + start for part, start in zip(parts, before, strict=False)]
        values = pd.concat([part.values for part in parts], ignore_index=True)
        return Listed(int(before[-1]), np.concatenate(rows), values)

    folders = {(file.resolve() if file.is_symlink() else file).parent for file in files}  # links of a pattern
    folder = folders.pop() if len(folders) == 1 else location
    return Table(
        folder / location.name,
        {column: any(table.columns[column] for table in tables) for column in first.columns},
        load,
        images={column: partial(images, column) for column in first.images},
        stamp=stamp_of(files),
        part=split,
        class_names=class_names,
        lists={column: partial(listed, column) for column in first.lists},
    )


def _renumbered_lists(table: Table, column: str, class_names: dict[str, tuple[str, ...]]) -> Listed:
    """Return a column of lists of one file with the numbers that the classes have in all files."""
    found = table.lists[column]()
    if column not in class_names:
        return found
    values = found.values.astype(object)  # whole numbers beside missing ones
    numbers = _in_all(values.dropna().infer_objects(), table, column, class_names[column])
    values.loc[numbers.index] = numbers.astype(object)
    return found._replace(values=values)


def _renumbered(
    table: Table, columns: Sequence[str], most: int | None, class_names: dict[str, tuple[str, ...]]
) -> pd.DataFrame:
    """Return columns of one file with the numbers that the classes have in all files; -1 stays."""
    frame = table.load(columns, most)
    for column in class_names.keys() & set(frame.columns):
        frame[column] = _in_all(frame[column], table, column, class_names[column])
    return frame


def _in_all(values: pd.Series[Any], table: Table, column: str, names: tuple[str, ...]) -> pd.Series[Any]:
    """Return numbers of the classes of one file as numbers of these names."""
    own, place = table.class_names[column], {name: k for k, name in enumerate(names)}
    if not pd.api.types.is_integer_dtype(values) or not len(values):
        return values
    if not -1 <= values.min() <= values.max() < len(own):
        raise InputError(
            f"labels in the column {column!r} of {table.file.name} are from {values.min()} to {values.max()}, but the "
            f"file names {count(len(own), 'class', 'classes')}."
        )
    numbers = np.array([*[place[name] for name in own], -1], np.int64)[values.to_numpy()]
    return pd.Series(numbers, values.index, name=values.name)
