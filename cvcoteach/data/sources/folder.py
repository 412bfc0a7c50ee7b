"""A folder of class folders -> a source."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvcoteach._files import open_regular
from cvcoteach._validation import InputError, lookalikes, order_names
from cvcoteach.data.sources.joined import in_order
from cvcoteach.data.sources.labels import describe
from cvcoteach.data.sources.source import (
    IMAGE_SUFFIXES,
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
from cvcoteach.data.splits import is_train, named_split

_UNLABELLED = frozenset(["_unlabeled", "no_label"])
"""Folders of images without a label, as FiftyOne and Datumaro export them."""
_PARQUET = frozenset([".parquet", ".pq"])
_PARTITION = re.compile(r"(\w+)=(.+)")
"""A folder of a partitioned dataset: `label=cat`."""


def read_folder(root: Path, choices: Choices) -> Source:
    """Return the images of a folder of class folders, at any depth.

    Raises:
        InputError: for a folder of another layout, with the way out where the layout is known.
    """
    if choices.split is not None:
        return _read_split(root, choices)
    folders, files = _entries(root)
    if not folders:
        raise InputError(_without_folders(root, files))
    beside = sum(_is_image(name) for name in files)
    _refuse_exports(root, folders, files)
    nested = {name: _subfolders(root / name) for name in folders}
    _refuse_splits(root, nested)
    _refuse_labelled_splits(root, nested)

    notes = []
    if beside:
        notes.append(f"{beside:,} images lie beside the class folders in {root} and were left out.")
    if "metadata.csv" in files:
        notes.append(
            "metadata.csv lies beside the class folders; the labels are the folders' names. To take those of the "
            f"table, name it: {root / 'metadata.csv'}"
        )
    paths: list[str] = []
    counts: dict[str, int] = {}
    others: Counter[str] = Counter()
    for name in sorted(_UNLABELLED.intersection(folders)):
        n = sum(1 for _ in _images_below(root, name, Counter()))
        verb = "has no label and was" if n == 1 else "have no label and were"
        notes.append(f"{count(n, 'image')} in {name} {verb} left out.")
    for name in sorted(set(folders) - _UNLABELLED):
        before = len(paths)
        paths.extend(_images_below(root, name, others))
        counts[name] = len(paths) - before
    if not paths:
        raise InputError(_without_images(root, folders, others))
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
    notes.extend(_same_inside(classes, nested))
    if len(classes) > 1 and all(_words(name) & SPLIT_WORDS for name in classes):
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
    found = sorted(_images_below(root, split, Counter()))
    if not found:
        raise InputError(f"{root / split} holds no images.")
    return unlabelled(root, root, found)


def has_labels(root: Path, choices: Choices) -> bool:
    """Return whether there are folders, which are the classes."""
    return bool(_entries(root if choices.split is None else root / _folder_of(root, choices))[0])


def splits_of(root: Path, choices: Choices) -> list[str]:
    """Return the folders that are splits: called train, test and the like, with class folders of equal names in them.

    Empty where there are none, and where other folders lie beside them.
    """
    nested = {name: _subfolders(root / name) for name in _entries(root)[0]}
    named = [name for name in nested if _words(name) & SPLIT_WORDS]
    splits = [name for name in named if nested[name]]
    if not splits or len(named) < len(nested):
        return []
    often = Counter(inside for name in splits for inside in nested[name])
    return in_order(splits) if len(splits) == 1 or max(often.values()) > 1 else []


def _read_split(root: Path, choices: Choices) -> Source:
    """Return the images of one split, named as seen from `root`."""
    name = _folder_of(root, choices)
    source = read_folder(root / name, replace(choices, split=None))
    paths, files = ([f"{name}/{path}" for path in each] for each in (source.paths, source.file_names or source.paths))
    shown = printable(paths)
    flat = [each for each in splits_beside(root) if not _subfolders(root / each)]
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
    return [name for name in _entries(root)[0] if _words(name) & SPLIT_WORDS]


def _folder_of(root: Path, choices: Choices) -> str:
    """Return the folder of a split. Raises InputError where there is none."""
    folders = _entries(root)[0]
    found = named_split(folders, str(choices.split))
    if found is None:
        held = f"the folders {some(folders)}" if folders else "no folders"
        raise InputError(f"--split is {choices.split!r}, but {root} holds {held}.")
    return found


FORMAT = Format(
    Path.is_dir, read_folder, read_unlabelled, has_labels, frozenset(["split"]), name="folder", splits=splits_of
)


# -- what lies in it --


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
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


def _entries(root: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, without hidden ones."""
    folders: list[str] = []
    files: list[str] = []
    for entry in _scan(root):
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        (folders if entry.is_dir() else files).append(entry.name)
    return folders, files


