"""A noise transition between many classes, without its (K, K) numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._memory import check_memory
from cvcoteach._validation import FloatArray, IntArray

_COPIES = 3


@dataclass(frozen=True, eq=False)
class SparseTransition:
    """T[i, j] = P(given = j | true = i) = scale_i·(base_j + own·[i = j] + counts of the pair), rows sum to 1.

    `numpy.asarray(transition)` is (K, K), 8 bytes for each number.
    """

    scale: FloatArray
    """(K,) of the rows."""
    base: FloatArray
    """(K,) what every row has in a column."""
    own: FloatArray
    """() more on the diagonal."""
    pairs: IntArray
    """(p,) true·K + given of the pairs that are more frequent, ascending."""
    counts: FloatArray
    """(p,) by how much."""

    @property
    def shape(self) -> tuple[int, int]:
        """(K, K)."""
        return len(self), len(self)

    def __len__(self) -> int:
        return len(self.base)

    def diagonal(self) -> FloatArray:
        """Return P(given = k | true = k), (K,)."""
        true, given = np.divmod(self.pairs, len(self))
        result = self.base + self.own
        result[true[true == given]] += self.counts[true == given]
        return result * self.scale

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        result = np.tile(self.base, (len(self), 1))
        result[np.diag_indices(len(self))] += self.own
        result.ravel()[self.pairs] += self.counts
        result *= self.scale[:, None]
        return result.astype(dtype or result.dtype, copy=False)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return its arrays by name, to save."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @staticmethod
    def of_arrays(arrays: Mapping[str, npt.NDArray[Any]], n_classes: int) -> SparseTransition:
        """Return what `arrays` was made of. Raises ValueError where they do not fit, KeyError where one is absent."""
        found = SparseTransition(**{field.name: arrays[field.name] for field in fields(SparseTransition)})
        k, p = n_classes, found.pairs.size
        shapes = {"scale": (k,), "base": (k,), "own": (), "pairs": (p,), "counts": (p,)}
        for name, shape in shapes.items():
            array = arrays[name]
            kind = "i" if name == "pairs" else "f"
            if array.shape != shape or array.dtype.kind != kind or not np.isfinite(array).all():
                raise ValueError(f"{name} of the transition has shape {array.shape} of {array.dtype}")
        if p and not (found.pairs[0] >= 0 and found.pairs[-1] < k * k and (np.diff(found.pairs) > 0).all()):
            raise ValueError("the transition names pairs of other classes")
        return found


def dense(transition: Transition) -> FloatArray:
    """Return a transition as an array (K, K). Raises InputError where the memory does not hold a few of its size."""
    if isinstance(transition, SparseTransition):
        k = len(transition)
        check_memory(_COPIES * 8.0 * k * k, f"a matrix of {k:,} by {k:,} classes")
    return np.asarray(transition)


Transition = FloatArray | SparseTransition
"""(K, K), in either form."""
