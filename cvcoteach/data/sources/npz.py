"""An .npz with images and labels, also one of several splits as MedMNIST and Keras write them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._files import check_regular
from cvcoteach._validation import InputError, near
from cvcoteach.data.sources.class_list import CLASS_ARRAYS, ClassList, check_columns, class_list, named_by
from cvcoteach.data.sources.labels import Groups, describe, encode, group_codes, one_hot, refuse_several_labels
from cvcoteach.data.sources.source import Choices, Format, Source, printable_name, unlabelled
from cvcoteach.data.splits import named_split
from cvcoteach.data.unpacking import check_unpacked

Array = npt.NDArray[Any]

_PAIRS = (("images", "labels"), ("image", "label"), ("x", "y"), ("X", "y"), ("data", "labels"), ("data", "target"))
_SPLIT = re.compile(r"(?:(train|val|valid|test)_(images|labels)|(x|y)_(train|val|valid|test))", re.IGNORECASE)
_SPLIT_ORDER = ("train", "val", "valid", "test")


def read_npz(location: Path, choices: Choices) -> Source:
    """Return the images and labels of an .npz.

    Raises:
        InputError: for a file or arrays of another kind, and for labels that are missing.
    """
    with open_npz(location) as arrays:
        image_name, label_name, notes = _names(arrays, choices.split, location)
        images, labels = arrays.read(image_name), arrays.read(label_name)
        groups = None if choices.group_column is None else arrays.read_groups(choices, len(images))
        listed, more = arrays.read_classes(len(images))
    check_images(images, f"{image_name} in {location.name}")
    where = f"{label_name} in {location.name}"
    if labels.ndim == 2 and labels.shape == (len(images), 1):
        labels = labels[:, 0]
    elif labels.ndim == 2 and len(labels) == len(images):
        columns = [str(k) for k in range(labels.shape[1])]
        found = one_hot(columns, labels)
        if found is None:
            refuse_several_labels(labels, where)
        else:
            called = f"the classes are called 0-{len(columns) - 1}"
            if listed is not None:
                check_columns(len(columns), listed, where)
                called = f"the classes are called as in {listed.where}"
            labels, notes = found, (*notes, f"{where} are one-hot; {called}.")
    if labels.shape != images.shape[:1]:
        raise InputError(f"{where} has shape {labels.shape}; {len(images):,} images need ({len(images)},).")
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{where} holds bytes that are not UTF-8; save the labels as text.") from None
    if labels.dtype.kind not in "iufUb":
        raise InputError(f"{where} holds {labels.dtype}; it takes whole numbers or text.")
    if listed is not None:
        labels = named_by(labels, listed, where)
    encoded = encode(pd.Series(labels), f"labels in {location.name}")
    k = len(encoded.class_names)
    return Source(
        location,
        location.parent,
        tuple([f"{printable_name(location)}#{row}" for row in range(len(images))]),
        encoded.labels,
        encoded.class_names,
        array=images,
        notes=(*notes, *more, *encoded.notes),
        description=describe(
            len(images),
            k,
            f"arrays {image_name} {_shape(images)} and {label_name} of {printable_name(location)}",
        ),
        groups=None if groups is None else groups.codes,
        group_names=None if groups is None else groups.names,
    )


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of an .npz, whether it holds labels or not."""
    with open_npz(location) as arrays:
        if "images" in arrays.names and choices.split is None:
            name = "images"
        else:
            found = [name for name, _ in _pairs_of(arrays.names, choices.split)]
            if not found and len(arrays.names) != 1:
                raise InputError(f"{location.name} has no array images; it holds {', '.join(arrays.names) or 'none'}.")
            name = found[0] if found else arrays.names[0]
        images = arrays.read(name)
    check_images(images, f"{name} in {location.name}")
    paths = [f"{printable_name(location)}#{row}" for row in range(len(images))]
    return unlabelled(location, location.parent, paths, images)


