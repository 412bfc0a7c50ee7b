"""All formats that can be written, and the one of a source."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvcoteach._files import check_regular
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, read_source
from cvcoteach.data.writers import (
    annotation_folder,
    annotation_json,
    cifar,
    cvat,
    folder,
    hugging_face,
    idx,
    lines,
    npz,
    parquet,
    parquet_files,
    text_table,
    webdataset,
)
from cvcoteach.data.writers.copy import Copy


class Writer(NamedTuple):
    """One format that can be written."""

    recognises: Callable[[Source], bool]
    """Whether a source is of this format."""
    check: Callable[[Copy, Path], None]
    """Whether the destination fits. Raises InputError where it does not."""
    write: Callable[[Copy, Path, Callable[[int, int], None]], None]
    """Write the copy, as a whole or not at all; the last argument is called with the images done and to do."""


_MODULES = (
    hugging_face,
    webdataset,
    idx,
    cifar,
    npz,
    parquet,
    parquet_files,
    text_table,
    lines,
    annotation_json,
    annotation_folder,
    cvat,
    folder,  # last: other folders may look like one of class folders
)
WRITERS: tuple[Writer, ...] = tuple([Writer(module.recognises, module.check, module.write) for module in _MODULES])

_OF_ONE_SPLIT = (hugging_face.write, idx.write, cifar.write, annotation_folder.write)


def check_destination(copy: Copy, destination: Path) -> None:
    """Raise InputError where a source of that format cannot be written, or not there, or something is there."""
    writer = _writer_of(copy.source)
    if destination.is_dir() and copy.source.location.is_dir() and not any(destination.iterdir()):
        pass
    elif destination.exists() or destination.is_symlink():
        raise InputError(f"{destination} already exists; name another place.")
    writer.check(copy, destination)


def write_copy(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write a copy in the format of its source; it appears as a whole or not at all.

    Args:
        copy: What to write.
        destination: Where; as `check_destination` allows.
        on_image: Called with the images done and to do.

    Raises:
        InputError: The source has changed since it was read, or the disk is full.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{destination.parent} could not be created: {error.strerror}.") from error
    _write(copy, destination, on_image)


def replace_copy(copy: Copy, destination: Path) -> None:
    """Write a copy again in place of one that is there, file or folder; it changes as a whole or not at all.

    Errors as of `write_copy`.
    """
    if not destination.is_dir():
        _write(copy, destination, lambda done, to_do: None)
        return
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        _write(copy, Path(folder) / "new", lambda done, to_do: None)
        os.replace(destination, Path(folder) / "old")
        os.replace(Path(folder) / "new", destination)


def is_copy(copy: Copy, file: Path) -> bool:
    """Return whether a folder or file is what `write_copy` makes; it is written again beside it to see that.

    Raises InputError as `write_copy` does.
    """
    again = file.with_name(f".again-{file.name}")
    _remove(again)
    try:
        _write(copy, again, lambda done, to_do: None)
        return fingerprint(again) == fingerprint(file)
    finally:
        _remove(again)


def _write(copy: Copy, place: Path, on_image: Callable[[int, int], None]) -> None:
    writer, source = _writer_of(copy.source), copy.source
    if source.splits is None or writer.write not in _OF_ONE_SPLIT:
        writer.write(copy, place, on_image)
        return
    # these write one split and copy the others as they are: each begins with the copy of the one before
    location = source.location
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as folder:
        for number, name in enumerate(dict.fromkeys(source.splits.tolist())):
            part = _of_split(copy, location, name)
            location = Path(folder) / str(number)
            writer.write(part, location, on_image)
        os.replace(location, place)


def _of_split(copy: Copy, location: Path, name: str) -> Copy:
    """Return what a copy has of one split, which is read again from there."""
    choices = replace(copy.choices, split=name)
    data = read_source(location, **asdict(choices), least_classes=1)
    rows = np.flatnonzero(np.asarray(copy.source.splits) == name)
    if len(rows) != len(data):
        raise InputError(f"the split {name} of {location} has changed since it was read; find the issues again.")
    number = {each: k for k, each in enumerate(data.class_names)}
    wanted = np.array([number.get(each, -1) for each in copy.source.class_names], np.int64)[copy.labels[rows]]
    lacking = copy.kept[rows] & (wanted < 0)
    if lacking.any():
        lost = copy.source.class_names[int(copy.labels[rows[np.argmax(lacking)]])]
        raise InputError(f"the class {lost!r} has no image in the split {name}; nothing says how to write it there.")
    return Copy(data, choices, np.where(wanted < 0, data.labels, wanted), copy.kept[rows])


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def names_in_copy(copy: Copy) -> list[str] | None:
    """Return the n names of the files in a copy of class folders, relative to it; None for all other formats."""
    return folder.names_in_copy(copy) if _writer_of(copy.source).write is folder.write else None


def fingerprint(path: Path, *, of_names: bool = False) -> str:
    """Return a fingerprint of the content of a file, or of all files in a folder.

    of_names: whether names and sizes stand for the content of the files in a folder, which may be millions of images.
    """
    result = hashlib.blake2b(digest_size=16)
    files = [path]
    if path.is_dir():
        files = sorted(Path(where, name) for where, _, names in os.walk(path) for name in names)
    for file in files:
        if file != path:
            result.update(os.fsencode(f"{file.relative_to(path)}\0{file.stat().st_size}\0"))
        if file == path or not of_names:
            check_regular(file)
            with open(file, "rb") as opened:
                for block in iter(lambda: opened.read(2**20), b""):
                    result.update(block)
    return result.hexdigest()


def _writer_of(source: Source) -> Writer:
    for writer in WRITERS:
        if writer.recognises(source):
            return writer
    raise InputError(
        f"{source.location.name} is of a format that cannot be written; --action list gives the changes as a CSV, "
        "which retrain takes as --corrections."
    )
