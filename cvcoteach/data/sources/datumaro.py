"""Datumaro's JSON: `annotations/SUBSET.json`, with a label per image, beside `images`."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import Table
from cvcoteach.data.sources.json_file import content_of, of_folder, table_of
from cvcoteach.data.sources.source import Choices, Format, Source, chosen_split
from cvcoteach.data.sources.table import read_table, read_table_unlabelled

_TAKES = frozenset(["path_pattern", "split"])


def is_datumaro(content: Any) -> bool:
    """Return whether what a JSON file holds is Datumaro's."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("items"), list)
        and isinstance(content.get("categories"), dict)
        and ("dm_format_version" in content or "label" in content["categories"])
    )


def _holds(file: Path) -> bool:
    try:
        status = file.stat()
    except OSError:
        return False
    return _holds_now(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)  # of several subsets each is asked again for every one that is read
def _holds_now(file: Path, *_: int) -> bool:
    try:
        return is_datumaro(content_of(file))
    except InputError:
        return False


def recognises(location: Path) -> bool:
    """Return whether a path is a JSON file of Datumaro, or a folder with such files in `annotations`."""
    if location.is_dir():
        return bool(_subsets(location))
    return location.suffix.lower() == ".json" and _holds(location)


def _subsets(folder: Path) -> dict[str, Path]:
    files = sorted((folder / "annotations").glob("*.json")) if (folder / "annotations").is_dir() else []
    return {file.stem: file for file in files if _holds(file)}


def splits_of(location: Path, choices: Choices) -> list[str]:
    """Return the subsets of a folder where there are several, none of a file."""
    subsets = list(_subsets(location)) if location.is_dir() else []
    return subsets if len(subsets) > 1 else []


def file_of(location: Path, choices: Choices) -> Path:
    """Return the file to read: of a folder that of the split that was named. Raises InputError for none."""
    if location.is_dir():
        subsets = _subsets(location)
        if not subsets:
            raise InputError(f"{location} holds no JSON of Datumaro in the folder annotations.")
        return subsets[chosen_split(list(subsets), choices, location.name)[0]]
    if choices.split is not None:
        raise InputError(f"--split is {choices.split!r}, but {location.name} is one part; name the folder of them.")
    if not _holds(location):
        raise InputError(f"{location} does not hold what datumaro writes; --format names another format.")
    return location


def open_datumaro(location: Path, choices: Choices) -> Table:
    """Return the images of a Datumaro file that have a label, of one subset where there are several.

    Raises:
        InputError: where an image has several labels, and for numbers that name nothing.
    """
    file = file_of(location, choices)
    content = content_of(file)
    try:
        names = [str(label["name"]) for label in content["categories"].get("label", {}).get("labels", [])]
        rows: list[tuple[str, Any]] = []
        for item in content["items"]:
            given = sorted({each["label_id"] for each in item["annotations"] if each.get("type") == "label"})
            if len(given) > 1:
                words = [names[number] if number < len(names) else str(number) for number in given]
                raise InputError(
                    f"the item {item['id']} of {file.name} has the labels {', '.join(words[:5])}; it takes one label "
                    "per image."
                )
            if given and not 0 <= given[0] < len(names):
                raise InputError(
                    f"the item {item['id']} of {file.name} has the label {given[0]}, but it names {len(names)} classes."
                )
            if given:
                rows.append((_image_of(item, file), names[given[0]]))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file.name} is not as Datumaro writes it ({type(error).__name__}: {error}).") from None
    return table_of(file, rows, len(content["items"]) - len(rows), "without a label")


def _image_of(item: dict[str, Any], file: Path) -> str:
    """Return the path of an item's image, relative to the file: in `images`, with or without the subset's folder."""
    image = item.get("image") or item.get("media") or {}
    path = str(image.get("path") or f"{item['id']}.jpg")
    folder = os.path.join("..", "images")
    for place in (os.path.join(folder, file.stem, path), os.path.join(folder, path), path):
        if (file.parent / place).is_file():
            return place
    for subset in _folders(file.parent / folder):  # of a copy under another name
        if (file.parent / folder / subset / path).is_file():
            return os.path.join(folder, subset, path)
    return os.path.join(folder, file.stem, path)


def _folders(place: Path) -> list[str]:
    return sorted(each.name for each in place.iterdir() if each.is_dir()) if place.is_dir() else []


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of a Datumaro dataset."""
    source = read_table(open_datumaro(location, choices), Choices(path_pattern=choices.path_pattern))
    return of_folder(location, source, choices.split)


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of a Datumaro dataset that have a label."""
    return read_table_unlabelled(open_datumaro(location, choices), Choices(path_pattern=choices.path_pattern))


FORMAT = Format(recognises, read, read_unlabelled, lambda *_: True, _TAKES, "datumaro", splits_of)
