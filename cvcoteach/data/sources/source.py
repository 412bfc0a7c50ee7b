"""`Source`: images by name with their given labels, as every format is read. No image is opened here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.annotations import Annotations
from cvcoteach.data.splits import Names, is_train, named_split

IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in "avif bmp gif heic heif hif jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp".split()
)

SPLIT_WORDS = frozenset(
    "train training trainset trn val valid validation valset test tests testing testset dev eval holdout".split()
)
"""Names of the parts of a dataset."""


@dataclass(frozen=True, eq=False)
class Source:
    """Images by name, with their given labels."""

    location: Path
    """The file or folder that was named, absolute: a folder, a table, an .npz."""
    root: Path
    """The folder that `paths` are relative to."""
    paths: tuple[str, ...]
    """n names, as they stand in the results: relative to the folder, as written in the table, `name.npz#12`."""
    labels: IntArray
    """(n,) given labels, 0..K-1."""
    class_names: tuple[str, ...]
    """K names, lexicographic; in order of value where all of them are whole numbers."""
    array: npt.NDArray[Any] | None = None
    """(n, H, W) or (n, H, W, 1|3|4) images in memory, of numbers or bool; None for files."""
    notes: tuple[str, ...] = ()
    """Sentences about what is not an error, but worth a look."""
    description: str = ""
    """What was understood, in one line: "60 images, 3 classes, columns path and label of photos.csv"."""
    file_names: tuple[str, ...] | None = None
    """n file names, relative to `root` or absolute, where they differ from `paths`; None where they are the same."""
    groups: IntArray | None = None
    """(n,) group of each image, such as its patient or video, 0, 1, …; None where none are known."""
    group_names: tuple[str, ...] | None = None
    """What each group is called in the source; None where none are known."""
    splits: Names | None = None
    """(n,) name of the split of each image, such as train and test; None where there are none, or one was chosen."""
    annotations: Annotations | None = None
    """What several annotators labelled the n images; `labels` are then what most of them gave."""
    other_columns: Callable[[], pd.DataFrame] | None = None
    """Loads the columns of a table (n rows) that are neither paths nor labels nor groups; None where there are none."""

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def files(self) -> tuple[str, ...] | None:
        """Absolute paths, n; None for images in memory."""
        if self.array is not None:
            return None
        prefix = os.path.join(self.root, "")
        names = self.paths if self.file_names is None else self.file_names
        return tuple([name if os.path.isabs(name) else prefix + name for name in names])

    def noted(self, *notes: str) -> Source:
        """Return the same with more notes, before its own."""
        return replace(self, notes=(*notes, *self.notes)) if notes else self

    def subset(self, which: npt.ArrayLike) -> Source:
        """Return the images that `which` selects, a mask (n,) or indices (m,); classes keep their names and numbers."""
        rows = np.asarray(which)
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        names = self.file_names
        return replace(
            self,
            paths=tuple([self.paths[row] for row in rows.tolist()]),
            labels=self.labels[rows],
            array=None if self.array is None else self.array[rows],
            file_names=None if names is None else tuple([names[row] for row in rows.tolist()]),
            groups=None if self.groups is None else self.groups[rows],
            splits=None if self.splits is None else self.splits[rows],
            annotations=None if self.annotations is None else self.annotations.subset(rows),
            other_columns=None if self.other_columns is None else partial(_rows_of, self.other_columns, rows),
        )


def _rows_of(load: Callable[[], pd.DataFrame], rows: IntArray) -> pd.DataFrame:
    return load().iloc[rows]


@dataclass(frozen=True)
class Choices:
    """What the user said about how to read a source; None where nothing was said."""

    path_column: str | None = None
    """Column of image paths in a table."""
    label_column: str | None = None
    """Column of given labels in a table."""
    path_pattern: str | None = None
    """How a value of the path column becomes a file, `{}` being the value: `images/{}.png`."""
    split: str | None = None
    """The one split to read, such as train, val or test; None: all."""
    group_column: str | None = None
    """Column of groups in a table, or array of groups in an .npz: images of a group stay in one fold."""
    format: str | None = None
    """Name of the format, where a source may be of several."""
    cache_dir: Path | None = None
    """Where images inside another file are unpacked; None: the environment's cache, else the user's."""
    split_column: str | None = None
    """Column of a table that says of which split an image is."""
    annotator_column: str | None = None
    """Column of who gave a label, in a table with a row per image and annotator."""
    annotator_columns: str | None = None
    """Columns of labels, one per annotator, with commas between their names."""


class UnlabelledError(InputError):
    """None of the images has a label: of one split of several that is no fault."""


def _no_splits(location: Path, choices: Choices) -> Sequence[str]:
    return ()


class Format(NamedTuple):
    """One kind of source: how to recognise it, and how to read it with and without labels."""

    recognises: Callable[[Path], bool]
    """Whether an existing path is of this kind, by its name."""
    read: Callable[[Path, Choices], Source]
    """Read images and labels. Raises InputError for what does not fit."""
    read_unlabelled: Callable[[Path, Choices], Source]
    """Read images alone. Raises InputError where there are none."""
    has_labels: Callable[[Path, Choices], bool]
    """Whether there are labels to read."""
    takes: frozenset[str]
    """The fields of `Choices` that mean something to it."""
    name: str = ""
    """What `--format` calls it."""
    splits: Callable[[Path, Choices], Sequence[str]] = _no_splits
    """The splits that it holds, each of which `read` takes as `Choices.split`; empty where there are none."""


def chosen_split(names: Sequence[str], choices: Choices, where: str) -> tuple[str, tuple[str, ...]]:
    """Return the one split to read, that named or train or else the first, and a note where others remain.

    Raises InputError for a split that is not there.
    """
    if choices.split is not None:
        found = named_split(names, choices.split)
        if found is None:
            raise InputError(f"--split is {choices.split!r}, but {where} holds the splits {', '.join(names)}.")
        return found, ()
    first = next((name for name in names if is_train(name)), names[0])
    if len(names) == 1:
        return first, ()
    return first, (f"{where} holds the splits {', '.join(names)}; {first} is read, --split names another.",)


def unlabelled(location: Path, root: Path, paths: Sequence[str], array: npt.NDArray[Any] | None = None) -> Source:
    """Return a source of images whose labels are not known: all 0."""
    names = printable(paths)
    return Source(
        location,
        root,
        names,
        np.zeros(len(paths), np.int64),
        ("",),
        array=array,
        description=f"{len(paths):,} image{'' if len(paths) == 1 else 's'} without labels, {printable_name(location)}",
        file_names=None if names == tuple(paths) else tuple(paths),
    )


def printable(names: Iterable[str]) -> tuple[str, ...]:
    r"""Return names that UTF-8 can write: a byte of a file name that is not UTF-8 becomes `\xe9`."""
    return tuple([name if name.isascii() else _printable(name) for name in names])


def printable_name(location: Path) -> str:
    """Return the last part of a path, in text that UTF-8 can write."""
    return _printable(location.name or str(location))


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def some(names: Iterable[str], most: int = 5) -> str:
    """Return the first names in order, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most:,} more" if len(ordered) > most else "")


def count(n: int, one: str, many: str | None = None) -> str:
    """Return "1 image", "1,200 images"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def spread(n: int, most: int) -> IntArray:
    """Return at most `most` of 0..n-1, evenly spread, ascending."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.empty(0, np.int64)
