"""Probabilities of many classes: the largest of each row, and what the rest of the classes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cvcoteach._memory import scratch
from cvcoteach._validation import FloatArray, IntArray, PredProbs

MANY_CLASSES = 2_000
"""Beyond, no array has a column for each class: probabilities are kept as `TopProbs`, transitions sparse."""

N_KEPT = 128
"""Probabilities that are kept of a row, that of the given label among them."""

_MOST_WHOLE = 1 << 28
"""Probabilities, a GiB of them, up to which those of a few hundred classes are kept as an array."""

_BLOCK_VALUES = 1 << 22


def many(n: int, n_classes: int) -> bool:
    """Return whether probabilities of so many images and classes are kept as `TopProbs`, not as an array (n, K)."""
    return n_classes > MANY_CLASSES or (n_classes > 2 * N_KEPT and n * n_classes > _MOST_WHOLE)


class Rows(Protocol):
    """Probabilities (n, K) that are read a few rows at a time: an array, a memory map, `TopProbs`, or a computation."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, K)."""
        ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Return some rows (m, K) as an array."""
        ...


@dataclass(frozen=True, eq=False)
class TopProbs:
    """Class probabilities (n, K) of which each row keeps the largest; its other classes share the rest evenly.

    `probs[rows]` is an array (m, K), as of the whole; `numpy.asarray(probs)` takes the memory of all of it.
    """

    classes: npt.NDArray[np.int32]
    """(n, m) class numbers, ascending in each row."""
    values: PredProbs
    """(n, m) their probabilities."""
    rest: PredProbs
    """(n,) the mean probability of each other class."""
    n_classes: int
    """K."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, K)."""
        return len(self.classes), self.n_classes

    @property
    def ndim(self) -> int:
        """2, as of the array that this stands for."""
        return 2

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """float32, likewise."""
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: slice | IntArray) -> PredProbs:
        classes, values = self.classes[rows], self.values[rows]
        result = np.repeat(self.rest[rows][:, None], self.n_classes, axis=1)
        np.put_along_axis(result, classes, values, axis=1)
        return result

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def argmax(self, axis: int = 1) -> IntArray:
        """Return the most probable class of each row, (n,); the first of equal ones."""
        return self.classes[np.arange(len(self)), self.values.argmax(axis=1)].astype(np.int64)

    def max(self, axis: int = 1) -> PredProbs:
        """Return the largest probability of each row, (n,)."""
        return self.values.max(axis=1)

    def at(self, labels: IntArray) -> PredProbs:
        """Return the probability of a class of each row, (n,)."""
        place = np.minimum((self.classes < labels[:, None]).sum(axis=1), self.classes.shape[1] - 1)
        each = np.arange(len(self))
        return np.where(self.classes[each, place] == labels, self.values[each, place], self.rest)

    def rows(self, rows: slice | IntArray) -> TopProbs:
        """Return some of the rows, in the same form."""
        return TopProbs(self.classes[rows], self.values[rows], self.rest[rows], self.n_classes)

    def records(self) -> npt.NDArray[np.void]:
        """Return all of it as one array (n,) to save, for `of_records`."""
        result = np.empty(len(self), record_type(self.classes.shape[1]))
        result["classes"], result["values"], result["rest"] = self.classes, self.values, self.rest
        result["n_others"] = self.n_classes - self.classes.shape[1]
        return result

    @staticmethod
    def of_records(records: npt.NDArray[Any]) -> TopProbs:
        """Return what `records` was made of. Raises ValueError for any other array."""
        fields: Mapping[str, Any] = records.dtype.fields or {}
        m = fields["classes"][0].shape[0] if "classes" in fields and fields["classes"][0].shape else 0
        if records.ndim != 1 or not len(records) or not m or records.dtype != record_type(m):
            raise ValueError(f"records of {records.dtype} hold no probabilities")
        classes, others = np.ascontiguousarray(records["classes"]), records["n_others"]
        k = m + int(others[0])
        if (others != others[0]).any() or others[0] < 1 or classes.min() < 0 or classes.max() >= k:
            raise ValueError(f"records name classes {classes.min()} to {classes.max()} of {k:,}")
        if (np.diff(classes, axis=1) <= 0).any():
            raise ValueError("records name a class twice")
        values, rest = np.ascontiguousarray(records["values"]), np.ascontiguousarray(records["rest"])
        if not (np.isfinite(values).all() and np.isfinite(rest).all()):
            raise ValueError("records hold a number that is not finite")
        return TopProbs(classes, values, rest, k)