def splits_of(location: Path, choices: Choices) -> list[str]:
    """Return the splits that have images and labels, as MedMNIST and Keras name them; none beside plain `images`."""
    with open_npz(location) as arrays:
        if any(set(pair) <= set(arrays.names) for pair in _PAIRS):
            return []
        return [name for name, kinds in _splits(arrays.names).items() if {"images", "labels"} <= kinds.keys()]


def has_labels(location: Path, choices: Choices) -> bool:
    """Return whether there is an array of labels."""
    with open_npz(location) as arrays:
        return any(labels for _, labels in _pairs_of(arrays.names, choices.split))


FORMAT = Format(
    lambda path: path.suffix.lower() == ".npz" and not path.is_dir(),
    read_npz,
    read_unlabelled,
    has_labels,
    frozenset(["split", "group_column"]),
    name="npz",
    splits=splits_of,
)


def check_images(images: Array, where: str) -> None:
    """Raise InputError unless `images` are (n, H, W) or (n, H, W, 1|3|4) finite numbers or bool, n from 1 on."""
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3, 4)) or 0 in images.shape:
        turned = images.ndim == 4 and images.shape[1] in (1, 3, 4)
        raise InputError(
            f"{where} has shape {images.shape}; it takes (n, H, W) or (n, H, W, 1|3|4)"
            + (", channels last: images.transpose(0, 2, 3, 1)." if turned else ".")
        )
    if images.dtype.kind == "f":
        if not np.isfinite([images.min(), images.max()]).all():  # NaN spreads into both
            raise InputError(f"{where} has values from {images.min():g} to {images.max():g}; it takes finite numbers.")
    elif images.dtype.kind not in "iub":
        raise InputError(f"{where} holds {images.dtype}; it takes numbers: uint8, uint16, floats.")


def _shape(images: Array) -> str:
    return f"({', '.join(map(str, images.shape))}, {images.dtype})"


# -- the file --


