"""What lies in a folder: folders, files and images, by name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cvcoteach._validation import InputError
from cvcoteach.data.sources.source import IMAGE_SUFFIXES


def scan(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder. Raises InputError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except NotADirectoryError:
        raise InputError(f"{folder} is a file; --format folder takes a folder of class folders.") from None
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be read ({error.strerror or error}); allow it, or move it elsewhere."
        ) from None


def entries(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, without hidden ones."""
    folders: list[str] = []
    files: list[str] = []
    for entry in scan(root):
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        (folders if entry.is_dir() else files).append(entry.name)
    return folders, files


def subfolders(folder: Path) -> frozenset[str]:
    return frozenset(entry.name for entry in scan(folder) if entry.is_dir() and not entry.name.startswith("."))


def is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def images_below(root: Path, name: str, others: Counter[str]) -> Iterator[str]:
    """Yield the images of a class folder, relative to the root, folder by folder; counts other files by suffix."""
    seen = set()
    waiting = [name]
    while waiting:
        folder = waiting.pop()
        where = os.path.join(root, folder)
        try:
            status = os.stat(where)
        except OSError as error:
            raise InputError(f"the folder {where} cannot be read ({error.strerror or error}).") from None
        if (status.st_dev, status.st_ino) in seen:  # a link back up would go round for ever
            continue
        seen.add((status.st_dev, status.st_ino))
        files, folders = [], []
        prefix = f"{folder}/" if folder else ""
        for entry in scan(where):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(prefix + entry.name)
            elif is_image(entry.name):
                files.append(prefix + entry.name)
            else:
                others[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1
        yield from sorted(files)
        waiting.extend(sorted(folders, reverse=True))


def words(name: str) -> set[str]:
    """Return the words of a folder's name in lower case: train and set of `training_set`, `TrainSet`, `train-2017`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return set(re.findall(r"[a-z]+", spaced.lower()))
