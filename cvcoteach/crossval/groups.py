"""Groups of images that belong to one fold, such as those of a patient, a video or copies of each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cvcoteach._validation import BoolArray, InputError, IntArray, as_array, verb

_SIZE_WEIGHT = 0.3
"""Weight of even sizes of the parts against an even spread of each class over them."""


def as_groups(groups: Any, n: int, *, name: str = "groups") -> IntArray:
    """Return groups of any kind as numbers 0, 1, …, (n,).

    Args:
        groups: (n,) numbers or names, one per image.
        n: number of images.
        name: what they are called in messages.

    Raises:
        InputError: for another number of rows than images, and for a missing value.
    """
    array = as_array(groups, name)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}; it takes one group per image, shape ({n},).")
    if len(array) != n:
        raise InputError(f"{name} has {len(array):,} rows, but labels has {n:,}; it takes one group for each image.")
    missing = np.flatnonzero(pd.isna(array))
    if len(missing):
        raise InputError(
            f"{len(missing):,} of {n:,} {name} "
            f"{verb(len(missing), 'is', 'are')} missing, the first is {name}[{missing[0]}]; give images "
            "without a group a value of their own."
        )
    return pd.factorize(array)[0].astype(np.int64)


def joined(first: IntArray | None, second: IntArray | None) -> IntArray | None:
    """Return groups (n,) such that images of one group of either are in one group; None for None."""
    if first is None or second is None:
        return second if first is None else first
    n_first, n_second = int(first.max(initial=-1)) + 1, int(second.max(initial=-1)) + 1
    # connected components of the graph between the groups of both
    edges = coo_array((np.ones(len(first), np.bool_), (first, n_first + second)), shape=(n_first + n_second,) * 2)
    return connected_components(edges, directed=False)[1][first].astype(np.int64)


def copies_tell(first: IntArray, n_folds: int) -> bool:
    """Return whether there are copies, and enough different images beside them to divide into parts.

    Where nearly all images are copies, as of rows of few categories, binding them would leave nothing to learn from.

    Args:
        first: (n,) the first image with the same content, itself where there is none.
        n_folds: most folds of a round.
    """
    n_different = int(np.count_nonzero(first == np.arange(len(first))))
    return max(2 * n_folds, len(first) // 20) <= n_different < len(first)


def n_units(n_images: int, groups: IntArray | None) -> int:
    """Return how many things there are to divide into parts: groups, or images where there are none."""
    return n_images if groups is None else len(np.unique(groups))


def members(groups: IntArray, of: BoolArray) -> BoolArray:
    """Return the images (n,) whose group has an image in the mask `of` (n,)."""
    seen = np.zeros(int(groups.max(initial=-1)) + 1, np.bool_)
    seen[groups[of]] = True
    return seen[groups]


def grouped_parts(labels: IntArray, groups: IntArray, n_parts: int, rng: np.random.Generator) -> IntArray:
    """Return a part 0..n_parts-1 for each image, (n,): at random, with no group in two parts.

    The groups of several images go, largest first, to the part that has least of their classes; images that are alone
    in their group then even out each class, and after that the sizes.

    Args:
        labels: (n,) 0..K-1.
        groups: (n,) 0..G-1.
        n_parts: number of parts, at most G.
        rng: of the order among groups of one size.
    """
    sizes, totals = np.bincount(groups), np.bincount(labels)
    k = len(totals)
    cells, per_cell = np.unique(groups * k + labels, return_counts=True)
    group_of, class_of = np.divmod(cells, k)
    first = np.searchsorted(group_of, np.arange(len(sizes) + 1))
    placed, filled = np.zeros((n_parts, k)), np.zeros(n_parts)
    part_of = np.full(len(sizes), -1)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    for group in order[sizes[order] > 1].tolist():
        classes = class_of[first[group] : first[group + 1]]
        counts = per_cell[first[group] : first[group + 1]]
        # how much the squares of the shares grow: of each class in the parts, and of all images
        uneven = placed[:, classes] @ (counts / totals[classes] ** 2)
        part = int(np.argmin(uneven + _SIZE_WEIGHT * filled * sizes[group] / len(labels) ** 2))
        part_of[group] = part
        placed[part, classes] += counts
        filled[part] += sizes[group]
    parts = part_of[groups]
    alone = rng.permutation(np.flatnonzero(parts < 0))
    alone = alone[np.argsort(labels[alone], kind="stable")]
    ends = np.cumsum(np.bincount(labels[alone], minlength=k))
    for label, rows in enumerate(np.split(alone, ends[:-1])):
        shares = _levelled(placed[:, label], filled, len(rows))
        parts[rows] = np.repeat(np.arange(n_parts), shares)
        filled += shares
    return parts


def _levelled(placed: np.ndarray, filled: np.ndarray, n: int) -> IntArray:
    """Return how many of n images each part gets, so that `placed` (P,) becomes as even as it can, then `filled`."""
    order = np.lexsort((filled, placed))
    levels = placed[order]
    room = np.arange(1, len(levels) + 1) * levels - np.cumsum(levels)  # to raise those before to this level
    n_raised = int((room <= n).sum())
    level, rest = divmod(int(n + levels[:n_raised].sum()), n_raised)
    shares = np.zeros(len(levels), np.int64)
    raised = order[:n_raised]
    shares[raised] = level - placed[raised].astype(np.int64)
    shares[raised[np.argsort(filled[raised], kind="stable")[:rest]]] += 1
    return shares
