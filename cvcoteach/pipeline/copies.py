"""Copies of images, exact and near, which stay in one fold; a note tells of near ones that do not."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray, IntArray
from cvcoteach.crossval.groups import copies_tell, joined, members
from cvcoteach.data.copies import contradictions, first_copies
from cvcoteach.data.near_copies import near_copies
from cvcoteach.data.sources import Source
from cvcoteach.data.splits import held_out
from cvcoteach.data.twins import Twins, group_like, near_twins

_LARGEST_PART = 5
"""A group that near copies join holds at most the images divided by this, unless it was as large before."""
_MANY = 0.05
"""Share of near copies from which a column of their groups is named."""


class Content(NamedTuple):
    """What the images of a run hold."""

    rows: npt.NDArray[Any]
    """(m, H, W, C) pixels or (m, d) features, in memory or memory-mapped."""
    which: IntArray | None = None
    """(n,) the rows that are images of the run, ascending; None: all."""


class Copies(NamedTuple):
    """Which images are copies of which."""

    exact: IntArray
    """(n,) the first image with the same content, itself where there is none."""
    near: IntArray
    """(n,) the first image that shows the same picture, itself where there is none; exact copies included."""

    @property
    def any(self) -> bool:
        """Whether there are copies at all."""
        return bool((self.near != np.arange(len(self.near))).any())

    @property
    def duplicate_of(self) -> IntArray:
        """(n,) the first exact copy, -1 where there is none before it."""
        return np.where(self.exact == np.arange(len(self.exact)), -1, self.exact)

    @property
    def near_copy_of(self) -> IntArray:
        """(n,) the first near copy, -1 where there is none before it, or where it is an exact one."""
        return np.where((self.near == np.arange(len(self.near))) | (self.near == self.exact), -1, self.near)

    @property
    def n_exact(self) -> int:
        """The number of images that repeat an earlier one exactly."""
        return int((self.duplicate_of >= 0).sum())

    @property
    def n_near(self) -> int:
        """The number of images that nearly repeat an earlier one, and repeat none exactly."""
        return int(((self.near_copy_of >= 0) & (self.duplicate_of < 0)).sum())


def found_copies(
    content: Content, n_folds: int, groups: IntArray | None, *, bind_near: bool, learned: BoolArray | None = None
) -> Copies:
    """Return which images are copies of which, as far as they can be bound to folds.

    Args:
        content: What the images hold.
        n_folds: Most folds of a round.
        groups: (n,) named ones; near copies must not join them to a large part of all images.
        bind_near: Whether to look for near copies.
        learned: (n,) what models learn from, of which near copies must leave as many groups as folds; None: all.
    """
    found = first_copies(*content)
    exact = found if copies_tell(found, n_folds) else np.arange(len(found))
    near = near_copies(*content, found) if bind_near else exact
    together, by_exact = joined(groups, near), joined(groups, exact)
    assert together is not None
    assert by_exact is not None
    largest = int(np.bincount(together).max())
    glued = largest > max(int(np.bincount(by_exact).max()), len(found) // _LARGEST_PART)
    few = np.count_nonzero(np.bincount(together if learned is None else together[learned])) < n_folds
    return Copies(exact, near if copies_tell(near, n_folds) and not glued and not few else exact)


def bind_copies(data: Source, content: Content, n_folds: int, *, bind_near: bool = True) -> tuple[Source, Copies]:
    """Return the source with copies in one group, with notes on these; and which images are copies of which.

    Args:
        data: n images.
        content: What they hold.
        n_folds: Most folds of a round.
        bind_near: Whether to bind near copies too; else a note tells of many.
    """
    out = held_out(data.splits)
    learned = None if out is None else ~out
    copies = found_copies(content, n_folds, data.groups, bind_near=bind_near, learned=learned)
    if data.groups is None and (twins := near_twins(*content, copies.near)).many:
        data = _noted(data, _on_twins(data, twins))
    if not copies.any:
        return data, copies
    exact, near, n = copies.n_exact, copies.n_near, len(data)
    against = contradictions(data.labels, copies.exact)
    if exact:
        data = _noted(data, f"{exact:,} of {n:,} images {_repeat(exact)} another one exactly; copies stay in one fold.")
    if against.any():
        data = _noted(data, f"{int(against.sum()):,} images are copies of each other with different labels.")
    if near:
        data = _noted(
            data,
            f"{near:,} of {n:,} images {_repeat(near)} another one nearly, such as frames of a burst or a picture "
            "saved anew; near copies stay in one fold.",
        )
        if n_other := int((contradictions(data.labels, copies.near) & ~against).sum()):
            data = _noted(data, f"{n_other:,} images are near copies of each other with different labels.")
        if data.groups is None and (column := _group_column(data, copies.near)) is not None:
            data = _noted(data, f"the column {column!r} looks like their groups: {_by_column(column)}.")
    if out is not None and (n_known := int((members(copies.near, ~out) & out).sum())):
        data = _noted(
            data,
            f"{n_known:,} {'image is' if n_known == 1 else 'images are'} held out, but a copy is among what models "
            "learn from: judged by models that did not learn the copy.",
        )
    return replace(data, groups=joined(data.groups, copies.near)), copies


def _repeat(n: int) -> str:
    return "repeats" if n == 1 else "repeat"


def _group_column(data: Source, near: IntArray) -> str | None:
    """Return the column that looks like the groups of near copies, if there is one."""
    later = np.flatnonzero(near != np.arange(len(near)))
    if data.other_columns is None or len(later) < _MANY * len(near):
        return None
    return group_like(data.other_columns(), Twins(np.stack([later, near[later]], axis=1), len(near)))


def _noted(data: Source, note: str) -> Source:
    return replace(data, notes=(*data.notes, note))


def _on_twins(data: Source, twins: Twins) -> str:
    """Return a note on near copies in different folds, which names the column that looks like groups of them."""
    column = None if data.other_columns is None else group_like(data.other_columns(), twins)
    way = (
        f"the column {column!r} looks like their groups: {_by_column(column)}"
        if column is not None
        else "if they come from videos, bursts or patients, name these groups (--group-column, in FiftyOne group_field)"
    )
    return (
        f"{twins.share:.0%} of {twins.n_looked_at:,} images looked at have a near copy, which may lie in another fold "
        f"and confirm a wrong label; {way}."
    )


def _by_column(column: str) -> str:
    return f"--group-column {shlex.quote(column)} keeps each in one fold"
