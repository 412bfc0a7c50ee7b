"""The paper's datasets as they are published -> images and class names. No pickle can run code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.io import loadmat

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.images import load_images
from cvcoteach.data.sources import Source, read_source

SIDE = 32
"""Pixels a side of an image of CIFAR-10."""
_VALIDATION_FOLDERS = ("val_images_256", "val_images", "val")
_SHOWN = 3


class Part(NamedTuple):
    """The images of a part of CIFAR-10, with their published labels."""

    images: npt.NDArray[np.uint8]
    """(n, 32, 32, 3)."""
    labels: IntArray
    """(n,) 0..9."""


def read_cifar10(folder: Path, cache_dir: Path | None = None) -> tuple[Part, Part]:
    """Return the training and the test images of CIFAR-10.

    Args:
        folder: `cifar-10-batches-py`, the binary batches, or image files in `train/CLASS` and `test/CLASS`.
        cache_dir: Where decoded files are kept; None: the user's cache.

    Raises:
        InputError: It holds neither, or images that cannot be read.
    """
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        train, test = read_source(folder / "train"), read_source(folder / "test")
    else:
        train, test = (read_source(folder, split=split, format="cifar") for split in ("train", "test"))
    if train.class_names != test.class_names:
        raise InputError(f"{folder} has other classes for training than for testing; CIFAR-10 has ten in both.")
    return _part(train, cache_dir), _part(test, cache_dir)


def _part(source: Source, cache_dir: Path | None) -> Part:
    if source.array is not None:
        return Part(np.asarray(source.array), source.labels)
    images = load_images(source, SIDE, channels=3, cache_dir=cache_dir)
    if images.errors:
        row, reason = next(iter(images.errors.items()))
        raise InputError(f"{source.paths[row]} in {source.location} cannot be read ({reason}).")
    return Part(np.asarray(images.pixels), source.labels)


# -- WebVision and ILSVRC-2012 -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ImageList:
    """Image files with the WordNet id of their class."""

    files: tuple[Path, ...]
    """n."""
    synsets: tuple[str, ...]
    """n, such as "n01440764"."""

    def __len__(self) -> int:
        return len(self.files)

    def write(self, table: Path) -> Path:
        """Write a CSV with the columns path and label, and return where it is."""
        frame = pd.DataFrame({"path": [str(file.absolute()) for file in self.files], "label": self.synsets})
        frame.to_csv(table, index=False)
        return table


def read_synsets(root: Path) -> tuple[str, ...]:
    """Return the WordNet ids of WebVision's classes in the order of their numbers, from info/synsets.txt."""
    return tuple([line.split()[0] for line in _lines(root / "info" / "synsets.txt")])


def read_webvision(root: Path, n_classes: int = 50) -> ImageList:
    """Return the images of the Google part of WebVision 1.0 in the first classes, from info/train_filelist_google.txt.

    Raises:
        InputError: The list or its images are not there.
    """
    return _listed(root, root / "info" / "train_filelist_google.txt", (root,), n_classes)


def read_webvision_validation(root: Path, n_classes: int = 50) -> ImageList:
    """Return the validation images of WebVision 1.0 in the first classes, from info/val_filelist.txt.

    Raises:
        InputError: The list or its images are not there.
    """
    folders = tuple([root / name for name in _VALIDATION_FOLDERS])
    return _listed(root, root / "info" / "val_filelist.txt", folders, n_classes)


