"""A folder of class folders: each image is copied into the folder of its class."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvcoteach._files import folder_written_whole, leads_out, sweep_partials, written_whole
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source
from cvcoteach.data.sources.source import IMAGE_SUFFIXES
from cvcoteach.data.writers.copy import Copy, check_link


def recognises(source: Source) -> bool:
    """Return whether a source is a folder with a folder for each class."""
    return source.location.is_dir() and source.array is None and _class_folders(source) is not None


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError where the folder would lie in the source, or the source in it."""
    here, there = copy.source.location.resolve(), destination.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise InputError(f"{destination} lies in {copy.source.location} or around it; name a folder elsewhere.")


def names_in_copy(copy: Copy) -> list[str]:
    """Return the n file names in the copy, relative to it: those of the source, under the folder of the new class.

    Where that name is taken, the old class is added: `dog/1-cat.jpg`.
    """
    names = list(_names(copy.source))
    found = _class_folders(copy.source)
    folders, depth = ([], 0) if found is None else (found.folders, found.depth)
    taken = {name.casefold() for name in names}
    for row in copy.changed.tolist():
        *split, old, inside = names[row].split("/", 1 + depth)
        name = wanted = "/".join([*split, folders[copy.labels[row]], inside])
        stem, suffix = os.path.splitext(wanted)
        number = 1
        while name.casefold() in taken:
            name = f"{stem}-{old}{f'-{number}' if number > 1 else ''}{suffix}"
            number += 1
        taken.add(name.casefold())
        names[row] = name
    return names


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Copy the images into `destination`, which appears as a whole or not at all.

    on_image: called with the images done and to do.

    Raises InputError where a file is missing or cannot be written, is a link to something else than an image elsewhere,
    or the disk is too small.
    """
    files, names = copy.source.files or (), names_in_copy(copy)
    rows = np.flatnonzero(copy.kept).tolist()
    for row in rows:
        check_link(files[row], copy.source.location)
    try:
        needed = sum(os.stat(files[row]).st_size for row in rows)
        destination.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(destination.parent).free
        if needed > free:
            raise InputError(
                f"{destination} would take {needed / 1e9:,.1f} GB, but only {free / 1e9:,.1f} GB are free there."
            )
        with folder_written_whole(destination) as partial:
            made: set[str] = set()
            for number, row in enumerate(rows, start=1):
                target = os.path.join(partial, names[row])
                if (folder := os.path.dirname(target)) not in made:
                    os.makedirs(folder, exist_ok=True)
                    made.add(folder)
                shutil.copy2(files[row], target)
                on_image(number, len(rows))
    except OSError as error:
        raise _not_written(destination, error) from error


def place_in(root: Path, name: str) -> Path:
    """Return where an image of the copy lies. Raises InputError for a name that leads out, or is no image's."""
    place = root / name
    if leads_out(name) or not place.parent.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{name!r} lies outside of {root}; nothing was changed.")
    if place.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"{name!r} is no image; nothing was changed.")
    return place


def move(root: Path, old: str, new: str) -> bool:
    """Move a file of the copy; return whether it was where `old` says and nothing was in its way.

    Raises InputError where a name leads out of the copy, or the file cannot be moved.
    """
    here, there = place_in(root, old), place_in(root, new)
    if not here.is_file() or there.exists():
        return False
    try:
        there.parent.mkdir(parents=True, exist_ok=True)
        os.replace(here, there)
    except OSError as error:
        raise _not_written(there, error) from error
    return True


def bring_back(file: Path, root: Path, name: str) -> bool:
    """Copy a file of the source into the copy; return whether it is there and nothing was in its way.

    Raises InputError where the name leads out of the copy, or the file cannot be written.
    """
    there = place_in(root, name)
    if not file.is_file() or there.exists():
        return False
    try:
        there.parent.mkdir(parents=True, exist_ok=True)
        sweep_partials(there.parent, there.name)  # of an undo that was killed
        with written_whole(there) as opened, open(file, "rb") as read:
            shutil.copyfileobj(read, opened, 2**20)
        shutil.copystat(file, there)
    except OSError as error:
        raise _not_written(there, error) from error
    return True


def _names(source: Source) -> tuple[str, ...]:
    return source.paths if source.file_names is None else source.file_names


class _ClassFolders(NamedTuple):
    """Where the images of each class lie."""

    folders: list[str]
    """K names of folders."""
    depth: int
    """Folders above them: 1 where they lie in those of splits, `train/cat`, else 0."""


def _class_folders(source: Source) -> _ClassFolders | None:
    """Return the folder of each class; None where folders and classes do not belong together."""
    for depth in (0, 1):
        folders: dict[int, str] = {}
        classes: dict[str, int] = {}
        for name, label in zip(_names(source), source.labels.tolist(), strict=True):
            parts = name.split("/", 1 + depth)
            if len(parts) < 2 + depth or leads_out(name) or classes.setdefault(parts[depth], label) != label:
                break
            folders.setdefault(label, parts[depth])
        else:
            if len(folders) == len(source.class_names):
                return _ClassFolders([folders[label] for label in range(len(source.class_names))], depth)
    return None


def _not_written(where: Path, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{where} could not be written: the disk is full. Nothing was left behind.")
    if error.errno == errno.ENOENT and error.filename is not None:
        return InputError(f"{error.filename} is missing; {where} was not written.")
    return InputError(f"{where} could not be written: {error.strerror or error}.")