def _subfolders(folder: Path) -> frozenset[str]:
    return frozenset(entry.name for entry in _scan(folder) if entry.is_dir() and not entry.name.startswith("."))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _images_below(root: Path, name: str, others: Counter[str]) -> Iterator[str]:
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
        for entry in _scan(where):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(prefix + entry.name)
            elif _is_image(entry.name):
                files.append(prefix + entry.name)
            else:
                others[os.path.splitext(entry.name)[1].lower() or "no suffix"] += 1
        yield from sorted(files)
        waiting.extend(sorted(folders, reverse=True))


def _class_names(folders: Sequence[str]) -> list[str]:
    """Return a class name for each folder; `label=cat` of a partitioned dataset is the class cat."""
    names = [unicodedata.normalize("NFC", name.strip()) for name in printable(folders)]
    parts = [_PARTITION.fullmatch(name) for name in names]
    keys = {part[1] for part in parts if part}
    if all(parts) and len(keys) == 1:
        return [part[2] for part in parts if part]
    return names


# -- layouts that are not class folders --


def _without_folders(root: Path, files: Sequence[str]) -> str:
    n_images = sum(map(_is_image, files))
    tables = [name for name in sorted(files) if name.lower().endswith((".csv", ".tsv"))]
    if n_images:
        start = f"{root} holds {n_images:,} images, but no class folders; "
        if "metadata.jsonl" in files:
            return start + f"their labels are in metadata.jsonl, so name that: {root / 'metadata.jsonl'}"
        if tables:
            table = "metadata.csv" if "metadata.csv" in files else tables[0]
            return start + f"if their labels are in a table, name that: {root / table}"
        return start + (
            "put each image into a folder named after its class, or name a .csv with a path and a label column."
        )
    if parquet := _parquet(files):
        return f"{root} holds {count(len(parquet), 'Parquet file')}; " + _join_parquet(root, parquet)
    return f"{root} holds no class folders with images; it takes one folder per class."


def _without_images(root: Path, folders: Sequence[str], others: Counter[str]) -> str:
    found = f"{root} holds {count(len(folders), 'folder')}, but no images in them"
    if others.keys() & _PARQUET:
        return f"{root} holds {count(len(folders), 'folder')} of Parquet files, and no images; " + _join_parquet(
            root, []
        )
    return f"{found} ({f'files of other kinds: {some(others)}' if others else 'they are empty'})."


def _parquet(files: Sequence[str]) -> list[str]:
    return [name for name in sorted(files) if os.path.splitext(name)[1].lower() in _PARQUET]


def _join_parquet(root: Path, files: Sequence[str]) -> str:
    if len(files) == 1:
        return f"name it: {root / files[0]}"
    return f"join them into one table first: pandas.read_parquet({str(root)!r}).to_parquet('all.parquet')"