def read_ilsvrc_validation(folder: Path, wanted: Iterable[str], devkit: Path | None = None) -> ImageList:
    """Return the validation images of ILSVRC-2012 in some classes.

    Args:
        folder: The 50,000 images as they come, with the development kit (or Kaggle's LOC_val_solution.csv beside
            them); or in a folder each class, named by its WordNet id.
        wanted: WordNet ids.
        devkit: ILSVRC2012_devkit_t12, which holds the ground truth; None: beside the images.

    Raises:
        InputError: There is no ground truth, or it does not fit the images.
    """
    kept = set(wanted)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; it takes the validation images of ILSVRC-2012.")
    by_class = sorted(file for name in kept for file in (folder / name).glob("*.JPEG"))
    if by_class:
        return ImageList(tuple(by_class), tuple([file.parent.name for file in by_class]))
    files = sorted(folder.glob("ILSVRC2012_val_*.JPEG"))
    if not files:
        raise InputError(f"{folder} holds neither ILSVRC2012_val_….JPEG nor a folder per class, such as n01440764.")
    truth = dict(_ground_truth(folder, devkit, files))
    absent = [file.stem for file in files if file.stem not in truth]
    if absent:
        raise InputError(f"the ground truth has no class for {', '.join(absent[:_SHOWN])} in {folder}.")
    chosen = [file for file in files if truth[file.stem] in kept]
    return ImageList(tuple(chosen), tuple([truth[file.stem] for file in chosen]))


def _ground_truth(folder: Path, devkit: Path | None, files: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield the name of each image with the WordNet id of its class."""
    for table in (folder / "LOC_val_solution.csv", folder.parent / "LOC_val_solution.csv"):
        if devkit is None and table.is_file():
            for line in _lines(table)[1:]:
                name, _, boxes = line.partition(",")
                yield name, boxes.split()[0]
            return
    places = [devkit] if devkit else [parent / "ILSVRC2012_devkit_t12" for parent in (folder, folder.parent)]
    data = next((place / "data" for place in places if (place / "data").is_dir()), None)
    if data is None:
        raise InputError(
            f"{folder} has no ground truth; name the development kit ILSVRC2012_devkit_t12 (--devkit), or put "
            "LOC_val_solution.csv beside the images."
        )
    numbers = [int(line) for line in _lines(data / "ILSVRC2012_validation_ground_truth.txt")]
    synsets = _synsets_of_the_devkit(data / "meta.mat")
    for file in files:
        number = int(file.stem.rpartition("_")[2])
        if not 1 <= number <= len(numbers):
            raise InputError(f"{file.name} is image {number:,}, but the ground truth has {len(numbers):,} rows.")
        yield file.stem, synsets[numbers[number - 1]]


def _synsets_of_the_devkit(file: Path) -> dict[int, str]:
    """Return the WordNet id of each ILSVRC2012_ID: another order than that of the ids."""
    try:
        rows = np.atleast_1d(loadmat(file, squeeze_me=True)["synsets"])
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    except Exception as error:  # a broken file makes scipy raise anything
        raise InputError(f"{file} cannot be read as the meta.mat of the development kit ({error}).") from error


def _listed(root: Path, file: Path, folders: tuple[Path, ...], n_classes: int) -> ImageList:
    """Return the images that a list of WebVision names, in the first of the folders that holds them."""
    synsets = read_synsets(root)
    if not 2 <= n_classes <= len(synsets):
        raise InputError(f"n_classes is {n_classes}; WebVision has {len(synsets):,} here, and it takes 2 or more.")
    named = []
    for number, line in enumerate(_lines(file), start=1):
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal() or int(label) >= len(synsets):
            raise InputError(f"line {number} of {file} is {line!r}; it takes an image and the number of its class.")
        if int(label) < n_classes:
            named.append((name, synsets[int(label)]))
    if not named:
        raise InputError(f"{file} names no image of the first {n_classes} classes.")
    there = next((folder for folder in folders if (folder / named[0][0]).is_file()), None)
    if there is None:
        places = ", ".join(str(folder) for folder in folders)
        raise InputError(f"{named[0][0]}, the first image of {file.name}, is not in {places}.")
    return ImageList(tuple([there / name for name, _ in named]), tuple([synset for _, synset in named]))


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file} cannot be read ({reason}).") from error
    return [line for line in text.splitlines() if line.strip()]
