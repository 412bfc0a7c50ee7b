"""MNIST's idx files: the images and labels of the part that was read; other parts are copied as they are."""

from __future__ import annotations

import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cvcoteach._files import folder_written_whole
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, mnist
from cvcoteach.data.writers.copy import Copy, check_content
from cvcoteach.data.writers.folder import check as check_folder


def recognises(source: Source) -> bool:
    """Return whether a source is idx files."""
    return source.array is not None and mnist.recognises(source.location)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError for one file of images, whose labels are in another, and for a folder in the source."""
    location = copy.source.location
    if not location.is_dir():
        raise InputError(
            f"{location.name} has its labels in another file; find the issues of the folder {location.parent}, which "
            "can be copied, or take --action list."
        )
    check_folder(copy, destination)


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the folder with the files of all parts.

    Raises InputError where the files have changed since they were read.
    """
    location = copy.source.location
    images, labels = mnist.files_of(location, copy.choices)
    values = mnist.read_idx(labels, 1)
    pixels = mnist.read_idx(images, 3)
    if len(values) != len(copy.source) or [str(value) for value in values] != [
        copy.source.class_names[label] for label in copy.source.labels
    ]:
        raise InputError(f"{labels.name} does not hold the labels as they were read; it has changed since.")
    check_content(location)
    with folder_written_whole(destination) as partial:
        shutil.copytree(location, partial, dirs_exist_ok=True)
        for file, array in ((images, pixels[copy.kept]), (labels, values[copy.donors][copy.kept])):
            for twin in _both(partial / file.relative_to(location)):
                _write(twin, array)
    n = int(copy.kept.sum())
    on_image(n, n)


def _both(file: Path) -> list[Path]:
    """Return the file and its packed or unpacked twin, where that is there: either may be read."""
    twin = file.with_suffix("") if file.suffix == ".gz" else file.with_name(f"{file.name}.gz")
    return [each for each in (file, twin) if each.is_file()]


def _write(file: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, mnist.UBYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + np.ascontiguousarray(array).tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
