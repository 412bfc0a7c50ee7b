"""Splits of a dataset, such as train and test: which one models learn from, and which are held out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._validation import BoolArray, InputError, IntArray, as_array, verb

Names = npt.NDArray[np.str_]

_WORDS = {
    "train": "train training trainset trn",
    "validation": "val valid validation valset dev",
    "test": "test tests testing testset eval holdout",
}
_SPLIT_OF = {word: name for name, words in _WORDS.items() for word in words.split()}


def as_splits(splits: Any, n: int, *, name: str = "splits") -> Names:
    """Return names of splits of any kind as text, (n,), without spaces around them.

    Args:
        splits: (n,) names or numbers, one per image.
        n: number of images.
        name: what they are called in messages.

    Raises:
        InputError: for another number of rows than images, and for a missing or empty value.
    """
    array = as_array(splits, name)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}; it takes one split per image, shape ({n},).")
    if len(array) != n:
        raise InputError(f"{name} has {len(array):,} rows, but labels has {n:,}; it takes one split for each image.")
    codes, values = pd.factorize(array)
    text = np.array([str(value).strip() for value in values], dtype=np.str_)
    missing = np.flatnonzero(np.where(codes < 0, True, (text == "")[codes]) if len(text) else codes < 0)
    if len(missing):
        raise InputError(
            f"{len(missing):,} of {n:,} {name} "
            f"{verb(len(missing), 'is', 'are')} missing, the first is {name}[{missing[0]}]; say of "
            "each image whether it is of train, test or another split."
        )
    return np.asarray(text[codes])


def split_in_name(name: str) -> str:
    """Return train, validation or test where a word in the name of a file says so; empty where none does."""
    return next((_SPLIT_OF[word] for word in re.findall("[a-z]+", name.lower()) if word in _SPLIT_OF), "")


def named_split(names: Sequence[str], wanted: str) -> str | None:
    """Return the one of several splits that a user means: of that name, or the only one that says the same, as val does
    of validation; None where there is none.
    """
    same = [name for name in names if name.lower() == wanted.lower()]
    meant = split_in_name(wanted) if wanted.lower() in _SPLIT_OF else ""
    alike = [name for name in names if meant and name.lower() in _SPLIT_OF and split_in_name(name) == meant]
    return same[0] if same else alike[0] if len(alike) == 1 else None


def is_train(name: str) -> bool:
    """Return whether a split is called train, such as training_set, seg_train, trn or TrainVal."""
    return any(word.startswith("train") or word in ("tr", "trn") for word in _words(name))


def split_order(name: str) -> tuple[int, int, str]:
    """Return what splits are sorted by: train, then val and dev, then test, then all others by number and name."""
    words = _words(name)
    if is_train(name):
        return 0, 0, name
    if any(word.startswith(("val", "dev")) for word in words):
        return 1, 0, name
    number = re.search("[0-9]{1,9}", name)
    return (2 if any(word.startswith("test") for word in words) else 3), int(number[0]) if number else 0, name


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", spaced.lower())


def learned_split(names: Names) -> str:
    """Return the split that models learn from, of the names (n,): train, or without one the largest.

    One called test is taken for the largest only where there is no other.
    """
    found, counts = np.unique(names, return_counts=True)
    size = dict(zip(found.tolist(), counts.tolist(), strict=True))
    train = [name for name in size if is_train(name)]
    others = [name for name in size if not any(word.startswith("test") for word in _words(name))]
    return max(train or others or size, key=lambda name: (size[name], name))


def held_out(names: Names | None) -> BoolArray | None:
    """Return the images (n,) that no model learns from, of the names of their splits; None where there are none.

    All splits that are called train are learned from; see `learned_split` for where none is.
    """
    if names is None:
        return None
    values, codes = np.unique(names, return_inverse=True)
    if len(values) < 2:
        return None
    learned = learned_split(names)
    out = np.array([name != learned and not (is_train(learned) and is_train(name)) for name in values.tolist()])
    return np.asarray(out[codes]) if out.any() else None


def rows_by_split(names: Names) -> dict[str, IntArray]:
    """Return the images of each split, ascending: the one learned from first, then by `split_order`."""
    learned = learned_split(names)
    found, codes = np.unique(names, return_inverse=True)
    values = found.tolist()
    order = sorted(range(len(values)), key=lambda k: (values[k] != learned, split_order(values[k])))
    return {values[k]: np.flatnonzero(codes == k) for k in order}
