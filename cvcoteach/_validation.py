"""Wrong input -> one sentence that says where, what it got and what fits."""

from __future__ import annotations

import difflib
import math
import numbers
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
PredProbs = npt.NDArray[np.float32]

FEW_LABELS = 12
"""Labels so few that each may be of a class of its own."""

_ROW_SUM_TOLERANCE = 1e-3


class InputError(ValueError):
    """The input does not fit. The message is one sentence for the user."""


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: "1 image", "1,200 images"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def verb(n: int, one: str, many: str) -> str:
    """Return the verb that goes with a number: "is", "are"."""
    return one if n == 1 else many


def as_array(values: Any, name: str) -> npt.NDArray[Any]:
    """Return values as an array, without a copy where they are one.

    Raises:
        InputError: for rows of different lengths, and for what has no length.
    """
    if isinstance(values, np.ndarray):
        return values
    pandas = sys.modules.get("pandas")  # not imported for this: processes that decode images need none of it
    if pandas is not None and isinstance(values, pandas.Series | pandas.Index):
        return values.to_numpy()
    values = without_torch(values)
    if not hasattr(values, "__array__") and not hasattr(values, "__len__"):
        raise InputError(f"{name} is a {type(values).__name__}; it takes an array or a list.")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} has rows of different lengths ({str(error).splitlines()[0]}).") from None
    if array.ndim == 1 and array.dtype.kind in "US" and isinstance(values, list | tuple):
        # numpy writes None and NaN out as words where there is text beside them
        return np.array([*values, None], dtype=object)[:-1]
    return array


