"""Copies of images, exact and near: the former stay in one fold, of the latter a note tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy.typing as npt

from cvcoteach._validation import IntArray
from cvcoteach.crossval.groups import copies_tell, joined, members, n_units
from cvcoteach.data.copies import contradictions, first_copies
from cvcoteach.data.sources import Source
from cvcoteach.data.splits import held_out
from cvcoteach.data.twins import Twins, group_like, near_twins


class Content(NamedTuple):
    """What the images of a run hold."""

    rows: npt.NDArray[Any]
    """(m, H, W, C) pixels or (m, d) features, in memory or memory-mapped."""
    which: IntArray | None = None
    """(n,) the rows that are images of the run, ascending; None: all."""


def bind_copies(data: Source, content: Content, n_folds: int) -> tuple[Source, IntArray | None]:
    """Return the source with exact copies in one group, with notes on these and on near copies.

    Args:
        data: n images.
        content: what they hold.
        n_folds: most folds of a round.

    Returns:
        The source, and the first copy (n,) of each image, itself where there is none; None where there are no copies,
        or nothing else (see `copies_tell`).
    """
    first = first_copies(*content)
    if data.groups is None and (twins := near_twins(*content, first)).many:
        data = _noted(data, _on_twins(data, twins))
    if not copies_tell(first, n_folds):
        return data, None
    n_copies = len(first) - n_units(len(first), first)
    data = _noted(
        data,
        f"{n_copies:,} of {len(first):,} images {'repeats' if n_copies == 1 else 'repeat'} another one exactly; copies "
        "stay in one fold.",
    )
    n_contradicting = int(contradictions(data.labels, first).sum())
    if n_contradicting:
        data = _noted(
            data,
            f"{n_contradicting:,} images are copies of each other with different labels.",
        )
    out = held_out(data.splits)
    if out is not None and (n_known := int((members(first, ~out) & out).sum())):
        data = _noted(
            data,
            f"{n_known:,} {'image is' if n_known == 1 else 'images are'} held out, but a copy is among what models "
            "learn from: judged by models that did not learn the copy.",
        )
    return replace(data, groups=joined(data.groups, first)), first


def _noted(data: Source, note: str) -> Source:
    return replace(data, notes=(*data.notes, note))


def _on_twins(data: Source, twins: Twins) -> str:
    """Return a note on near copies in different folds, which names the column that looks like groups of them."""
    column = None if data.other_columns is None else group_like(data.other_columns(), twins)
    way = (
        f"the column {column!r} looks like their groups: --group-column {column} keeps each in one fold"
        if column is not None
        else "if they come from videos, bursts or patients, name these groups (--group-column, in FiftyOne group_field)"
    )
    return (
        f"{twins.share:.0%} of {twins.n_looked_at:,} images looked at have a near copy, which may lie in another fold "
        f"and confirm a wrong label; {way}."
    )