class NpzArrays:
    """The arrays of an open .npz."""

    def __init__(self, location: Path) -> None:
        self._location = location
        self._file: Any = None
        self._content: Any = None
        self.names: list[str] = []

    def __enter__(self) -> NpzArrays:
        check_regular(self._location)
        # numpy leaves a file open that it cannot read, if it opened it
        try:
            self._file = open(self._location, "rb")  # closed by __exit__
        except OSError as error:
            raise InputError(f"{self._location} cannot be read ({error.strerror or error}).") from None
        try:
            self._content = np.load(self._file, allow_pickle=False)
            if not isinstance(self._content, np.lib.npyio.NpzFile):
                raise TypeError("it holds a single array")
            self.names = list(self._content.files)
        except Exception as error:
            self.__exit__()
            raise _unreadable(self._location, error) from None
        return self

    def read(self, name: str) -> Array:
        _check_unpacked(self._location, self._content.zip, name)
        try:
            array = self._content[name]
        except Exception as error:  # a broken file makes zipfile and zlib raise anything
            raise _unreadable(self._location, error) from None
        if not array.dtype.itemsize and array.size:  # of a length that takes no memory, but time without end
            raise InputError(f"{name} in {self._location.name} holds {array.dtype}: values of no length.")
        if array.dtype.kind == "U" and any(
            "\ud800" <= letter <= "\udfff" for name in set(array.flat) for letter in name
        ):
            raise InputError(f"{name} in {self._location.name} holds text that is not Unicode (half a character).")
        return np.asarray(array)

    def read_groups(self, choices: Choices, n: int) -> Groups:
        """Return the groups of n images: the array that is named, or of a split that of its name, `train_patients`.

        Raises InputError where there is no such array, or a value is missing.
        """
        name = str(choices.group_column)
        split = None if choices.split is None else named_split(list(_splits(self.names)), choices.split)
        name = f"{split}_{name}" if split is not None and f"{split}_{name}" in self.names else name
        if name not in self.names:
            raise InputError(f"{self._location.name} has no array {name!r} (--group-column); {near(name, self.names)}")
        groups = self.read(name)
        if groups.shape not in ((n,), (n, 1)):
            raise InputError(f"{name} in {self._location.name} has shape {groups.shape}; {n:,} images need ({n},).")
        return group_codes(pd.Series(groups.ravel()), f"groups in {name} of {self._location.name}")

    def read_classes(self, n: int) -> tuple[ClassList | None, tuple[str, ...]]:
        """Return the classes that the file lists, None where it lists none, and a note on a list that is not read.

        n: how many images there are. Raises InputError where a class is listed twice.
        """
        name = next((name for name in CLASS_ARRAYS if name in self.names), None)
        if name is None:
            return None, ()
        where = f"{name} in {self._location.name}"
        try:
            listed = class_list(name, self.read(name), n, where)
        except _ObjectsError:
            listed = None
        if listed is None:
            return None, (f"{where} is no list of class names, as text or numbers, and was not read.",)
        return listed, ()

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _check_unpacked(location: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Raise InputError for an array that a small file unpacks to gigabytes, as images hardly do."""
    packed = next((part for part in archive.infolist() if part.filename in (name, f"{name}.npy")), None)
    if packed is not None:
        what = f"{name} in {location.name}"
        check_unpacked(what, packed.compress_size, packed.file_size, "save it unpacked, with numpy.savez")


def open_npz(location: Path) -> NpzArrays:
    """Return the arrays of an .npz, by name, read one by one in a `with`; nothing is unpickled. Raises InputError."""
    return NpzArrays(location)


class _ObjectsError(InputError):
    """An array of Python objects, which is not unpickled."""


def _unreadable(location: Path, error: Exception) -> InputError:
    if "allow_pickle" in str(error):
        return _ObjectsError(
            f"{location.name} holds arrays of Python objects, which could run code when loaded; "
            "save images as numbers and labels as numbers or text."
        )
    if isinstance(error, zipfile.BadZipFile | OSError | ValueError | EOFError | TypeError):
        return InputError(f"{location.name} cannot be read as .npz ({error}); np.savez writes one.")
    return InputError(f"{location.name} cannot be read as .npz ({type(error).__name__}); np.savez writes one.")


def _splits(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the parts of a dataset that the arrays are named after: split -> images and labels -> array."""
    splits: dict[str, dict[str, str]] = {}
    for name in names:
        if found := _SPLIT.fullmatch(name):
            split = (found[1] or found[4]).lower()
            kind = (found[2] or {"x": "images", "y": "labels"}[found[3].lower()]).lower()
            splits.setdefault(split, {})[kind] = name
    return splits


def _pairs_of(names: list[str], split: str | None) -> list[tuple[str, str]]:
    splits = _splits(names)
    if split is not None:
        part = splits.get(named_split(list(splits), split) or "", {})
        return [(part["images"], part.get("labels", ""))] if "images" in part else []
    pairs = [pair for pair in _PAIRS if set(pair) <= set(names)]
    parts = [splits[name] for name in _SPLIT_ORDER if "images" in splits.get(name, {})]
    return [*pairs, *((part["images"], part.get("labels", "")) for part in parts)]


def _names(arrays: NpzArrays, split: str | None, location: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return the names of the images and the labels, and notes."""
    pairs = [pair for pair in _pairs_of(arrays.names, split) if pair[1]]
    splits = sorted(_splits(arrays.names), key=_SPLIT_ORDER.index)
    if not pairs:
        if split is not None:
            raise InputError(
                f"--split is {split!r}, but {location.name} holds "
                + (f"the splits {', '.join(splits)}." if splits else f"{', '.join(arrays.names) or 'no arrays'}.")
            )
        absent = [name for name in ("images", "labels") if name not in arrays.names]
        raise InputError(
            f"{location.name} has no array {' and no array '.join(absent)}; "
            f"it holds {', '.join(arrays.names) or 'none'}."
        )
    images, labels = pairs[0]
    if split is None and _SPLIT.fullmatch(images) and len(splits) > 1:
        note = f"{location.name} holds the splits {', '.join(splits)}; {splits[0]} is read, --split names another."
        return images, labels, (note,)
    return images, labels, ()