def without_torch(values: Any) -> Any:
    """Return a torch tensor as an array, wherever it lies and whatever its gradient; anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    tensor = values.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()  # numpy knows no bfloat16


def as_labels(labels: Any, n_classes: int | None = None) -> tuple[IntArray, int]:
    """Return labels as int64 (n,) in 0..K-1, and K.

    Args:
        labels: (n,) whole numbers.
        n_classes: K; None: the largest label + 1.

    Raises:
        InputError: for anything but whole numbers from 0 on, for labels without a class, for numbers that are ids
            rather than 0..K-1, and where fewer than two classes occur.
    """
    array = _one_label_each(as_array(labels, "labels"))
    if array.dtype.kind == "O" and all(isinstance(value, int | np.integer | float | np.floating) for value in array):
        array = array.astype(np.float64) if any(isinstance(v, float | np.floating) for v in array) else _integers(array)
    if array.dtype.kind not in "iu":
        if array.dtype.kind != "f":
            raise InputError(f"labels holds {array.dtype}; it takes whole numbers 0, 1, … (the index of each class).")
        odd = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
        if len(odd):
            raise InputError(f"labels[{odd[0]}] is {array[odd[0]]}; it takes whole numbers 0, 1, ….")
    if array.max() > np.iinfo(np.int64).max:
        raise InputError(f"labels[{int(array.argmax())}] is {array.max()}; it takes whole numbers 0, 1, ….")
    result = array.astype(np.int64)
    if result.min() < 0:
        first = int(np.argmax(result < 0))
        raise InputError(f"labels[{first}] is {result[first]}; labels start at 0.")
    largest = int(result.max())
    k = largest + 1 if n_classes is None else n_classes
    if largest >= k:
        first = int(np.argmax(result >= k))
        raise InputError(f"labels[{first}] is {result[first]}, but there are {k} classes, 0-{k - 1}.")
    if result.min() == largest:
        raise InputError(f"labels holds one class only ({largest}); a wrong label needs a second class to be seen.")
    if n_classes is None:
        present = len(np.unique(result))
        if k - present > 2 * present + 10:
            raise InputError(
                f"labels go up to {largest:,}, but only {present:,} different ones occur, so they are ids, not numbers "
                "0, 1, … of classes; number them: numpy.unique(labels, return_inverse=True)[1]."
            )
    return result, k


def encode_labels(labels: Any, class_names: Sequence[str] | None = None) -> tuple[IntArray, tuple[str, ...] | None]:
    """Return labels of any kind as int64 (n,), and the class names; None where there are none.

    Whole numbers stay what they are. Names are numbered in the order of class_names, else lexicographically, or by
    value where all of them are whole numbers.

    Args:
        labels: (n,) whole numbers or names.
        class_names: (K,), in the order of the numbers.

    Raises:
        InputError: for a missing label, a label that is not a class name, labels that are all different, and what
            `as_labels` refuses.
    """
    array = _one_label_each(as_array(labels, "labels"))
    given = None if class_names is None else tuple(map(str, class_names))
    if array.dtype.kind != "f":  # of floats `as_labels` says which value it is
        refuse_missing(array)
    numbers = array.dtype.kind in "iuf" or (
        array.dtype.kind == "O"
        and all(isinstance(value, int | np.integer | float) and not isinstance(value, bool) for value in array)
    )
    if numbers:
        codes, _ = as_labels(array, None if given is None else len(given))
        _refuse_ids(codes)
        return codes, given
    text = array.astype(str)
    found, index = np.unique(text, return_inverse=True)
    names = order_names(found.tolist()) if given is None else given
    place = {name: i for i, name in enumerate(names)}
    unknown = [name for name in found.tolist() if name not in place]
    if unknown:
        first = int(np.argmax(text == unknown[0]))
        raise InputError(f"labels[{first}] is {unknown[0]!r}, not a class name; {near(unknown[0], names)}")
    codes, _ = as_labels(np.array([place[name] for name in found.tolist()])[index], len(names))
    _refuse_ids(codes)
    return codes, names


def check_rows(n_labels: int, name: str, n_rows: int, *, labels: str = "labels") -> None:
    """Raise InputError unless there is one row of `name` for each of the `labels`."""
    if n_labels != n_rows:
        raise InputError(
            f"{labels} has {counted(n_labels, 'row')}, but {name} has {n_rows:,}; it takes one label for each row."
        )


def refuse_missing(array: npt.NDArray[Any], labels: str = "labels") -> None:
    """Raise InputError where a label is None or NaN."""
    import pandas as pd  # as above

    missing = np.flatnonzero(pd.isna(array))
    if len(missing):
        raise InputError(
            f"{len(missing):,} of {len(array):,} labels {verb(len(missing), 'is', 'are')} missing, the first is "
            f"{labels}[{missing[0]}]; leave those rows out, of the images or features too."
        )


def check_classes_repeat(labels: IntArray) -> None:
    """Raise InputError where each label (n,) is the only one of its class: no model can know what it judges."""
    if len(labels) and np.bincount(labels).max() == 1:
        raise InputError(
            f"each of the {len(labels):,} images is the only one of its class; a model can judge a label only if it "
            "has seen other images of the class."
        )


def check_columns(class_names: Sequence[str], n_columns: int, *, from_labels: bool) -> None:
    """Raise InputError unless pred_probs has a column for each class name.

    Args:
        class_names: K.
        n_columns: of pred_probs.
        from_labels: whether the names are those that occur among the labels, not the caller's.
    """
    if len(class_names) == n_columns:
        return
    if from_labels:
        raise InputError(
            f"labels holds {counted(len(class_names), 'different name')}, but pred_probs has "
            f"{counted(n_columns, 'column')}; class_names says which name each column belongs to."
        )
    raise InputError(
        f"class_names holds {counted(len(class_names), 'name')}, but pred_probs has {counted(n_columns, 'column')}."
    )


def is_whole(name: str) -> bool:
    """Return whether a name is a whole number: 7, -1, 007, or 3.0, as it becomes in a column that once had a gap.

    A name of more than 300 digits is none: no number type holds it.
    """
    return re.fullmatch(r"[+-]?[0-9]{1,300}(\.0*)?", name) is not None


def whole_name(name: str) -> str:
    """Return a whole number without its `.0`."""
    return name.split(".")[0]


def order_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in order: lexicographic, or by value where all of them are whole numbers; each once."""
    found = set(names)
    if all(map(is_whole, found)):
        return tuple(sorted(found, key=lambda name: (int(whole_name(name)), name)))
    return tuple(sorted(found))


