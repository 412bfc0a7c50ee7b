"""Given labels of any kind -> class numbers and names, or one sentence that says why not."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._validation import (
    FEW_LABELS,
    BoolArray,
    InputError,
    IntArray,
    is_whole,
    lookalikes,
    order_names,
    verb,
    whole_name,
)
from cvcoteach.data.sources.source import count
from cvcoteach.data.splits import Names, as_splits

# "none" is left out: it is a word, and a class of that name ("none of these") is common
MISSING_WORDS = frozenset(["nan", "na", "n/a", "<na>", "null"])
"""What stands for "missing" in a text table, which has no other way to say it."""


class Encoded(NamedTuple):
    """Labels as class numbers."""

    labels: IntArray
    """(n,) 0..K-1."""
    class_names: tuple[str, ...]
    """K."""
    notes: tuple[str, ...] = ()


def encode(values: pd.Series[Any], where: str, *, words_are_missing: bool = False) -> Encoded:
    """Return the labels (n,) as class numbers, with the names of the classes.

    Spaces around a name and the composition of its accents do not make another class.

    Args:
        values: (n,) labels of any kind.
        where: what they are, for messages: "labels in the column 'label' of t.csv".
        words_are_missing: whether the words of `MISSING_WORDS` stand for a missing value, as in a text table.

    Raises:
        InputError: where a label is missing, spans lines, or is -1 among 0, 1, ….
    """
    refuse_missing(values, where, words_are_missing=words_are_missing)
    try:
        codes, uniques = pd.factorize(values)
    except TypeError:  # lists and objects, which JSON may hold
        odd = next(value for value in values if isinstance(value, list | dict))
        raise InputError(f"{where} hold {str(odd)[:40]}; it takes one label per image.") from None
    written = [str(name) for name in uniques]
    _refuse_line_breaks(written, codes, where)
    names = [unicodedata.normalize("NFC", name.strip()) for name in written]
    if all(map(is_whole, names)):
        names = [whole_name(name) for name in names]
        _refuse_minus_one(names, codes, where)
    ordered = order_names(names)
    rank = {name: number for number, name in enumerate(ordered)}
    labels = np.array([rank[name] for name in names], np.int64)[codes]
    n_unclean = int(np.isin(codes, [i for i, name in enumerate(written) if not _is_clean(name)]).sum())
    notes = list(lookalikes(ordered))
    if n_unclean:
        notes.insert(
            0,
            f"{n_unclean:,} {where} "
            f"{verb(n_unclean, 'was', 'were')} read without the spaces around them or with their accents composed.",
        )
    return Encoded(labels, ordered, tuple(notes))


def missing_values(values: pd.Series[Any], *, words_are_missing: bool = False) -> BoolArray:
    """Return which values (n,) are missing, empty, or a word for that."""
    missing, words = _missing(values, words_are_missing)
    return missing | words


def _missing(values: pd.Series[Any], words_are_missing: bool) -> tuple[BoolArray, BoolArray]:
    """Return which values (n,) are missing or empty, and which are a word for that."""
    missing = values.isna().to_numpy(dtype=np.bool_)
    words: BoolArray = np.zeros(len(values), np.bool_)
    if not pd.api.types.is_numeric_dtype(values):
        text = values.astype(object).where(~missing, "").astype(str).str.strip().str.lower()
        missing = missing | (text == "").to_numpy(dtype=np.bool_)
        if words_are_missing:
            words = text.isin(MISSING_WORDS).to_numpy(dtype=np.bool_)
    return missing, words


def refuse_missing(values: pd.Series[Any], where: str, *, words_are_missing: bool = False) -> None:
    """Raise InputError where a value is missing, empty, or a word for that."""
    missing, words = _missing(values, words_are_missing)
    if not (missing | words).any():
        return
    first = int(np.argmax(missing | words))
    hint = ""
    if words.any():
        word = str(values.iloc[int(np.argmax(words))]).strip()
        hint = f" ({word!r} stands for a missing value in a text table; Parquet holds it as a class)"
    n = int((missing | words).sum())
    raise InputError(
        f"{n:,} of {len(values):,} {where} {verb(n, 'is', 'are')} missing, the first in row {first + 1}; "
        f"fill them in or leave those rows out{hint}."
    )


def refuse_ids(labels: IntArray, where: str, *, column: bool) -> None:
    """Raise InputError where every label is another one, as in a column of ids. column: whether they come from one."""
    if len(labels) >= FEW_LABELS and len(np.unique(labels)) == len(labels):
        ids, how = (", as in a column of ids", " (--label-column names another column)") if column else ("", "")
        raise InputError(
            f"each of the {len(labels):,} {where} is a different one{ids}; a class needs several images{how}."
        )


def one_hot(columns: Sequence[str], values: npt.NDArray[Any]) -> IntArray | None:
    """Return the column (n,) that holds each row's 1, where all values (n, K) are 0 or 1 and each row has one 1."""
    if len(columns) < 2 or values.ndim != 2 or not len(values):
        return None
    try:
        numbers = values.astype(np.float64)
    except (ValueError, TypeError):
        return None
    if not np.isin(numbers, (0, 1)).all() or not (numbers.sum(axis=1) == 1).all():
        return None
    return numbers.argmax(axis=1)


