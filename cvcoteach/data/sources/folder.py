"""A folder of class folders -> a source."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvcoteach._validation import InputError, lookalikes, order_names, verb
from cvcoteach.data.sources import layouts
from cvcoteach.data.sources.entries import entries, images_below, is_image, subfolders, words
from cvcoteach.data.sources.joined import in_order
from cvcoteach.data.sources.labels import describe
from cvcoteach.data.sources.source import (
    SPLIT_WORDS,
    Choices,
    Format,
    Source,
    count,
    printable,
    printable_name,
    some,
    unlabelled,
)
from cvcoteach.data.splits import named_split

_UNLABELLED = frozenset(["_unlabeled", "no_label"])
"""Folders of images without a label, as FiftyOne and Datumaro export them."""
_PARTITION = re.compile(r"(\w+)=(.+)")
"""A folder of a partitioned dataset: `label=cat`."""


def read_folder(root: Path, choices: Choices) -> Source:
    """Return the images of a folder of class folders, at any depth.

    Raises:
        InputError: for a folder of another layout, with the way out where the layout is known.
    """
    if choices.split is not None:
        return _read_split(root, choices)
    folders, files = entries(root)
    if not folders:
        raise InputError(layouts.without_folders(root, files))
    n_beside = sum(is_image(name) for name in files)
    nested = {name: subfolders(root / name) for name in folders}
    layouts.refuse_exports(root, folders, files)
    layouts.refuse_labelled_splits(root, nested)
    layouts.refuse_splits(root, nested)

    notes = []
    if n_beside:
        lie, was = verb(n_beside, "lies", "lie"), verb(n_beside, "was", "were")
        notes.append(f"{count(n_beside, 'image')} {lie} beside the class folders in {root} and {was} left out.")
    paths: list[str] = []
    counts: dict[str, int] = {}
    others: Counter[str] = Counter()
    for name in sorted(_UNLABELLED.intersection(folders)):
        n = sum(1 for _ in images_below(root, name, Counter()))
        how = "has no label and was" if n == 1 else "have no label and were"
        notes.append(f"{count(n, 'image')} in {name} {how} left out.")
    for name in sorted(set(folders) - _UNLABELLED):
        before = len(paths)
        paths.extend(images_below(root, name, others))
        counts[name] = len(paths) - before
    if not paths:
        raise InputError(layouts.without_images(root, folders, others))
    empty = printable([name for name, n in counts.items() if not n])
    if empty:
        one = len(empty) == 1
        notes.append(f"{some(empty)} {'holds no images and is' if one else 'hold no images and are'} no class.")
    if others:
        n = sum(others.values())
        which = (
            "1 file is no image by its name and was" if n == 1 else f"{n:,} files are not images by their name and were"
        )
        notes.append(f"{which} left out: {some(others)}.")
    classes = [name for name, n in counts.items() if n]
    notes = [*layouts.notes_on_files(root, classes, nested, files, counts, choices), *notes]
    notes.extend(layouts.same_inside(classes, nested))
    if len(classes) > 1 and all(words(name) & SPLIT_WORDS for name in classes):
        notes.append(f"the classes are called {some(printable(classes))}: these are parts of a dataset elsewhere.")
    named = _class_names(classes)
    ordered = order_names(named)
    rank = {name: k for k, name in enumerate(ordered)}
    if len(ordered) < len(named):
        notes.append("class folders whose names differ by spaces or the composition of accents are read as one class.")
    names = printable(paths)
    return Source(
        root,
        root,
        names,
        np.repeat([rank[name] for name in named], [counts[name] for name in classes]).astype(np.int64),
        ordered,
        notes=(*notes, *lookalikes(ordered)),
        description=describe(len(paths), len(ordered), f"a folder each in {printable_name(root)}"),
        file_names=None if names == tuple(paths) else tuple(paths),
    )


def read_unlabelled(root: Path, choices: Choices) -> Source:
    """Return all images of a folder, or of one split in it, at any depth."""
    split = "" if choices.split is None else _folder_of(root, choices)
    found = sorted(images_below(root, split, Counter()))
    if not found:
        raise InputError(f"{root / split} holds no images.")
    return unlabelled(root, root, found)


def has_labels(root: Path, choices: Choices) -> bool:
    """Return whether there are folders, which are the classes."""
    return bool(entries(root if choices.split is None else root / _folder_of(root, choices))[0])


def splits_of(root: Path, choices: Choices) -> list[str]:
    """Return the folders that are splits: called train, test and the like, with class folders of equal names in them.

    Empty where there are none, and where other folders lie beside them.
    """
    nested = {name: subfolders(root / name) for name in entries(root)[0]}
    named = [name for name in nested if words(name) & SPLIT_WORDS]
    splits = [name for name in named if nested[name]]
    if not splits or len(named) < len(nested):
        return []
    often = Counter(inside for name in splits for inside in nested[name])
    if layouts.labelled_splits(root, splits):
        return []
    return in_order(splits) if len(splits) == 1 or max(often.values()) > 1 else []


def _read_split(root: Path, choices: Choices) -> Source:
    """Return the images of one split, named as seen from `root`."""
    name = _folder_of(root, choices)
    source = read_folder(root / name, replace(choices, split=None))
    paths, files = ([f"{name}/{path}" for path in each] for each in (source.paths, source.file_names or source.paths))
    shown = printable(paths)
    flat = [each for each in splits_beside(root) if not subfolders(root / each)]
    notes = [f"{some(flat)} {'holds' if len(flat) == 1 else 'hold'} no class folders: left out."] if flat else []
    return replace(
        source,
        location=root,
        root=root,
        paths=shown,
        file_names=None if shown == tuple(files) else tuple(files),
        description=source.description.removesuffix(printable_name(root / name)) + f"{printable_name(root)}/{name}",
        notes=(*source.notes, *notes),
    )


def splits_beside(root: Path) -> list[str]:
    """Return the folders that are called like splits."""
    return [name for name in entries(root)[0] if words(name) & SPLIT_WORDS]


def _folder_of(root: Path, choices: Choices) -> str:
    """Return the folder of a split. Raises InputError where there is none."""
    folders = entries(root)[0]
    found = named_split(folders, str(choices.split))
    if found is None:
        held = f"the folders {some(folders)}" if folders else "no folders"
        raise InputError(f"--split is {choices.split!r}, but {root} holds {held}.")
    return found


FORMAT = Format(
    Path.is_dir, read_folder, read_unlabelled, has_labels, frozenset(["split"]), name="folder", splits=splits_of
)


def _class_names(folders: Sequence[str]) -> list[str]:
    """Return a class name for each folder; `label=cat` of a partitioned dataset is the class cat."""
    names = [unicodedata.normalize("NFC", name.strip()) for name in printable(folders)]
    parts = [_PARTITION.fullmatch(name) for name in names]
    keys = {part[1] for part in parts if part}
    if all(parts) and len(keys) == 1:
        return [part[2] for part in parts if part]
    return names