def _refuse_exports(root: Path, folders: Sequence[str], files: Sequence[str]) -> None:
    """Raise InputError for folders that hold their labels in a file beside them."""
    table = next((name for name in ("metadata.csv", "labels.csv", "metadata.jsonl") if name in files), None)
    if len(folders) != 1:
        return
    if table is not None:
        raise InputError(f"{root} holds its labels in {table}, beside the folder {folders[0]}: name {root / table}")
    if {"samples.json", "metadata.json"} <= set(files):
        raise InputError(
            f"{root} is a FiftyOneDataset, which FiftyOne alone reads; let it export an "
            "ImageClassificationDirectoryTree or a FiftyOneImageClassificationDataset, or use the plugin."
        )
    tables = [name for name in sorted(files) if _lists_images(root / name)]
    if tables and not _subfolders(root / folders[0]):
        # MedMNIST's save calls the table as the folder
        own = (name for name in tables if is_train(name) or Path(name).stem == folders[0])
        name = next(own, tables[0])
        raise InputError(
            f"{root} holds its images in one folder, {folders[0]}, with {some(tables)} beside it; if that says their "
            f"labels, name it: {root / name}"
        )


def _lists_images(file: Path) -> bool:
    """Return whether a file is a table by its name, or a text whose first lines name an image."""
    suffix = file.suffix.lower()
    if suffix not in (".txt", ".lst"):
        return suffix in (".csv", ".tsv", ".jsonl", ".ndjson")
    try:
        with open_regular(file) as opened:
            start = opened.read(1000).decode("utf-8", "replace")
    except OSError:
        return False
    return any(_is_image(word) for word in start.split())


def _refuse_splits(root: Path, nested: dict[str, frozenset[str]]) -> None:
    """Raise InputError where folders are parts of a dataset: named so, and with class folders in them."""
    splits = sorted(name for name, inside in nested.items() if inside and _words(name) & SPLIT_WORDS)
    named = [name for name in nested if _words(name) & SPLIT_WORDS]
    if splits and (len(named) >= 2 or len(nested) == 1):
        train = next((name for name in splits if any(word.startswith("tr") for word in _words(name))), splits[0])
        all_of_them = sorted(named) if len(named) > 1 else splits
        raise InputError(
            f"{root} holds {' and '.join(all_of_them)}, which look{'s' if len(all_of_them) == 1 else ''} like "
            f"part{'' if len(all_of_them) == 1 else 's'} of a dataset, not classes; name one of them: {root / train}"
        )


def _refuse_labelled_splits(root: Path, nested: dict[str, frozenset[str]]) -> None:
    """Raise InputError where folders called like splits hold images and the file of their labels, as on the hub."""
    if not all(_words(name) & SPLIT_WORDS and not inside for name, inside in nested.items()):
        return
    tables = {name: [file for file in sorted(_entries(root / name)[1]) if _holds_labels(file)] for name in nested}
    train = next((name for name in tables if tables[name] and is_train(name)), None)
    train = train or next((name for name in in_order(list(tables)) if tables[name]), None)
    if train is not None:
        raise InputError(
            f"{root} holds {some(nested)}, which are parts of a dataset, not classes: the labels are in files; "
            f"name that of one of them: {root / train / tables[train][0]}"
        )


def _holds_labels(file: str) -> bool:
    """Return whether the name of a file beside images is that of a table, or of an export of labels."""
    return os.path.splitext(file)[1].lower() in (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".xml", ".parquet")


def _same_inside(classes: Sequence[str], nested: dict[str, frozenset[str]]) -> list[str]:
    """Return a note on classes that hold the same folders, as the parts of a dataset do."""
    insides = Counter(nested[name] for name in classes if len(nested[name]) > 1)
    if not insides:
        return []
    inside, n = insides.most_common(1)[0]
    if n < 2:
        return []
    alike = printable([name for name in classes if nested[name] == inside])
    return [
        f"the class folders {some(alike, 3)} hold the same folders ({some(printable(inside), 3)}); if these are the "
        "classes, name one of the folders above them."
    ]


def _words(name: str) -> set[str]:
    """Return the words of a folder's name in lower case: train and set of `training_set`, `TrainSet`, `train-2017`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return set(re.findall(r"[a-z]+", spaced.lower()))