def refuse_several_labels(values: npt.NDArray[Any], where: str) -> None:
    """Raise InputError where values (n, K) are 0 and 1 with several 1 in a row, or none: not one label per image."""
    try:
        numbers = values.astype(np.float64)
    except (ValueError, TypeError):
        return
    if not numbers.any() or not np.isin(numbers, (0, 1)).all():
        return
    several, none = numbers.sum(axis=1) > 1, ~numbers.any(axis=1)
    if several.any():
        raise InputError(
            f"{where} give several labels to {int(several.sum()):,} of {len(numbers):,} images, the first in row "
            f"{int(np.argmax(several)) + 1}: this is a multi-label dataset; it takes one label per image."
        )
    if none.any():
        raise InputError(
            f"{where} give no label to {int(none.sum()):,} of {len(numbers):,} images, the first in row "
            f"{int(np.argmax(none)) + 1}; one column per class takes a single 1 in each row: leave those rows out."
        )


class Groups(NamedTuple):
    """Groups as numbers."""

    codes: IntArray
    """(n,) 0..G-1."""
    names: tuple[str, ...]
    """(G,) what stood there."""


def group_codes(values: pd.Series[Any], where: str, *, words_are_missing: bool = False) -> Groups:
    """Return groups (n,) of any kind as numbers 0, 1, …. Raises InputError where one is missing."""
    refuse_missing(values, where, words_are_missing=words_are_missing)
    codes, names = pd.factorize(values)
    return Groups(codes.astype(np.int64), tuple([str(name) for name in names]))


def split_names(values: pd.Series[Any], where: str, *, words_are_missing: bool = False) -> Names:
    """Return names of splits as text, (n,). Raises InputError where one is missing."""
    refuse_missing(values, where, words_are_missing=words_are_missing)
    return as_splits(values.to_numpy(), len(values), name=where)


def unknown_values(values: pd.Series[Any], names: Sequence[str]) -> BoolArray:
    """Return which labels (n,) are -1 among numbers of named classes: Hugging Face's "not known"."""
    if not names or not pd.api.types.is_integer_dtype(values):
        return np.zeros(len(values), np.bool_)
    return (values == -1).to_numpy(dtype=np.bool_, na_value=False)


def named_values(values: pd.Series[Any], names: Sequence[str], where: str) -> pd.Series[Any]:
    """Return the names of classes that the file holds in place of their numbers."""
    if not names or not pd.api.types.is_integer_dtype(values):
        return values
    if len(values) and not 0 <= values.min() <= values.max() < len(names):
        raise InputError(f"{where} are from {values.min()} to {values.max()}, but the file names {len(names)} classes.")
    return pd.Series(np.array(names, dtype=object)[values.to_numpy(dtype=np.int64)])


def describe(n_images: int, n_classes: int, rest: str) -> str:
    """Return a source in one line: "60 images, 3 classes, columns path and label of photos.csv"."""
    return f"{count(n_images, 'image')}, {count(n_classes, 'class', 'classes')}, {rest}"


def _is_clean(name: str) -> bool:
    return name == unicodedata.normalize("NFC", name.strip())


def _refuse_line_breaks(names: Sequence[str], codes: IntArray, where: str) -> None:
    broken = [i for i, name in enumerate(names) if "\n" in name.strip() or "\r" in name.strip()]
    if broken:
        row = int(np.argmax(codes == broken[0]))
        raise InputError(
            f"one of the {where}, in row {row + 1}, spans several lines ({names[broken[0]][:40]!r}); a stray "
            "quotation mark swallows the rows after it: take it out."
        )


def _refuse_minus_one(names: Sequence[str], codes: IntArray, where: str) -> None:
    if "-1" in names and "0" in names and not any(name.startswith("-") and name != "-1" for name in names):
        n = int(np.isin(codes, [i for i, name in enumerate(names) if name == "-1"]).sum())
        others = sorted(int(name) for name in names if name != "-1")
        raise InputError(
            f"{n:,} of {len(codes):,} {where} "
            f"{verb(n, 'is', 'are')} -1 among {others[0]}-{others[-1]}, which often means that there is "
            "no label; leave those rows out, or give that class a name in words."
        )
