"""Which images go into which batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cvcoteach._validation import IntArray

Order = Callable[[int, np.random.Generator], Sequence[IntArray]]
"""Epoch (from 0) and random numbers -> the positions in each batch."""


def shuffled(n: int, batch_size: int) -> Order:
    """Return all n images in random order, in batches of `batch_size` or one less, none of a single image.

    Batch normalisation cannot take a single image, so there is no remainder: all batches share what is missing.
    """
    n_batches = _n_batches(n, batch_size)

    def order(epoch: int, rng: np.random.Generator) -> list[IntArray]:
        positions = rng.permutation(n) if n > 1 else np.zeros(2, np.int64)
        return np.array_split(positions, n_batches)

    return order


def smallest_batch(n: int, batch_size: int) -> int:
    """Return the number of images in the smallest batch of `shuffled`."""
    return max(2, n // _n_batches(n, batch_size))


def _n_batches(n: int, batch_size: int) -> int:
    n_batches = -(-n // batch_size)
    return max(1, n // 2) if n_batches > 1 and n // n_batches < 2 else n_batches