def lookalikes(names: Iterable[str]) -> tuple[str, ...]:
    """Return a note on classes whose names differ by case, leading zeros or inner spaces only."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_folded(name)].append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if not alike:
        return ()
    pairs = ", ".join(" and ".join(map(repr, group)) for group in alike[:3])
    more = f" and {len(alike) - 3:,} more" if len(alike) > 3 else ""
    return (f"classes that may be meant as one: {pairs}{more}; write them alike if they are.",)


def _folded(name: str) -> str:
    if is_whole(name):
        return str(int(whole_name(name)))
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())


def _one_label_each(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.ndim != 1:
        raise InputError(f"labels has shape {array.shape}; it takes one label per image, shape (n,).")
    if len(array) == 0:
        raise InputError("labels is empty; it takes one label per image.")
    if array.dtype.kind == "O" and any(isinstance(value, list | tuple | dict | set | np.ndarray) for value in array):
        first = next(i for i, value in enumerate(array) if isinstance(value, list | tuple | dict | set | np.ndarray))
        raise InputError(f"labels[{first}] is {str(array[first])[:40]}; it takes one label per image, not several.")
    return array


def _integers(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    try:
        return array.astype(np.int64)
    except OverflowError:
        raise InputError(f"labels holds {max(array)}; it takes whole numbers 0, 1, ….") from None


def _refuse_ids(codes: IntArray) -> None:
    if len(codes) >= FEW_LABELS and len(np.unique(codes)) == len(codes):
        raise InputError(
            f"each of the {len(codes):,} labels is a different one, as ids are; a class needs several images."
        )


def as_pred_probs(pred_probs: npt.ArrayLike, shape: tuple[int, int], where: str = "pred_probs") -> PredProbs:
    """Return class probabilities as float32 of `shape` (n, K), clipped to [0, 1].

    Raises:
        InputError: where the shape differs, a value is not finite or outside [0, 1], or a row does not sum to 1; values
            and sums may be off by 1e-3, as published data are.
    """
    array = as_array(pred_probs, where)
    if array.ndim == 2 and array.shape[1] == shape[1] and len(array) != shape[0] and where == "pred_probs":
        check_rows(shape[0], where, len(array))
    if array.shape != shape:
        raise InputError(f"{where} has shape {array.shape}; {shape[0]} images and {shape[1]} classes need {shape}.")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{where} holds {array.dtype}; it takes numbers from 0 to 1.")
    if array.size == 0:
        return array.astype(np.float32)
    tolerance = _ROW_SUM_TOLERANCE
    low, high = array.min(), array.max()  # NaN spreads into both
    if not (low >= -tolerance and high <= 1 + tolerance):
        row = int(np.argmax(~((array >= -tolerance) & (array <= 1 + tolerance)).all(axis=1)))
        raise InputError(f"{where}[{row}] is {_short(array[row])}; probabilities lie between 0 and 1.")
    sums = array.sum(axis=1, dtype=np.float64)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > tolerance:
        raise InputError(f"{where}[{worst}] sums to {sums[worst]:.4g}; each row of probabilities sums to 1.")
    return np.clip(array, 0, 1).astype(np.float32, copy=False)


def _short(row: npt.NDArray[Any]) -> str:
    """Return a row on one line, long ones cut."""
    return np.array2string(row, precision=4, threshold=8, edgeitems=3, max_line_width=1000)


def check_number(name: str, value: float) -> None:
    """Raise InputError unless value is a number; True is none, nor is "2"."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{name} is {value!r}; it takes a number.")


def check_at_least(name: str, value: float, least: float) -> None:
    """Raise InputError unless value is a number >= least, and finite."""
    check_number(name, value)
    if not least <= value < math.inf:
        raise InputError(f"{name} is {value}; it takes {least} or more.")


def as_count(name: str, value: float, least: int) -> int:
    """Return a whole number from `least` on, which may come as a float such as 2.0. Raises InputError for others."""
    check_at_least(name, value, least)
    if value != int(value):
        raise InputError(f"{name} is {value}; it takes a whole number.")
    return int(value)


def set_counts(settings: Any, least: Mapping[str, int]) -> None:
    """Make whole numbers of those fields of a frozen dataclass that are set, as by `as_count`.

    least: name of the field -> its least value.
    """
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None:
            object.__setattr__(settings, name, as_count(name, value, smallest))


def near(name: str, known: Iterable[str], n: int = 3) -> str:
    """Return the known names that look like `name`, as the end of a sentence; all of them if few."""
    choices = sorted(known)
    few = len(choices) <= 12  # all of them help more than one that hardly looks like it
    close = difflib.get_close_matches(name, choices, n=n, cutoff=0.6 if few else 0.4) or (choices if few else [])
    return f"did you mean {', '.join(close)}?" if close else f"there are {len(choices)}: {', '.join(choices[:8])}, …"
