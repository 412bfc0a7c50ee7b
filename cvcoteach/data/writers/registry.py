"""All formats that can be written, and the one of a source."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source
from cvcoteach.data.writers import folder, npz, parquet, text_table
from cvcoteach.data.writers.copy import Copy


class Writer(NamedTuple):
    """One format that can be written."""

    recognises: Callable[[Source], bool]
    """Whether a source is of this format."""
    check: Callable[[Copy, Path], None]
    """Whether the destination fits. Raises InputError where it does not."""
    write: Callable[[Copy, Path, Callable[[int, int], None]], None]
    """Write the copy, as a whole or not at all; the last argument is called with the images done and to do."""


WRITERS: tuple[Writer, ...] = tuple(
    [Writer(module.recognises, module.check, module.write) for module in (folder, text_table, parquet, npz)]
)


def check_destination(copy: Copy, destination: Path) -> None:
    """Raise InputError where a source of that format cannot be written, or not there, or something is there."""
    writer = _writer_of(copy.source)
    if destination.is_dir() and copy.source.location.is_dir() and not any(destination.iterdir()):
        pass
    elif destination.exists() or destination.is_symlink():
        raise InputError(f"{destination} already exists; name another --output.")
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
    _writer_of(copy.source).write(copy, destination, on_image)


def is_copy(copy: Copy, file: Path) -> bool:
    """Return whether a folder or file is what `write_copy` makes; it is written again beside it to see that.

    Raises InputError as `write_copy` does.
    """
    again = file.with_name(f".again-{file.name}")
    _remove(again)
    try:
        _writer_of(copy.source).write(copy, again, lambda done, to_do: None)
        return fingerprint(again) == fingerprint(file)
    finally:
        _remove(again)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def names_in_copy(copy: Copy) -> list[str] | None:
    """Return the n names of the files in a copy that is a folder, relative to it; None for a table or an .npz."""
    return folder.names_in_copy(copy) if folder.recognises(copy.source) else None


def fingerprint(file: Path) -> str:
    """Return a fingerprint of the content of a file, or of the names and sizes of all files in a folder."""
    result = hashlib.blake2b(digest_size=16)
    if file.is_dir():
        for where, folders, names in os.walk(file):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(where, name)
                result.update(os.fsencode(f"{os.path.relpath(path, file)}\0{os.path.getsize(path)}\0"))
    else:
        with open(file, "rb") as opened:
            for block in iter(lambda: opened.read(2**20), b""):
                result.update(block)
    return result.hexdigest()


def _writer_of(source: Source) -> Writer:
    for writer in WRITERS:
        if writer.recognises(source):
            return writer
    raise InputError(
        f"{source.location.name} is of a format that cannot be written; --action list says what would change."
    )