Answer = PredProbs | TopProbs
"""Probabilities (n, K), in either form."""


def record_type(n_kept: int) -> np.dtype[np.void]:
    """Return the type of a saved row with so many probabilities."""
    kept = (n_kept,)
    return np.dtype([("classes", "<i4", kept), ("values", "<f4", kept), ("rest", "<f4"), ("n_others", "<i4")])


def top_probs(probs: Rows, labels: IntArray) -> TopProbs:
    """Keep the `N_KEPT` largest of each row, the label's among them, and the sum of the row.

    Args:
        probs: (n, K), K > `N_KEPT`; read in blocks of rows.
        labels: (n,) given, whose probability is kept exactly.

    Returns:
        The same, in a few bytes per row for each class that is kept.
    """
    n, k = probs.shape
    classes, values = scratch((n, N_KEPT), np.int32), scratch((n, N_KEPT), np.float32)
    rest = np.empty(n, np.float32)
    for rows in row_blocks(n, k):
        classes[rows], values[rows], rest[rows] = _top(np.asarray(probs[rows], np.float32), labels[rows])
    return TopProbs(classes, values, rest, k)


def _top(block: PredProbs, labels: IntArray) -> tuple[IntArray, PredProbs, FloatArray]:
    k = block.shape[1]
    top = np.argpartition(block, k - N_KEPT, axis=1)[:, k - N_KEPT :]
    absent = ~(top == labels[:, None]).any(axis=1)
    least = np.take_along_axis(block, top, axis=1).argmin(axis=1)
    top[absent, least[absent]] = labels[absent]
    top.sort(axis=1)
    values = np.take_along_axis(block, top, axis=1)
    others = block.sum(axis=1, dtype=np.float64) - values.sum(axis=1, dtype=np.float64)
    return top, values, np.maximum(others, 0) / (k - N_KEPT)


def mean_of(parts: Sequence[Answer], labels: IntArray) -> Answer:
    """Return the mean of probabilities (n, K) that are all of one form."""
    if len(parts) == 1 and isinstance(parts[0], TopProbs):
        return parts[0]
    if not any(isinstance(part, TopProbs) for part in parts):
        return whole(_Mean(parts))
    return top_probs(_Mean(parts), labels)


def whole(probs: Rows) -> PredProbs:
    """Return probabilities that are computed as they are read as an array (n, K), a large one in a file."""
    n, k = probs.shape
    result: PredProbs = scratch((n, k), np.float32)
    for rows in row_blocks(n, k):
        result[rows] = probs[rows]
    return result


@dataclass(frozen=True)
class _Mean:
    """The mean of some probabilities, computed as it is read."""

    parts: Sequence[Answer]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].shape

    def __getitem__(self, rows: slice) -> PredProbs:
        mean: PredProbs = np.mean([part[rows] for part in self.parts], axis=0, dtype=np.float32)
        return mean


def latest(rounds: Sequence[tuple[IntArray, Answer]]) -> Answer:
    """Return probabilities (n, K) of all images, each of the last round that judged it.

    rounds: rows (m,) and their probabilities (m, K); those of the first are all rows.
    """
    (_, first), *later = rounds
    if isinstance(first, TopProbs):
        classes, values, rest = first.classes.copy(), first.values.copy(), first.rest.copy()
        for rows, probs in later:
            assert isinstance(probs, TopProbs)
            classes[rows], values[rows], rest[rows] = probs.classes, probs.values, probs.rest
        return TopProbs(classes, values, rest, first.n_classes)
    result = first.copy()
    for rows, probs in later:
        result[rows] = np.asarray(probs)
    return result


def rows_of(probs: Answer, rows: IntArray | slice) -> Answer:
    """Return some rows (m,), in the form in which they came."""
    return probs.rows(rows) if isinstance(probs, TopProbs) else probs[rows]


def probs_at(probs: Any, labels: IntArray) -> npt.NDArray[np.floating]:
    """Return the probability of a class of each row, (n,), of probabilities in either form."""
    if isinstance(probs, TopProbs):
        return probs.at(labels)
    result: npt.NDArray[np.floating] = probs[np.arange(len(labels)), labels]
    return result


def row_blocks(n: int, n_classes: int) -> Sequence[slice]:
    """Return slices that cover n rows, each of about 16 MB of probabilities."""
    size = max(1, _BLOCK_VALUES // n_classes)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
