"""All formats that a source may have, and `read_source`, which finds the one of a path."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cvcoteach._files import check_regular
from cvcoteach._validation import InputError, near
from cvcoteach.data.pointers import check_content
from cvcoteach.data.sources import (
    cifar,
    coco,
    cvat,
    datumaro,
    fiftyone_labels,
    folder,
    hugging_face,
    image,
    label_studio,
    mnist,
    npz,
    parquet,
    parquet_files,
    records,
    text_table,
    tfrecord,
    webdataset,
)
from cvcoteach.data.sources.joined import in_order, joined_unlabelled, read_splits, refuse_shared
from cvcoteach.data.sources.json_file import content_of
from cvcoteach.data.sources.labels import refuse_ids
from cvcoteach.data.sources.remote import at_hand, inside, zip_address
from cvcoteach.data.sources.source import Choices, Format, Source, UnlabelledError

FORMATS: tuple[Format, ...] = (
    hugging_face.FORMAT,
    fiftyone_labels.FORMAT,
    coco.FORMAT,
    label_studio.FORMAT,
    datumaro.FORMAT,
    cvat.FORMAT,
    mnist.FORMAT,
    cifar.FORMAT,
    webdataset.FORMAT,
    tfrecord.FORMAT,
    records.LIST,
    records.LINES,
    text_table.FORMAT,
    parquet.FORMAT,
    parquet_files.FORMAT,
    npz.FORMAT,
    folder.FORMAT,
    image.FORMAT,
)
"""To add one, write a module like `npz.py` and name its FORMAT here."""

_ANYTHING = (folder.FORMAT,)
"""Taken where no other format fits: a folder is one of class folders unless it holds the files of another format."""
_BESIDE = (coco.FORMAT, datumaro.FORMAT, cvat.FORMAT)
"""Where a corrected copy lies beside its source, and looks like one more split."""
_TAKES = (
    "a folder of class folders, a .csv, .tsv, .parquet, .jsonl, .npz or .tar, or one of the formats in docs/formats.md"
)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_OPTIONS = {
    "path_column": "--path-column",
    "label_column": "--label-column",
    "path_pattern": "--path-pattern",
    "split": "--split",
    "split_column": "--split-column",
    "annotator_column": "--annotator-column",
    "annotator_columns": "--annotator-columns",
    "group_column": "--group-column",
}
_OWNERS = {
    "split": "a source of several parts, such as a folder of train and test",
    "split_column": "a table such as .csv",
    "label_column": "a table such as .csv",
    "group_column": "a table such as .csv",
}


def read_source(
    source: str | Path,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    path_pattern: str | None = None,
    split: str | None = None,
    group_column: str | None = None,
    format: str | None = None,
    cache_dir: str | Path | None = None,
    split_column: str | None = None,
    annotator_column: str | None = None,
    annotator_columns: str | None = None,
    least_classes: int = 2,
) -> Source:
    """Return the images and given labels of a source in any of the formats of docs/formats.md.

    A folder: each folder in it is a class, with images at any depth. A table: one row per image, paths relative to the
    table's folder; the columns are found by usual names, or by what they hold, unless given. An .npz: the arrays
    `images` (see `Source.array`) and `labels` (n,), or those of a split.

    Args:
        source: the path, or an address; see `at_hand`.
        path_column: column of image paths in a table.
        label_column: column of given labels in a table.
        path_pattern: how a value of the path column becomes a file, `{}` being the value: `images/{}.png`.
        split: the one split to read of a source that holds several; None: all of them, see `Source.splits`.
        group_column: column of groups, such as patients or videos, in a table, or array of them in an .npz.
        format: name of the format, where a source may be of several; see `FORMATS`.
        cache_dir: where images inside another file are unpacked; None: the environment's cache, else the user's.
        split_column: column of a table that says of which split an image is.
        annotator_column: column of who gave a label, in a table with a row per image and annotator.
        annotator_columns: columns of labels, one per annotator, with commas between their names.
        least_classes: how many classes there must be.

    Raises:
        InputError: with one sentence, for anything else, for labels that are missing, and for too few classes.
    """
    location = _located(source, _TAKES, cache_dir)
    choices = Choices(
        path_column,
        label_column,
        path_pattern,
        split,
        group_column,
        format,
        None if cache_dir is None else Path(cache_dir),
        split_column,
        annotator_column,
        annotator_columns,
    )
    result = _read(_format_of(location, choices), location, choices)
    if len(result.class_names) < least_classes:
        name = result.class_names[0]
        hint = (
            f" (if the folders in it are the classes, name {inside(source, name) or location / name})"
            if location.is_dir() and _has_folders(location / name)
            else ""
        )
        raise InputError(
            f"{location} holds one class only ({result.class_names[0]}); "
            f"a wrong label needs a second class to be seen{hint}."
        )
    if result.group_names is not None and len(result.group_names) < 2:
        raise InputError(
            f"all images of {location.name} are of one group in {choices.group_column!r} ({result.group_names[0]}), so "
            "that no model could judge them; name another column, or leave out --group-column."
        )
    if least_classes > 1:
        refuse_ids(result.labels, f"labels of {location.name}", column=location.is_file())
    return result


def _read(kind: Format, location: Path, choices: Choices) -> Source:
    """Return all splits of a source, or the one that was named."""
    names = in_order(kind.splits(location, choices)) if choices.split is None else []
    if len(names) < 2:
        return kind.read(location, replace(choices, split=names[0]) if names else choices)
    source = read_splits(names, lambda name: kind.read(location, replace(choices, split=name)))
    if kind in _BESIDE and source.splits is not None:
        refuse_shared(source)
    return source


def read_unlabelled(source: str | Path, choices: Choices | None = None) -> Source:
    """Return images without labels: of a folder, at any depth, of a table with a column of paths, of an .npz, or one.

    Raises:
        InputError: where there are none.
    """
    choices = choices or Choices()
    location = _located(source, "a folder of images, one image, a table or an .npz", choices.cache_dir)
    kind = _format_of(location, choices)
    names = in_order(kind.splits(location, choices)) if choices.split is None else []
    if len(names) < 2 or kind is folder.FORMAT:  # of a folder all images are read, at any depth
        return kind.read_unlabelled(location, choices)
    parts = {}
    for name in names:
        with suppress(UnlabelledError):  # some formats name only the images that have a label
            parts[name] = kind.read_unlabelled(location, replace(choices, split=name))
    return joined_unlabelled(parts) if len(parts) > 1 else kind.read_unlabelled(location, choices)


def has_labels(source: str | Path, choices: Choices | None = None) -> bool:
    """Return whether a source holds labels to read: class folders, a second column, an array of labels."""
    choices = choices or Choices()
    location = _located(source, "a folder of images, one image, a table or an .npz", choices.cache_dir)
    return _format_of(location, choices).has_labels(location, choices)


def as_far_as_taken(location: Path, choices: Choices, named: Choices) -> Choices:
    """Return the choices that mean something to what lies at a path now; without what they say of places.

    named: What the user says of it, such as its format.
    """
    kind = _format_of(location, Choices(format=named.format or choices.format)) if location.exists() else None
    taken = frozenset() if kind is None else kind.takes
    kept = {name: value for name, value in vars(choices).items() if name in taken}
    return Choices(**kept, format=choices.format, cache_dir=choices.cache_dir)


def columns_of(source: str | Path) -> tuple[str, ...] | None:
    """Return the columns of a table, None for what is not a table. Raises InputError for a table that is broken."""
    location = Path(os.path.abspath(os.path.expanduser(source)))
    if location.is_file() and text_table.FORMAT.recognises(location):
        return tuple(text_table.open_text_table(location).columns)
    if location.is_file() and parquet.FORMAT.recognises(location):
        return tuple(parquet.open_parquet(location).columns)
    return None


def _located(source: str | Path, takes: str, cache_dir: str | Path | None) -> Path:
    location = Path(os.path.abspath(os.path.expanduser(at_hand(source, cache_dir))))
    try:
        there = location.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{location} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if not there:
        hub = _HUB_NAME.fullmatch(str(source)) and not location.parent.exists()
        hint = f" A dataset of Hugging Face's hub is hf://{source}." if hub else ""
        raise InputError(f"{location} does not exist; it takes {takes}.{hint}")
    check_regular(location)
    return location


def _format_of(location: Path, choices: Choices) -> Format:
    """Return the format of a path. Raises InputError for none, and for choices that mean nothing to it."""
    if choices.format is not None:
        named = {kind.name: kind for kind in FORMATS}
        if choices.format not in named:
            raise InputError(f"--format is {choices.format!r}; {near(choices.format, named)}")
        fitting = [named[choices.format]]
    else:
        fitting = [kind for kind in FORMATS if kind.recognises(location)]
        fitting = [kind for kind in fitting if kind not in _ANYTHING] or fitting
    if len(fitting) > 1:
        names = " and ".join(kind.name for kind in fitting)
        raise InputError(f"{location} looks like {names}; --format says which of them it is.")
    found = fitting[0] if fitting else None
    for name, option in _OPTIONS.items():
        value = getattr(choices, name)
        if value is not None and (found is None or name not in found.takes):
            owner = _OWNERS.get(name, "a table such as .csv")
            what = "has no parts" if name == "split" else "is not a table"
            raise InputError(f"{option} is {value!r}, but {location} {what}; that belongs to {owner}.")
    if found is None and location.suffix.lower() == ".json":
        content_of(location)  # says what is broken
    if found is None:
        raise InputError(f"{location.name} is of a kind that cannot be read; it takes {_TAKES}.{_way_out(location)}")
    if location.is_file():
        check_content(location)
    return found


def _has_folders(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entry.is_dir() for entry in entries)
    except (OSError, ValueError):  # a name with a null byte
        return False


def _way_out(location: Path) -> str:
    """Return how to come from that kind of file to one that can be read, where it is a usual one."""
    suffix = location.suffix.lower()
    if suffix in (".xlsx", ".xls", ".ods"):
        return " Save the sheet as .csv."
    if suffix in (".zip", ".gz", ".rar", ".7z"):
        hint = f", or name {zip_address(location)}" if suffix == ".zip" else ""
        return f" Unpack it, and name the folder{hint}."
    if suffix == ".json" and label_studio.is_min(content_of(location)):
        return " It looks like JSON-MIN of Label Studio: export it as JSON."
    if suffix in (".npy",):
        return " numpy.savez('data.npz', images=…, labels=…) puts images and labels into one file."
    if suffix in (".h5", ".hdf5", ".pkl", ".pickle", ".pt", ".pth", ".mat", ".arrow", ".json", ".dat"):
        return " Write the images as files with a .csv of paths and labels, or as arrays into an .npz."
    return ""
