"""JSON files of annotation tools: recognised by what they hold."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cvcoteach._json import parsed_text
from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import Table
from cvcoteach.data.sources.paths import folders_beside
from cvcoteach.data.sources.records import frame_table
from cvcoteach.data.sources.source import Choices, Format, Source, UnlabelledError, count, printable_name
from cvcoteach.data.sources.table import read_table, read_table_unlabelled


def content_of(file: Path) -> Any:
    """Return what a JSON file holds. Raises InputError for what is no JSON."""
    try:
        return _parsed(file, file.stat().st_mtime_ns, file.stat().st_size)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}).") from None


@functools.lru_cache(maxsize=2)  # recognised, then read
def _parsed(file: Path, *_: int) -> Any:
    try:
        return parsed_text(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except ValueError as error:
        raise InputError(f"{file.name} is no JSON ({error}).") from None


def _holds(test: Callable[[Any], bool], of_folders: bool) -> Callable[[Path], bool]:
    """Return whether a path is a .json file whose content passes a test; a broken one passes none.

    A folder with `labels.json` and `data` is of the format that is `of_folders`, whatever it holds but COCO.
    """

    def recognises(location: Path) -> bool:
        file = file_of(location)
        if file is None:
            return False
        try:
            content = content_of(file)
        except InputError:
            return of_folders and location.is_dir()
        return of_folders and not is_coco(content) if location.is_dir() else test(content)

    return recognises


def is_coco(content: Any) -> bool:
    """Return whether what a JSON file holds is COCO's."""
    return isinstance(content, dict) and all(isinstance(content.get(k), list) for k in ("images", "annotations"))


def file_of(location: Path) -> Path | None:
    """Return the JSON file of a path: itself, or `labels.json` of a folder that FiftyOne exported."""
    if not location.is_dir():
        return location if location.suffix.lower() == ".json" else None
    file = location / "labels.json"
    return file if file.is_file() and (location / "data").is_dir() else None


def json_format(
    name: str,
    test: Callable[[Any], bool],
    opened: Callable[[Path, Choices], Table],
    *,
    takes: frozenset[str] = frozenset(["path_pattern"]),
    of_folders: bool = False,
) -> Format:
    """Return the format of JSON files whose content passes a test; `opened` makes a table of one.

    takes: the choices that mean something to it.
    """

    def table(location: Path, choices: Choices) -> Table:
        file = file_of(location)
        if file is None:
            raise InputError(f"{location} is no .json file; --format {name} takes one.")
        if not test(content_of(file)):
            raise InputError(f"{file} does not hold what {name} writes; --format names another format.")
        return opened(file, choices)

    def read(location: Path, choices: Choices) -> Source:
        # the label column that was named is a name in the tool, not one of the table made here
        own = Choices(path_pattern=choices.path_pattern, annotator_column=choices.annotator_column)
        return read_table(table(location, choices), own)

    def read_unlabelled(location: Path, choices: Choices) -> Source:
        once = replace(choices, annotator_column=None)
        return read_table_unlabelled(table(location, once), Choices(path_pattern=choices.path_pattern))

    return Format(_holds(test, of_folders), read, read_unlabelled, lambda *_: True, takes, name)


def table_of(file: Path, rows: list[tuple[str, Any]], without: int, why: str) -> Table:
    """Return paths and labels as a table, with a note on those left out."""
    if not rows:
        raise UnlabelledError(f"none of the {without:,} images of {file.name} has a label.")
    verb = "was" if without == 1 else "were"
    notes = (f"{count(without, 'image')} of {file.name} {why} {verb} left out.",) if without else ()
    return frame_table(file, pd.DataFrame(rows, columns=["path", "label"]), notes)


def of_folder(location: Path, source: Source, split: str | None) -> Source:
    """Return the images of one file of a folder as those of the folder, where it has several or a split was named."""
    file = source.location
    if not location.is_dir() or split is None:
        return source
    said = source.description.removesuffix(printable_name(file)) + printable_name(location)
    return replace(source, location=location, description=said)


def beside(file: Path, path: str, subset: str = "") -> str:
    """Return the longest end of a path of another machine that lies beside the file; the path where none does.

    subset: a folder that may lie between: `images/train/1.jpg`.
    """
    parts = path.split("/")
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        for folder in ("", *folders_beside(file)):
            for place in (
                (os.path.join(folder, end), os.path.join(folder, subset, end))
                if subset
                else (os.path.join(folder, end),)
            ):
                if os.path.isfile(file.parent / place):  # False for a name that no file can have
                    return place
    return path
