"""An .npz with all arrays of the source: other labels, fewer rows."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cvcoteach._files import replacing
from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.sources import Source, open_npz
from cvcoteach.data.sources.class_list import ClassList, named_by, plain_name
from cvcoteach.data.sources.npz import NpzArrays
from cvcoteach.data.writers.copy import Copy

Array = npt.NDArray[Any]

_SPLIT = re.compile(r"(?:^|_)(train|valid|val|test)(?:_|$)", re.IGNORECASE)


def recognises(source: Source) -> bool:
    """Return whether a source is an .npz."""
    return source.array is not None and source.location.is_file() and source.location.suffix.lower() == ".npz"


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError unless the name of the copy is that of an .npz."""
    if destination.suffix.lower() != ".npz":
        raise InputError(f"{destination} is to be a copy of an .npz; let its name end so.")


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write all arrays, with the new labels, without the rows of images left out.

    Arrays of the same part (`train_…`) with a row for each image lose these rows too; all others stay as they are.

    Raises InputError where the file has changed since it was read.
    """
    file = copy.source.location
    with open_npz(file) as content:
        arrays: dict[str, Array] = {name: content.read(name) for name in content.names}
        parts = [_Part.find(arrays, content, copy, split) for split in _splits_of(copy)]
        # a class that one split lacks is written as in another
        given = np.concatenate([arrays[part.labels] for part in parts])[copy.donors]
        for part in parts:
            arrays[part.labels] = given[part.rows].astype(arrays[part.labels].dtype)
            for name, array in arrays.items():
                if (
                    name != part.classes
                    and array.ndim
                    and len(array) == len(part.rows)
                    and _part_of(name) == _part_of(part.labels)
                ):
                    arrays[name] = array[copy.kept[part.rows]]
    with zipfile.ZipFile(file) as archive:
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    with replacing(destination) as out:
        (np.savez_compressed if packed else np.savez)(out, allow_pickle=False, **arrays)
    on_image(int(copy.kept.sum()), int(copy.kept.sum()))


def _splits_of(copy: Copy) -> list[str | None]:
    """Return the splits of the images in their order, or the one that was asked for."""
    splits = copy.source.splits
    return [copy.choices.split] if splits is None else list(dict.fromkeys(splits.tolist()))


class _Part(NamedTuple):
    """The images of one split."""

    rows: IntArray
    """(m,) of the source."""
    labels: str
    """The array of their labels."""
    classes: str | None
    """The array that lists the classes."""

    @classmethod
    def find(cls, arrays: Mapping[str, Array], content: NpzArrays, copy: Copy, split: str | None) -> _Part:
        """Return the array of labels: of the split that was asked for, holding what the source says."""
        source = copy.source
        rows = np.arange(len(source)) if source.splits is None else np.flatnonzero(source.splits == split)
        source = source if source.splits is None else source.subset(rows)
        listed, _ = content.read_classes(len(rows))
        usual = sorted(arrays, key=lambda name: not re.search(r"label|target|^y", name, re.IGNORECASE))
        for name in usual:
            if split is not None and _part_of(name) != split.lower():
                continue
            array = arrays[name]
            if array.ndim in (1, 2) and len(array) == len(rows) and _says(array, source, listed):
                return cls(rows, name, None if listed is None else listed.name)
        raise InputError(
            f"no array of {source.location.name} holds the labels as they were read; it has changed since."
        )


def _says(array: Array, source: Source, listed: ClassList | None) -> bool:
    labels = source.labels
    if array.ndim == 2 and array.shape[1] > 1:
        named = _columns_of(source, array.shape[1], listed)
        hot = array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()
        return bool(hot and named is not None and np.array_equal(array.argmax(axis=1), named[labels]))
    values, codes = np.unique(array.ravel(), return_inverse=True)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    first = np.full(len(values), -1, np.int64)
    first[codes] = labels
    if not np.array_equal(first[codes], labels):
        return False
    if listed is not None:
        try:
            values = named_by(values, listed, "")
        except InputError:  # another array of as many values
            return False
    return all(plain_name(value) == source.class_names[number] for value, number in zip(values, first, strict=True))


def _columns_of(source: Source, n_columns: int, listed: ClassList | None) -> IntArray | None:
    """Return the one-hot column of each class, K; None where the classes are no columns."""
    places = {name: place for place, name in enumerate(listed.names if listed else map(str, range(n_columns)))}
    if not all(places.get(name, n_columns) < n_columns for name in source.class_names):
        return None
    return np.array([places[name] for name in source.class_names], np.int64)


def _part_of(name: str) -> str | None:
    found = _SPLIT.search(name)
    return found[1].lower() if found else None
