"""The image paths of a table -> files: beside the table, in a folder beside it, with an ending, or one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cvcoteach._validation import InputError, verb
from cvcoteach.data.sources.labels import refuse_missing
from cvcoteach.data.sources.source import IMAGE_SUFFIXES, Source, count, spread

_LOOKED_AT = 1000
"""Rows of a table whose file is looked for at once; the decoder meets the others."""
_ELSEWHERE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_ENDINGS = (".jpg", ".png", ".jpeg", *sorted(IMAGE_SUFFIXES - {".jpg", ".png", ".jpeg"}))


class Found(NamedTuple):
    """The images that a column of paths names."""

    paths: tuple[str, ...]
    """n, as written."""
    files: tuple[str, ...] | None
    """n, relative to the table's folder or absolute, where they differ from `paths`."""
    notes: tuple[str, ...] = ()


def find_files(table: Path, column: str, values: pd.Series, pattern: str | None) -> Found:
    """Return the files that the column of a table names.

    Args:
        table: the file of the table.
        column: its name, for messages.
        values: (n,) the column.
        pattern: how a value becomes a file, `{}` being the value; None: the value itself, relative to the table's
            folder, or what is probably meant where most of those looked at are not there.

    Raises:
        InputError: for paths that are missing, and where most of the rows, of those looked at, name no file.
    """
    name = table.name
    refuse_missing(values, f"paths in the column {column!r} of {name}", words_are_missing=False)
    paths = tuple(values.astype(str).tolist())
    broken = next((row for row, path in enumerate(paths) if "\n" in path.strip()), None)
    if broken is not None:
        raise InputError(
            f"the path in row {broken + 1} of {name} spans several lines ({paths[broken][:40]!r}); a stray quotation "
            "mark swallows the rows after it: take it out."
        )
    rows = spread(len(paths), _LOOKED_AT).tolist()
    if pattern is not None:
        if "{}" not in pattern:
            raise InputError(f"--path-pattern is {pattern!r}; it takes {{}} where the value of the column goes.")
        return _checked(table, column, paths, rows, [pattern.replace("{}", path) for path in paths])
    if _n_found(table.parent, paths, rows) * 2 < len(rows):
        for change, note in _changes(table):
            files = [change(path) for path in paths]
            if _n_found(table.parent, files, rows) * 2 >= len(rows):
                return Found(paths, tuple(files), (f"{note} in the column {column!r} of {name}.",))
    return _checked(table, column, paths, rows, None)


def names_files(table: Path, values: Sequence[str]) -> bool:
    """Return whether half of the values or more name a file beside the table, or in a usual folder beside it."""
    rows = range(len(values))
    places = [table.parent, *(table.parent / name for name in folders_beside(table))]
    return bool(len(values)) and any(2 * _n_found(place, values, rows) >= len(values) for place in places)


def names_images(table: Path, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the columns of which half of the values or more name an image in a folder beside a table."""
    by_name = _by_name(table)
    return [
        column for column, values in columns.items() if 2 * sum(value in by_name for value in values) >= len(values) > 0
    ]


def folders_beside(table: Path) -> list[str]:
    """Return the usual folders of images that lie beside a table: `data`, as FiftyOne writes them, or its own name."""
    return [name for name in ("data", "images", table.stem) if (table.parent / name).is_dir()]


def note_on_repeats(source: Source) -> tuple[str, ...]:
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
        give = "gives" if len(differs) == 1 else "give"
        raise InputError(
            f"{count(len(differs), 'row')} of {source.location.name} {give} an earlier path another "
            f"label, the first is row {row + 1}: {source.paths[row]} is {earlier} and {later}; it takes one label per "
            "image (--annotator-column names who gave each)."
        )
    repeated = len(source) - len(uniques)
    return (
        f"{count(repeated, 'row')} of {source.location.name} {verb(repeated, 'repeats', 'repeat')} an earlier path; "
        "a wrong label is hard to see where a model has trained on a copy of the image.",
    )


def _changes(table: Path) -> list[tuple[Callable[[str], str], str]]:
    """Return what may be meant by paths that point nowhere, with a note each."""
    inside = [
        (partial(_inside, folder), f"the folder {folder} was added to the paths") for folder in folders_beside(table)
    ]
    endings = [(partial(_with_ending, suffix), f"the ending {suffix} was added to the paths") for suffix in _ENDINGS]
    return [
        (_with_slashes, "backslashes were read as slashes"),
        (str.strip, "spaces around paths were removed"),
        *inside,
        *endings,
        (_ByName(table), "images in the folders beside the table were found by the names"),
    ]


class _ByName:
    """The image that is called like a value, in the folders beside a table."""

    def __init__(self, table: Path) -> None:
        self._table = table
        self._found: dict[str, str] | None = None

    def __call__(self, value: str) -> str:
        self._found = _by_name(self._table) if self._found is None else self._found
        return self._found.get(value, value)


def _by_name(table: Path) -> dict[str, str]:
    """Return the images in the folders beside a table, and in their folders, by name and by name without its ending.

    Names that two of them have are left out.
    """
    found: dict[str, str] = {}
    twice: set[str] = set()
    folders = [each.name for each in _visible(table.parent) if each.is_dir()]
    waiting = [(name, 1) for name in sorted(folders)]
    while waiting:
        folder, depth = waiting.pop()
        for entry in _visible(table.parent / folder):
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in IMAGE_SUFFIXES:
                for name in (entry.name, stem):
                    twice.update([name] if name in found else [])
                    found[name] = f"{folder}/{entry.name}"
            elif depth == 1 and entry.is_dir():
                waiting.append((f"{folder}/{entry.name}", 2))
    return {name: path for name, path in found.items() if name not in twice}


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/")


def _inside(folder: str, path: str) -> str:
    return f"{folder}/{path}"


def _with_ending(suffix: str, path: str) -> str:
    return path + suffix


def _exists(folder: Path, path: str) -> bool:
    try:
        return os.path.isfile(os.path.join(folder, path))
    except ValueError:  # a path with a null byte
        return False


def _n_found(folder: Path, paths: Sequence[str], rows: Sequence[int]) -> int:
    return sum(_exists(folder, paths[row]) for row in rows)


def _checked(
    table: Path, column: str, paths: tuple[str, ...], rows: Sequence[int], files: Sequence[str] | None
) -> Found:
    folder, looked_for = table.parent, paths if files is None else files
    nowhere = [row for row in rows if not _exists(folder, looked_for[row])]
    if 2 * len(nowhere) <= len(rows):
        return Found(paths, None if files is None else tuple(files))
    first = looked_for[nowhere[0]]
    of = f"{len(nowhere):,} of {len(rows):,} paths{'' if len(rows) == len(paths) else ' looked at'}"
    where = f"in the column {column!r} of {table.name}"
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
