"""What the user named, a folder, a table or an array -> paths and labels. No image is opened here."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.tables import TABLE_SUFFIXES, read_columns, spread

IMAGE_SUFFIXES = frozenset(
    f".{kind}" for kind in "avif bmp gif jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp".split()
)
SPLIT_FOLDERS = frozenset(["train", "training", "val", "valid", "validation", "test", "testing", "dev"])
# "none" is left out: it is a word, and a class of that name ("none of these") is common
MISSING_WORDS = frozenset(["", "nan", "na", "n/a", "<na>", "null"])

_LOOKED_AT = 1000
"""Rows of a table whose file is looked for at once; the decoder meets the others."""


@dataclass(frozen=True, eq=False)
class Source:
    """Images by name, with their given labels."""

    location: Path
    """What the user named, absolute: a folder, a table, an .npz."""
    root: Path
    """The folder that `paths` are relative to."""
    paths: tuple[str, ...]
    """n names, as they stand in the results: relative to the folder, as written in the table, `name.npz#12`."""
    labels: IntArray
    """(n,) given labels, 0..K-1."""
    class_names: tuple[str, ...]
    """K names, lexicographic; in order of value where all of them are whole numbers."""
    array: npt.NDArray[Any] | None = None
    """(n, H, W) or (n, H, W, 1|3|4) images in memory: uint8, uint16, bool, or floats in [0, 1]; None for files."""
    notes: tuple[str, ...] = ()
    """What is no error, but worth a look: a sentence each."""

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def files(self) -> tuple[str, ...] | None:
        """Absolute paths, n; None for images in memory."""
        if self.array is not None:
            return None
        prefix = os.path.join(self.root, "")
        return tuple([path if os.path.isabs(path) else prefix + path for path in self.paths])

    def subset(self, which: npt.ArrayLike) -> Source:
        """The images that `which` names, a mask (n,) or indices (m,); class names and their numbers stay."""
        rows = np.asarray(which)
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        return replace(
            self,
            paths=tuple([self.paths[row] for row in rows.tolist()]),
            labels=self.labels[rows],
            array=None if self.array is None else self.array[rows],
        )


def read_source(
    source: str | Path,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    least_classes: int = 2,
) -> Source:
    """Paths and labels of a folder of class folders, a table (.csv, .tsv, .parquet) or an .npz.

    A folder: each folder in it is a class, with images at any depth. A table: one row an image, paths relative
    to the table's folder; the columns are found by usual names, or by what they hold, unless given. An .npz:
    the arrays `images` (see `Source.array`) and `labels` (n,).

    Raises InputError, with one sentence, for anything else, for labels that are missing, and for fewer classes than
    `least_classes`.
    """
    location = Path(os.path.abspath(os.path.expanduser(source)))
    if not location.exists():
        raise InputError(f"{location} does not exist; it takes a folder of class folders, a .csv, .parquet or .npz.")
    suffix = location.suffix.lower()
    if suffix not in TABLE_SUFFIXES or location.is_dir():
        for option, value in (("--path-column", path_column), ("--label-column", label_column)):
            if value is not None:
                raise InputError(f"{option} is {value!r}, but {location} is no table; columns belong to a .csv.")
    if location.is_dir():
        result = _read_folder(location)
    elif suffix in TABLE_SUFFIXES:
        result = _read_table(location, path_column, label_column)
    elif suffix == ".npz":
        result = _read_npz(location)
    else:
        raise InputError(
            f"{location.name} is of no kind that can be read; it takes a folder of class folders, "
            "a .csv, .tsv, .parquet or .npz."
        )
    if len(result.class_names) < least_classes:
        raise InputError(
            f"{location} holds one class only ({result.class_names[0]}); a wrong label needs a second class to be seen."
        )
    return result


# -- a folder of class folders --


def _read_folder(root: Path) -> Source:
    folders, beside = [], Counter[str]()
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                folders.append(entry.name)
            else:
                beside[os.path.splitext(entry.name)[1].lower()] += 1
    n_beside = sum(count for suffix, count in beside.items() if suffix in IMAGE_SUFFIXES)
    if not folders:
        if n_beside:
            raise InputError(
                f"{root} holds {n_beside:,} images, but no class folders; put each image into a folder named "
                "after its class, or name a .csv with a path and a label column."
            )
        raise InputError(f"{root} holds no class folders with images; it takes one folder a class.")
    if all(name.lower() in SPLIT_FOLDERS for name in folders) and any(_has_folder(root / name) for name in folders):
        raise InputError(
            f"{root} holds {' and '.join(sorted(folders))}, which look like parts of a dataset, not classes; "
            f"name one of them: {root / min(folders)}"
        )

    notes = []
    if n_beside:
        notes.append(f"{n_beside:,} images lie beside the class folders in {root} and were left out.")
    paths: list[str] = []
    counts: dict[str, int] = {}
    others: Counter[str] = Counter()
    for name in sorted(folders):
        before = len(paths)
        paths.extend(_images_below(root, name, others))
        counts[name] = len(paths) - before
    empty = [name for name, count in counts.items() if not count]
    if not paths:
        raise InputError(f"{root} holds {len(folders)} folders, but no images in them ({_suffixes(others)}).")
    if empty:
        notes.append(f"{_some(empty)} {'holds' if len(empty) == 1 else 'hold'} no images and {_is(empty)} no class.")
    if others:
        notes.append(f"{sum(others.values()):,} files are no images by their name and were left out: {_some(others)}.")
    names = tuple(name for name, count in counts.items() if count)
    labels = np.repeat(np.arange(len(names)), [counts[name] for name in names])
    return Source(root, root, tuple(paths), labels.astype(np.int64), names, notes=tuple(notes))


def _has_folder(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)


def _images_below(root: Path, name: str, others: Counter[str]) -> Iterator[str]:
    """Images of a class folder, relative to the root, folder by folder in order; counts other files by suffix."""
    seen = set()
    waiting = [name]
    while waiting:
        folder = waiting.pop()
        where = os.path.join(root, folder)
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in seen:  # a link back up would go round for ever
            continue
        seen.add((status.st_dev, status.st_ino))
        files, folders = [], []
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                suffix = os.path.splitext(entry.name)[1].lower()
                if entry.is_dir():
                    folders.append(f"{folder}/{entry.name}")
                elif suffix in IMAGE_SUFFIXES:
                    files.append(f"{folder}/{entry.name}")
                else:
                    others[suffix or "no suffix"] += 1
        yield from sorted(files)
        waiting.extend(sorted(folders, reverse=True))


# -- a table --


def _read_table(location: Path, path_column: str | None, label_column: str | None) -> Source:
    columns = read_columns(location, path_column, label_column)
    _refuse_missing(columns.paths, f"paths in the column {columns.path_column!r} of {location.name}")
    labels, class_names = _encode(columns.labels, f"labels in the column {columns.label_column!r} of {location.name}")
    paths = tuple(columns.paths.astype(str).tolist())
    source = Source(location, location.parent, paths, labels, class_names)
    _check_files(source, columns.path_column)
    return replace(source, notes=_check_repeats(source))


def _refuse_missing(values: pd.Series[Any], what: str) -> None:
    missing = values.isna().to_numpy(dtype=np.bool_)
    if not pd.api.types.is_numeric_dtype(values):
        words = values.astype(object).where(~missing, "").astype(str).str.strip().str.lower()
        missing = missing | words.isin(MISSING_WORDS).to_numpy(dtype=np.bool_)
    if missing.any():
        first = int(np.argmax(missing))
        raise InputError(
            f"{int(missing.sum()):,} of {len(values):,} {what} are missing, the first in row {first + 1}; "
            "fill them in or leave those rows out."
        )


def _encode(values: pd.Series[Any], what: str) -> tuple[IntArray, tuple[str, ...]]:
    """Labels (n,) 0..K-1 and the names of the classes; raises InputError where one is missing."""
    _refuse_missing(values, what)
    codes, uniques = pd.factorize(values)
    names = [str(name) for name in uniques]
    if all(re.fullmatch(r"[+-]?\d+(\.0*)?", name) for name in names):
        # 3.0 is what a whole number becomes in a column that once had a gap
        names = [name.split(".")[0] for name in names]
        ordered = sorted(set(names), key=lambda name: (int(name), name))
    else:
        ordered = sorted(set(names))
    rank = {name: number for number, name in enumerate(ordered)}
    return np.array([rank[name] for name in names], np.int64)[codes], tuple(ordered)


def _check_files(source: Source, path_column: str) -> None:
    """Raises InputError if most of the rows, of those looked at, name no file."""
    rows = spread(len(source), _LOOKED_AT)
    prefix = os.path.join(source.root, "")
    nowhere = [row for row in rows.tolist() if not os.path.isfile(os.path.join(prefix, source.paths[row]))]
    if 2 * len(nowhere) > len(rows):
        looked = "" if len(rows) == len(source) else " looked at"
        first = source.paths[nowhere[0]]
        raise InputError(
            f"{len(nowhere):,} of {len(rows):,} paths{looked} in the column {path_column!r} of {source.location.name} "
            f"point nowhere, the first in row {nowhere[0] + 1}: {os.path.join(prefix, first)} does not exist "
            "(paths are relative to the table's folder; --path-column names another column)."
        )


def _check_repeats(source: Source) -> tuple[str, ...]:
    """A note on paths that come twice; raises InputError where their labels differ."""
    codes, uniques = pd.factorize(np.array(source.paths, object))
    if len(uniques) == len(source):
        return ()
    first_label = np.empty(len(uniques), np.int64)
    first_label[codes[::-1]] = source.labels[::-1]  # the last to be written is the first row
    differs = np.flatnonzero(first_label[codes] != source.labels)
    if len(differs):
        row = int(differs[0])
        earlier, later = (source.class_names[label] for label in (first_label[codes[row]], source.labels[row]))
        raise InputError(
            f"{len(differs):,} rows of {source.location.name} give an earlier path another label, the first is "
            f"row {row + 1}: {source.paths[row]} is {earlier} and {later}; it takes one label an image."
        )
    return (
        f"{len(source) - len(uniques):,} rows of {source.location.name} repeat an earlier path; "
        "a wrong label is hard to see where a model has trained on a copy of the image.",
    )


# -- arrays --


def _read_npz(location: Path) -> Source:
    try:
        # numpy leaves a file open that it cannot read, if it opened it
        with open(location, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = list(arrays.files)
            absent = [name for name in ("images", "labels") if name not in names]
            if absent:
                raise InputError(
                    f"{location.name} has no array {' and no array '.join(absent)}; "
                    f"it holds {', '.join(names) or 'none'}."
                )
            images, labels = arrays["images"], arrays["labels"]
    except InputError:
        raise
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{location.name} holds arrays of Python objects, which could run code when loaded; "
                "save images as numbers and labels as numbers or text."
            ) from None
        raise InputError(f"{location.name} cannot be read as .npz ({error}); np.savez writes one.") from None

    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3, 4)) or 0 in images.shape:
        turned = images.ndim == 4 and images.shape[1] in (1, 3, 4)
        raise InputError(
            f"images in {location.name} has shape {images.shape}; it takes (n, H, W) or (n, H, W, 1|3|4)"
            + (", channels last: images.transpose(0, 2, 3, 1)." if turned else ".")
        )
    if labels.shape != images.shape[:1]:
        raise InputError(
            f"labels in {location.name} has shape {labels.shape}; {len(images):,} images need ({len(images)},)."
        )
    if images.dtype.kind == "f":
        low, high = images.min(), images.max()  # NaN spreads into both
        if not (low >= 0 and high <= 1):
            raise InputError(f"images in {location.name} has values from {low:g} to {high:g}; floats lie in [0, 1].")
    elif images.dtype not in (np.uint8, np.uint16, np.bool_):
        raise InputError(f"images in {location.name} holds {images.dtype}; it takes uint8, uint16 or floats in [0, 1].")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8")
    if labels.dtype.kind not in "iufUb":
        raise InputError(f"labels in {location.name} holds {labels.dtype}; it takes whole numbers or text.")
    encoded, class_names = _encode(pd.Series(labels), f"labels in {location.name}")
    paths = tuple([f"{location.name}#{row}" for row in range(len(images))])
    return Source(location, location.parent, paths, encoded, class_names, array=images)


def _some(names: Sequence[str] | Counter[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def _suffixes(others: Counter[str]) -> str:
    return f"files of other kinds: {_some(others)}" if others else "they are empty"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
