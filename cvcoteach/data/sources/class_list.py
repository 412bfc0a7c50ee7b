"""A list of class names beside an array of labels -> labels by name, or one sentence where the two contradict."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import InputError, is_whole, whole_name
from cvcoteach.data.sources.source import count, some

Array = npt.NDArray[Any]

CLASS_ARRAYS = ("class_names", "label_names", "target_names", "classes")
"""The usual names of such a list, the first that is there counts."""


class ClassList(NamedTuple):
    """The classes that a file lists."""

    name: str
    """Of the array."""
    where: str
    """What it is, for messages: "class_names in x.npz"."""
    names: tuple[str, ...]
    """K, of the classes 0, 1, …; or the labels themselves."""
    of_text: bool
    """Whether they are text, not numbers."""


def class_list(name: str, array: Array, n_images: int, where: str) -> ClassList | None:
    """Return the classes that the array `name` (K,) lists; None for one that is no list, such as a value per image.

    Raises:
        InputError: where a class is listed twice.
    """
    values = array.ravel() if array.ndim == 2 and 1 in array.shape else array
    if values.ndim != 1 or values.dtype.kind not in "USiu":
        return None
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    names = [plain_name(value) for value in values.tolist()]
    most, often = Counter(names).most_common(1)[0] if names else ("", 0)
    if often > 1 and len(names) == n_images:
        return None
    if often > 1:
        raise InputError(f"{where} lists {most} {often} times; it takes each class once.")
    return ClassList(name, where, tuple(names), values.dtype.kind == "U")


def named_by(labels: Array, listed: ClassList, where: str) -> Array:
    """Return labels (n,), numbers or text, by the names that are listed; missing ones stay as they are.

    Numbers count the names from 0 on; where they do not, or are listed as numbers, they are the names.

    Raises:
        InputError: where a label is not among the classes that are listed.
    """
    values, codes = np.unique(labels.astype(np.int64) if labels.dtype.kind == "b" else labels, return_inverse=True)
    names = [plain_name(value) for value in values.tolist()]
    if any(not name or value != value for name, value in zip(names, values.tolist(), strict=True)):
        return labels  # `encode` refuses what is missing
    places = _places(values, len(listed.names)) if listed.of_text else None
    if places is not None:
        return np.array(listed.names)[places][codes.reshape(labels.shape)]
    lost = [name for name in names if name not in listed.names]
    if lost and listed.of_text and values.dtype.kind != "U":
        raise InputError(
            f"{where} are from {names[0]} to {names[-1]}, but {listed.where} names "
            f"{count(len(listed.names), 'class', 'classes')}; it takes a name for each number from 0 on."
        )
    if lost:
        raise InputError(
            f"{where} hold {lost[0]}, but {listed.where} lists {some(listed.names) or 'nothing'}; it takes every class "
            "that a label names, or no such list."
        )
    return labels


def check_columns(n_columns: int, listed: ClassList, where: str) -> None:
    """Raise InputError unless there is a name for each column of one-hot labels."""
    if n_columns != len(listed.names):
        raise InputError(
            f"{where} are one-hot, of {n_columns} columns, but {listed.where} names "
            f"{count(len(listed.names), 'class', 'classes')}; it takes a name for each column."
        )


def plain_name(value: Any) -> str:
    """Return a label as text, as the names of classes are compared: without spaces around it, `3` for `3.0`."""
    name = unicodedata.normalize("NFC", str(value).strip())
    return whole_name(name) if is_whole(name) else name


def _places(values: Array, n_names: int) -> Array | None:
    """Return values as places in a list of names; None where some are no such places."""
    if values.dtype.kind not in "iuf" or not ((values >= 0) & (values < n_names) & (values == np.floor(values))).all():
        return None
    return values.astype(np.int64)
