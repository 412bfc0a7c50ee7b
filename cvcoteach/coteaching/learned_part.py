"""The part of the inputs of an estimator that it may learn from, of several splits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import _safe_indexing

from cvcoteach._validation import BoolArray, InputError, IntArray, check_rows
from cvcoteach.data.items import kind_of, labels_of_dataset
from cvcoteach.data.splits import as_splits, held_out


class LearnedPart(NamedTuple):
    """The m of n images that are learned from."""

    X: Any
    """m images or features, of the kind that they came as."""
    y: Any
    """(m,) labels."""
    rows: IntArray
    """(m,) which of the n they are, ascending."""
    n: int
    """n."""

    def of(self, mask: BoolArray) -> BoolArray:
        """Return what a mask (n,) says of the m."""
        return mask[self.rows]

    def whole(self, mask: BoolArray) -> BoolArray:
        """Return a mask (m,) for all n, False for those that are not learned from."""
        result = np.zeros(self.n, np.bool_)
        result[self.rows] = mask
        return result


def learned_part(X: Any, y: Any, splits: npt.ArrayLike) -> LearnedPart | None:
    """Return what is not held out, None where that is everything.

    Args:
        X: n images or features, as `CoTeaching.fit` takes them.
        y: (n,) labels; None: those of the dataset.
        splits: (n,) name of the split of each image, such as train and test.

    Raises:
        InputError: Numbers of rows differ, or labels are missing.
    """
    kind = kind_of(X)
    if y is None and kind == "dataset":
        y = labels_of_dataset(X)
    if y is None:
        raise InputError("y is missing; it takes one label per image.")
    n = len(y)
    check_rows(n, "X", X.shape[0] if hasattr(X, "shape") else len(X), labels="y")
    out = held_out(as_splits(splits, n))
    if out is None:
        return None
    rows = np.flatnonzero(~out)
    if kind == "dataset":
        return LearnedPart(_Rows(X, rows), _safe_indexing(y, rows), rows, n)
    return LearnedPart(_safe_indexing(X, rows), _safe_indexing(y, rows), rows, n)


class _Rows:
    """Some items of a dataset, as a dataset."""

    def __init__(self, dataset: Any, rows: IntArray) -> None:
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        return self.dataset[int(self.rows[row])]
