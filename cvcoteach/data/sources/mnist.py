"""MNIST's idx files, also of Fashion-MNIST, KMNIST and EMNIST, gzipped or not."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np

from cvcoteach._validation import InputError
from cvcoteach.data.sources.array_source import Arrays, source_of_arrays, unlabelled_arrays
from cvcoteach.data.sources.source import Choices, Format, UnlabelledError, chosen_split, count
from cvcoteach.data.unpacking import check_unpacked

_IMAGES = re.compile(r"(.*?)[-_.]?images[-.]idx3-ubyte(\.gz)?")
UBYTE = 0x08
_NO_LABEL = 255
"""What Datumaro writes where there is no label."""


def recognises(location: Path) -> bool:
    """Return whether a path is an idx file of images, or a folder that holds one, itself or in `raw`."""
    if location.is_dir():
        return bool(_image_files(location))
    return _IMAGES.fullmatch(location.name) is not None


def load(location: Path, choices: Choices) -> Arrays:
    """Return one part of the files. Raises InputError for files that are not idx, and for absent labels."""
    notes: tuple[str, ...] = ()
    if location.is_dir():
        parts = _parts(location)
        notes = chosen_split(list(parts), choices, location.name)[1] if parts else ()
    images, labels = files_of(location, choices)
    pixels, given = read_idx(images, 3), read_idx(labels, 1)
    n_without = int((given == _NO_LABEL).sum())
    if n_without and labels.with_name("labels.txt").is_file():
        raise InputError(
            f"{count(n_without, 'image')} of {images.name} {'has' if n_without == 1 else 'have'} no label (255, where "
            "Datumaro's labels.txt lies beside); export those with a label only."
        )
    return Arrays(pixels, given, what=f"idx files {images.name} and {labels.name}", notes=notes)


def files_of(location: Path, choices: Choices) -> tuple[Path, Path]:
    """Return the files of images and labels of the part to read. Raises InputError for absent ones."""
    file = location
    if location.is_dir():
        parts = _parts(location)
        if not parts:
            raise InputError(f"{location} holds no idx files of images, such as train-images-idx3-ubyte.")
        file = parts[chosen_split(list(parts), choices, location.name)[0]]
    elif choices.split is not None:
        raise InputError(f"--split is {choices.split!r}, but {location.name} is one part; name the folder of them.")
    beside = file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1"))
    other = beside.with_name(beside.name.removesuffix(".gz") if beside.suffix == ".gz" else f"{beside.name}.gz")
    labels = next((each for each in (beside, other) if each.is_file()), None)
    if labels is None:
        raise UnlabelledError(f"{file.name} has no labels beside it; it takes {beside.name} in the same folder.")
    return file, labels


def _parts(folder: Path) -> dict[str, Path]:
    return {_part(found.name): found for found in _image_files(folder)}


def read_idx(file: Path, n_axes: int) -> np.ndarray:
    """Return the bytes of an idx file as an array of so many axes. Raises InputError for anything else.

    Where the head counts pixels for images, as Datumaro writes it, the images are as many as these pixels make.
    """
    try:
        with _opened(file) as opened:
            head = opened.read(4 + 4 * n_axes)
            if len(head) < 4 + 4 * n_axes or head[:4] != bytes([0, 0, UBYTE, n_axes]):
                raise InputError(f"{file.name} is no idx file of {n_axes} axes of bytes; it begins with {head[:4]!r}.")
            shape = struct.unpack(f">{n_axes}I", head[4:])
            size = math.prod(shape)
            pixels = math.prod(shape[1:])
            data = b""
            if n_axes > 1 and pixels and shape[0] and not shape[0] % pixels:
                data = opened.read(_most_of(file, shape[0]) + 1)
                if len(data) == shape[0]:
                    return np.frombuffer(data, np.uint8).reshape(-1, *shape[1:])
            data += opened.read(max(0, _most_of(file, size) + 1 - len(data)))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file} cannot be read ({error}).") from None
    if len(data) != size or not size:
        found = f"more than {size:,}" if len(data) > size else f"{len(data):,}"
        raise InputError(f"{file.name} holds {found} bytes, but its head says {' × '.join(map(str, shape))}.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _most_of(file: Path, size: int) -> int:
    """Return how many of so many bytes there can be, since the head of a damaged file may claim more."""
    if file.suffix != ".gz":
        return min(size, file.stat().st_size)
    check_unpacked(file.name, file.stat().st_size, size, "unpack it with gunzip")
    return size


def _opened(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file)) if file.suffix == ".gz" else open(file, "rb")


FORMAT = Format(
    recognises,
    lambda location, choices: source_of_arrays(location, load(location, choices)),
    lambda location, choices: unlabelled_arrays(location, load(location, choices)),
    lambda location, choices: True,
    frozenset(["split"]),
    "mnist",
    lambda location, choices: [_part(file.name) for file in _image_files(location)] if location.is_dir() else [],
)


def _image_files(folder: Path) -> Sequence[Path]:
    for place in (folder, folder / "raw"):
        try:
            with os.scandir(place) as entries:
                names = sorted(entry.name for entry in entries if _IMAGES.fullmatch(entry.name) and entry.is_file())
        except OSError:
            continue
        if names:
            # both the packed and the unpacked file of a part may be there: the latter is read faster
            unpacked = [name for name in names if not (name.endswith(".gz") and name.removesuffix(".gz") in names)]
            return [place / name for name in unpacked]
    return []


def _part(name: str) -> str:
    found = _IMAGES.fullmatch(name)
    part = found[1] if found and found[1] else "images"
    return "test" if part == "t10k" else part
