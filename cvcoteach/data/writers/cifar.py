"""The folders of CIFAR-10 and CIFAR-100: the batches that were read with other labels and fewer images."""

from __future__ import annotations

import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cvcoteach._files import folder_written_whole
from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.sources import Source, cifar
from cvcoteach.data.writers.copy import Copy, check_content
from cvcoteach.data.writers.folder import check as check_folder


def recognises(source: Source) -> bool:
    """Return whether a source is such a folder."""
    return source.array is not None and source.location.is_dir() and cifar.recognises(source.location)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError where the folder would lie in the source, or the source in it."""
    check_folder(copy, destination)


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the folder with all its files; those of other parts stay as they are.

    Raises InputError where the batches have changed since they were read.
    """
    location = copy.source.location
    part = cifar.part_of_folder(location, copy.choices)
    batches = [cifar.read_batch(file, part) for file in part.files]
    numbers = np.concatenate([labels for _, labels in batches])
    names = part.class_names
    if len(numbers) != len(copy.source) or [
        names[number] if len(names) else str(number) for number in numbers.tolist()
    ] != [copy.source.class_names[label] for label in copy.source.labels]:
        raise InputError(f"{location.name} does not hold the labels as they were read; it has changed since.")
    new = numbers[copy.donors]
    check_content(location)
    with folder_written_whole(destination) as partial:
        shutil.copytree(location, partial, dirs_exist_ok=True)
        first = 0
        for file, (_, labels) in zip(part.files, batches, strict=True):
            rows = slice(first, first + len(labels))
            first += len(labels)
            (_binary if file.suffix == ".bin" else _python)(file, partial / file.name, part, new[rows], copy.kept[rows])
    n = int(copy.kept.sum())
    on_image(n, n)


def _binary(file: Path, target: Path, part: cifar.Part, labels: IntArray, kept: Any) -> None:
    records = np.fromfile(file, np.uint8).reshape(len(labels), -1)
    records[:, part.label_byte] = labels
    records[kept].tofile(target)


def _python(file: Path, target: Path, part: cifar.Part, labels: IntArray, kept: Any) -> None:
    batch = cifar.unpickled(file)
    rows = np.flatnonzero(kept).tolist()
    for key, value in batch.items():
        if key in (part.wanted, part.wanted.encode()):
            batch[key] = labels[kept].tolist()
        elif isinstance(value, np.ndarray) and len(value) == len(labels):
            batch[key] = value[kept]
        elif isinstance(value, list) and len(value) == len(labels):
            batch[key] = [value[row] for row in rows]
    with open(target, "wb") as out:
        _Python2Pickler(out, protocol=2).dump(batch)


_PICKLER: Any = pickle._Pickler
"""The pickler in Python: that in C cannot be told how to write bytes."""


class _Python2Pickler(_PICKLER):  # type: ignore[misc]
    """Writes bytes as the text of Python 2, as the published batches have it: other readers ask for that."""

    dispatch: ClassVar[dict[Any, Any]] = dict(_PICKLER.dispatch)

    def save_bytes(self, data: bytes) -> None:
        """Write text of Python 2."""
        short = len(data) < 256
        self.write((b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data)
        self.memoize(data)

    dispatch[bytes] = save_bytes
