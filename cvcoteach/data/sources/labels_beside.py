"""Files beside folders of images that list these images, often with their labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.sources import coco, cvat, datumaro, fiftyone_labels, label_studio, records, text_table
from cvcoteach.data.sources.columns import LABEL_COLUMNS, plain
from cvcoteach.data.sources.source import Choices, Format, Source

_TABLES = (text_table.FORMAT, records.LINES)
_LABELS = (records.LIST, coco.FORMAT, fiftyone_labels.FORMAT, label_studio.FORMAT, datumaro.FORMAT, cvat.FORMAT)
"""Formats whose files hold labels and nothing else."""
_MOST = 20
"""Files that are looked into."""
_LARGEST = 200 * 2**20
"""Bytes of a file up to which it is looked into, since it is read as a whole."""
_MOST_COLUMNS = 200
"""Columns of a table up to which one per class is looked for: more are features."""
_MOSTLY = 0.9
"""Share of the images of a folder that have one label, from which the folder and the label say the same."""
_PIECE = re.compile(
    r".*(part|images?|imgs?|batch|chunk|shard|set|data|folder|archive|volume|vol|fold)[\W_]*\d+", re.IGNORECASE
)
"""A folder of one piece of many: `images_001`, `HAM10000_images_part_1`."""


@dataclass(frozen=True, eq=False)
class Beside:
    """A file that lists images of folders beside it."""

    file: Path
    class_names: tuple[str, ...]
    """K names; none where it is not clear which values are the labels."""
    labels: IntArray
    """(m,) 0..K-1, of the images in the folders; empty where there are no names."""
    folders: tuple[str, ...]
    """m names, one for each label, of the folders of these images."""
    says_labels: bool
    """Whether it is of a format of labels, or calls a column so."""

    def agrees(self) -> bool:
        """Return whether its labels are the names of the folders, or others for the same classes, or coarser ones."""
        if not self.class_names:
            return False
        said = [name.casefold() for name in self.class_names]
        called = [folder.rpartition("=")[2].strip().casefold() for folder in self.folders]
        if 2 * len(set(said) & set(called)) >= min(len(said), len(set(called))):
            return True
        most: dict[str, tuple[int, int]] = {}
        for (folder, label), n in Counter(zip(self.folders, self.labels.tolist(), strict=True)).items():
            most[folder] = max(most.get(folder, (0, 0)), (n, label))
        same = sum(n for n, _ in most.values()) >= _MOSTLY * len(self.labels)
        return same and len({label for _, label in most.values()}) > 1

    def contradicts(self, folders: Sequence[str]) -> bool:
        """Return whether it plainly gives labels to the images of folders that are no classes."""
        pieces = all(_PIECE.fullmatch(name) for name in folders)
        if not self.class_names:
            return pieces
        return not self.agrees() and (self.says_labels or pieces or self.file.stem in folders)


def lists_beside(root: Path, files: Sequence[str], sizes: Mapping[str, int]) -> list[Beside]:
    """Return the files in a folder that list the images of its folders: half of those of one folder, or more.

    Args:
        root: the folder.
        files: names of the files in it.
        sizes: number of images of each folder in it.
    """
    kinds = {name: kind for name in sorted(files) if (kind := _kind_of(root / name)) is not None}
    found = [_listed(kind, root / name, sizes) for name, kind in list(kinds.items())[:_MOST]]
    return [each for each in found if each is not None]


def _kind_of(file: Path) -> Format | None:
    try:
        small = file.stat().st_size <= _LARGEST
    except OSError:
        return None
    return next((kind for kind in (*_TABLES, *_LABELS) if kind.recognises(file)), None) if small else None


def _listed(kind: Format, file: Path, sizes: Mapping[str, int]) -> Beside | None:
    source = _read(kind, file)
    if source is None:
        return None
    start = f"{file.parent}/"
    folder_of = [path.removeprefix(start).removeprefix("./").partition("/")[0] for path in source.files or ()]
    rows = [row for row, folder in enumerate(folder_of) if sizes.get(folder)]
    often = Counter(folder_of[row] for row in rows)
    if 2 * len(rows) < len(folder_of) or not any(2 * n >= sizes[folder] for folder, n in often.items()):
        return None
    names = source.class_names
    if names == ("",) or 2 * len(names) > len(source):  # as in a column of ids
        return Beside(file, (), np.empty(0, np.int64), (), False) if kind.has_labels(file, Choices()) else None
    if len(names) < 2:
        return None
    inside = tuple([folder_of[row] for row in rows])
    return Beside(file, names, source.labels[rows], inside, kind in _LABELS or _calls_labels(_columns(kind, file)))


def _read(kind: Format, file: Path) -> Source | None:
    """Return the images of a file, with labels where it is clear which these are; None where it names none."""
    try:
        columns = _columns(kind, file) if kind in _TABLES else ()
    except InputError:
        return None
    for read in (kind.read, kind.read_unlabelled):
        if read is kind.read and len(columns) > _MOST_COLUMNS and not _calls_labels(columns):
            continue
        with suppress(InputError):
            return read(file, Choices())
    return None


def _calls_labels(columns: Sequence[str]) -> bool:
    """Return whether a column of a table is called label or the like, or there are but two without names."""
    return tuple(columns) == ("1", "2") or any(plain(column) in LABEL_COLUMNS for column in columns)


def _columns(kind: Format, file: Path) -> tuple[str, ...]:
    opened = text_table.open_text_table if kind is text_table.FORMAT else records.open_lines
    return tuple(opened(file).columns)
