"""Wrong input -> one sentence that says where, what it got and what fits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
PredProbs = npt.NDArray[np.float32]

_ROW_SUM_TOLERANCE = 1e-3


class InputError(ValueError):
    """What the caller gave does not fit. The message is one sentence for the user."""


def as_labels(labels: npt.ArrayLike, n_classes: int | None = None) -> tuple[IntArray, int]:
    """Labels as int64 (n,) in 0..K-1, and K (given, or the largest label + 1).

    Raises InputError for anything but whole numbers from 0 on, for labels without a class,
    and where fewer than two classes occur.
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise InputError(f"labels has shape {array.shape}; it takes one whole number an image, shape (n,).")
    if len(array) == 0:
        raise InputError("labels is empty; it takes one whole number an image.")
    if array.dtype.kind not in "iu":
        if array.dtype.kind != "f":
            raise InputError(f"labels holds {array.dtype}; it takes whole numbers 0, 1, … (the index of each class).")
        odd = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
        if len(odd):
            raise InputError(f"labels[{odd[0]}] is {array[odd[0]]}; it takes whole numbers 0, 1, ….")
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
    return result, k


def as_pred_probs(pred_probs: npt.ArrayLike, shape: tuple[int, int], where: str = "pred_probs") -> PredProbs:
    """Class probabilities as float32 of `shape` (n, K), clipped to [0, 1].

    Raises InputError where the shape differs, a value is not finite or outside [0, 1], or a row does
    not sum to 1; values and sums may be off by 1e-3, as published data are.
    """
    array = np.asarray(pred_probs)
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
        raise InputError(f"{where}[{row}] is {array[row]}; probabilities lie between 0 and 1.")
    sums = array.sum(axis=1, dtype=np.float64)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > tolerance:
        raise InputError(f"{where}[{worst}] sums to {sums[worst]:.4g}; each row of probabilities sums to 1.")
    return np.clip(array, 0, 1).astype(np.float32, copy=False)


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises InputError unless value >= least."""
    if not value >= least:
        raise InputError(f"{name} is {value}; it takes {least} or more.")


def near(name: str, known: Iterable[str], n: int = 3) -> str:
    """The known names that look like `name`, as the end of a sentence; all of them if few."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=n, cutoff=0.4) or (choices if len(choices) <= 12 else [])
    return f"did you mean {', '.join(close)}?" if close else f"there are {len(choices)}: {', '.join(choices[:8])}, …"
