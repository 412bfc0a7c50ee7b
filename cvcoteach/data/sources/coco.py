"""COCO-style JSON whose annotations give each image one category."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvcoteach._validation import InputError
from cvcoteach.data.sources import json_file
from cvcoteach.data.sources.columns import Table
from cvcoteach.data.sources.json_file import beside, content_of, is_coco, of_folder, table_of
from cvcoteach.data.sources.source import Choices, Format, Source, chosen_split
from cvcoteach.data.sources.table import read_table, read_table_unlabelled

_FOLDER = "annotations"
_TAKES = frozenset(["path_pattern", "split"])
_OF_SPLIT = re.compile(r"(labels|instances)_(.+)\.json")
"""`labels_train.json`, as Datumaro and CVAT export labels of whole images, and `instances_train2017.json` of COCO."""


def recognises(location: Path) -> bool:
    """Return whether a path is a JSON file of COCO, or a folder with `annotations/labels_SPLIT.json` or the like.

    So is a folder with `labels.json` and `data`, as FiftyOne's COCODetectionDataset.
    """
    file = json_file.file_of(location)
    return (location.is_dir() and bool(_splits(location))) or (file is not None and _holds(file))


def _holds(file: Path) -> bool:
    try:
        return is_coco(content_of(file))
    except InputError:
        return False


def _splits(folder: Path) -> dict[str, Path]:
    """Return the files of a folder's splits; those of whole images where there are such of boxes too."""
    files = sorted((folder / _FOLDER).glob("*.json")) if (folder / _FOLDER).is_dir() else []
    named = [(found[1], found[2], file) for file in files if (found := _OF_SPLIT.fullmatch(file.name))]
    return {split: file for kind in ("instances", "labels") for of, split, file in named if of == kind}


def splits_of(location: Path, choices: Choices) -> list[str]:
    """Return the splits of a folder where there are several, none of a file."""
    splits = list(_splits(location)) if location.is_dir() else []
    return splits if len(splits) > 1 else []


def file_of(location: Path, choices: Choices) -> Path:
    """Return the file to read: of a folder that of the split that was named. Raises InputError for none."""
    file = location
    if location.is_dir():
        splits, exported = _splits(location), json_file.file_of(location)
        if not splits and exported is not None:
            return file_of(exported, choices)
        if not splits:
            raise InputError(f"{location} holds no labels_SPLIT.json of COCO in the folder {_FOLDER}.")
        file = splits[chosen_split(list(splits), choices, location.name)[0]]
    elif choices.split is not None:
        raise InputError(f"--split is {choices.split!r}, but {location.name} is one part; name the folder of them.")
    if not _holds(file):
        content_of(file)  # says what is broken
        raise InputError(f"{file} does not hold what coco writes; --format names another format.")
    return file


def open_coco(location: Path, choices: Choices) -> Table:
    """Return the images of a COCO file, or one split's of a folder, whose annotations give each of them one category.

    Raises:
        InputError: where an image has annotations of several categories, for numbers that name nothing, and for files
            that are something else.
    """
    return _table(file_of(location, choices))


def _table(file: Path) -> Table:
    content = content_of(file)
    try:
        names = {each["id"]: str(each["name"]) for each in content.get("categories") or []}
        given: dict[Any, Any] = {}
        for annotation in content["annotations"]:
            image, category = annotation["image_id"], annotation["category_id"]
            if given.setdefault(image, category) != category:
                raise InputError(
                    f"the image {image} of {file.name} has the categories {names.get(given[image], given[image])} and "
                    f"{names.get(category, category)}; it takes one label per image."
                )
        unnamed = sorted({category for category in given.values() if names and category not in names})
        if unnamed:
            raise InputError(f"{file.name} has annotations of the category {unnamed[0]}, which it does not name.")
        rows = [
            (_image_of(image["file_name"], file), names.get(given[image["id"]], given[image["id"]]))
            for image in content["images"]
            if image["id"] in given
        ]
        known = {image["id"] for image in content["images"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file.name} is not as COCO writes it ({type(error).__name__}: {error}).") from None
    lost = [image for image in given if image not in known]
    if lost:
        raise InputError(f"{file.name} has annotations of the image {lost[0]}, which it does not list.")
    table = table_of(file, rows, len(content["images"]) - len(rows), "without a label")
    return replace(table, notes=(*table.notes, *_of_one_name(names, set(given.values()), file)))


def _of_one_name(names: Mapping[Any, str], used: set[Any], file: Path) -> list[str]:
    """Return a note on each name that several of the categories in use have."""
    numbers: dict[str, list[str]] = {}
    for number, name in names.items():
        if number in used:
            numbers.setdefault(name, []).append(str(number))
    return [
        f"the categories {' and '.join(each)} of {file.name} are called {name}: they are read as one class."
        for name, each in numbers.items()
        if len(each) > 1
    ]


def _image_of(name: str, file: Path) -> str:
    """Return the path of an image, relative to the file: beside it, or in `images` beside the folder `annotations`."""
    found = beside(file, name)
    if file.parent.name != _FOLDER or os.path.isfile(file.parent / found):
        return found
    split = named[2] if (named := _OF_SPLIT.fullmatch(file.name)) else ""
    images = os.path.join("..", "images")
    others = _folders(file.parent / images)  # of a copy under another name
    for folder in (os.path.join(images, split), images, os.path.join("..", split), *others):
        if os.path.isfile(file.parent / folder / name):
            return os.path.join(folder, name)
    return found


def _folders(place: Path) -> list[str]:
    names = sorted(each.name for each in place.iterdir() if each.is_dir()) if place.is_dir() else []
    return [os.path.join("..", place.name, name) for name in names]


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of a COCO file, or of one split's of a folder."""
    source = read_table(open_coco(location, choices), Choices(path_pattern=choices.path_pattern))
    return of_folder(location, source, choices.split)


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of a COCO file that have a label."""
    return read_table_unlabelled(open_coco(location, choices), Choices(path_pattern=choices.path_pattern))


FORMAT = Format(recognises, read, read_unlabelled, lambda *_: True, _TAKES, "coco", splits_of)
