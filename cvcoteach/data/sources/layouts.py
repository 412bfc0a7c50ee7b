"""Folders of other layouts than class folders: one sentence each, with the way out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cvcoteach._files import open_regular
from cvcoteach._validation import InputError
from cvcoteach.data.sources import cifar, mnist
from cvcoteach.data.sources.entries import entries, is_image, subfolders, words
from cvcoteach.data.sources.joined import in_order
from cvcoteach.data.sources.labels_beside import Beside, lists_beside
from cvcoteach.data.sources.source import SPLIT_WORDS, Choices, count, printable, some
from cvcoteach.data.splits import is_train

_PARQUET = frozenset([".parquet", ".pq"])
_MOST_TRIED = 100
_USUAL = ("metadata.csv", "labels.csv", "metadata.jsonl")
"""Tables that hold the labels of images, mostly."""


def without_folders(root: Path, files: Sequence[str]) -> str:
    n_images = sum(map(is_image, files))
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


def without_images(root: Path, folders: Sequence[str], others: Counter[str]) -> str:
    found = f"{root} holds {count(len(folders), 'folder')}, but no images in them"
    if others.keys() & _PARQUET:
        return f"{root} holds {count(len(folders), 'folder')} of Parquet files, and no images; " + _join_parquet(
            root, []
        )
    inside = _readable(root, folders)
    if inside:
        return (
            f"{found}; {some(inside)} can be read, so name {'that' if len(inside) == 1 else 'one'}: {root / inside[0]}"
        )
    return f"{found} ({f'files of other kinds: {some(others)}' if others else 'they are empty'})."


def _readable(root: Path, folders: Sequence[str]) -> list[str]:
    """Return the folders in a folder, or in its folders, that hold MNIST or CIFAR as torchvision downloads them."""
    readable = []
    for name in sorted(folders)[:_MOST_TRIED]:
        places = (name, *[f"{name}/{inside}" for inside in sorted(subfolders(root / name))[:_MOST_TRIED]])
        readable.extend(
            [place for place in places if mnist.recognises(root / place) or cifar.recognises(root / place)][:1]
        )
    return readable


def _parquet(files: Sequence[str]) -> list[str]:
    return [name for name in sorted(files) if os.path.splitext(name)[1].lower() in _PARQUET]


def _join_parquet(root: Path, files: Sequence[str]) -> str:
    if len(files) == 1:
        return f"name it: {root / files[0]}"
    return f"join them into one table first: pandas.read_parquet({str(root)!r}).to_parquet('all.parquet')"


def refuse_exports(root: Path, folders: Sequence[str], files: Sequence[str]) -> None:
    """Raise InputError for a folder that holds its labels in a file beside it."""
    table = next((name for name in _USUAL if name in files), None)
    if len(folders) != 1:
        return
    if table is not None:
        raise InputError(f"{root} holds its labels in {table}, beside the folder {folders[0]}: name {root / table}")
    if {"samples.json", "metadata.json"} <= set(files):
        raise InputError(
            f"{root} is a FiftyOneDataset, which FiftyOne alone reads; let it export an "
            "ImageClassificationDirectoryTree or a FiftyOneImageClassificationDataset, or use the plugin."
        )


def refuse_one_class(root: Path, folder: str, files: Sequence[str], beside: Sequence[Beside]) -> None:
    """Raise InputError where the only folder with images has files beside it that may hold their labels.

    beside: those that list images of the folder.
    """
    listed = [each.file.name for each in beside]
    names = listed or [name for name in sorted(files) if _lists_images(root / name)]
    if names and (listed or not subfolders(root / folder)):
        raise InputError(
            f"{root} holds its images in one folder, {folder}, with {some(names)} beside it; if that says their "
            f"labels, name it: {root / _first(names, [folder], beside)}"
        )


def refuse_labels_beside(
    root: Path, nested: Mapping[str, frozenset[str]], files: Sequence[str], beside: Sequence[Beside]
) -> None:
    """Raise InputError where a file of labels lies beside folders of images that are no classes.

    These are folders called like parts of a dataset, and others where the labels in the file are not their names.
    """
    if all(words(name) & SPLIT_WORDS and not inside for name, inside in nested.items()):
        same = {each.file.name for each in beside if each.agrees()}
        listed = [each.file.name for each in beside if each.file.name not in same]
        names = listed or [name for name in sorted(files) if name not in same and _lists_images(root / name)]
        if names:
            raise InputError(
                f"{root} holds {some(nested)}, which are parts of a dataset, not classes, with {some(names)} beside "
                f"them; if that says their labels, name it: {root / _first(names, list(nested), beside)} "
                "(--format folder takes the folders for classes)"
            )
        return
    other = next((each for each in beside if each.contradicts(list(nested))), None)
    if other is not None:
        gives = f" and gives them the labels {some(other.class_names, 3)}" if other.class_names else ""
        raise InputError(
            f"{root} holds {other.file.name}, which lists the images of its folders ({some(nested, 3)}){gives}; to "
            f"read those labels, name it: {root / other.file.name} (--format folder takes the folders for classes)"
        )


def notes_on_files(
    root: Path,
    classes: Sequence[str],
    nested: Mapping[str, frozenset[str]],
    files: Sequence[str],
    sizes: Mapping[str, int],
    choices: Choices,
) -> list[str]:
    """Return a note on each file beside class folders that lists their images with something else than the classes.

    Args:
        root: the folder.
        classes: the folders that hold images.
        nested: the folders in each of them.
        files: the files beside.
        sizes: number of images of each folder.
        choices: the format that was named, if any: it is not doubted.

    Raises:
        InputError: where such a file plainly holds the labels, and the folders are no classes.
    """
    beside = lists_beside(root, files, sizes)
    if choices.format is None and len(classes) == 1:
        refuse_one_class(root, classes[0], files, beside)
    elif choices.format is None:
        refuse_labels_beside(root, {name: nested[name] for name in classes}, files, beside)
    named = {name for name in _USUAL if name in files} | {each.file.name for each in beside if not each.agrees()}
    return [
        f"{name} lies beside the class folders; the labels are the folders' names. To take those of the table, "
        f"name it: {root / name}"
        for name in sorted(named)
    ]


def _first(names: Sequence[str], folders: Sequence[str], beside: Sequence[Beside]) -> str:
    """Return the file most likely to hold the labels: one that can be read, of train, or called as a folder."""
    readable = {each.file.name for each in beside if each.class_names}

    def order(name: str) -> tuple[bool, bool, str]:
        # MedMNIST's save calls the table as the folder
        likely = is_train(name) or Path(name).stem in folders or "label" in name.lower()
        return name not in readable, not likely, name

    return min(names, key=order)


def _lists_images(file: Path) -> bool:
    """Return whether a file is a table or an export by its name, or a text whose first lines name an image."""
    suffix = file.suffix.lower()
    if suffix not in (".txt", ".lst"):
        return suffix in (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".xml")
    try:
        with open_regular(file) as opened:
            start = opened.read(1000).decode("utf-8", "replace")
    except OSError:
        return False
    return any(is_image(word) for word in start.split())


def labelled_splits(root: Path, splits: Sequence[str]) -> bool:
    """Return whether each of the splits holds one folder of images, and some a file of their labels beside it."""
    return all(len(subfolders(root / name)) == 1 for name in splits) and any(
        _holds_labels(file) for name in splits for file in entries(root / name)[1]
    )


def refuse_splits(root: Path, nested: dict[str, frozenset[str]]) -> None:
    """Raise InputError where folders are parts of a dataset: named so, and with class folders in them."""
    splits = sorted(name for name, inside in nested.items() if inside and words(name) & SPLIT_WORDS)
    named = [name for name in nested if words(name) & SPLIT_WORDS]
    if splits and (len(named) >= 2 or len(nested) == 1):
        train = next((name for name in splits if any(word.startswith("tr") for word in words(name))), splits[0])
        all_of_them = sorted(named) if len(named) > 1 else splits
        raise InputError(
            f"{root} holds {' and '.join(all_of_them)}, which look{'s' if len(all_of_them) == 1 else ''} like "
            f"part{'' if len(all_of_them) == 1 else 's'} of a dataset, not classes; name one of them: {root / train}"
        )


def refuse_labelled_splits(root: Path, nested: dict[str, frozenset[str]]) -> None:
    """Raise InputError where folders called like splits hold images and the file of their labels, as on the hub."""
    if not all(words(name) & SPLIT_WORDS and len(inside) < 2 for name, inside in nested.items()):
        return
    tables = {name: [file for file in sorted(entries(root / name)[1]) if _holds_labels(file)] for name in nested}
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


def same_inside(classes: Sequence[str], nested: dict[str, frozenset[str]]) -> list[str]:
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
