"""What of a source models learn from, and what is worth knowing about that before they do."""

from __future__ import annotations

import numpy as np

from cvcoteach._validation import BoolArray
from cvcoteach.crossval.groups import n_units
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.data.sources import Source
from cvcoteach.data.splits import held_out, is_train, learned_split
from cvcoteach.issues.flags import beyond_judgment

_MUCH_LARGER = 5
"""Times as many images that are only judged as learned from, from which a note says so."""

_ALIKE = 1.5
"""Times as many images as a split has on average, up to which the one learned from is as large as the others."""
_OF_FOLDS = (
    "; if these are folds, or other parts of one kind, leave out --split-column (in Python splits=), so that all "
    "images are learned from"
)


def _learned(data: Source) -> BoolArray:
    """Return the images (n,) that models may learn from."""
    out = held_out(data.splits)
    return np.ones(len(data), np.bool_) if out is None else ~out


def n_learned(data: Source) -> int:
    """Return the number of images that models may learn from."""
    return int(_learned(data).sum())


def folds_of(incv: IterativeCV, data: Source) -> tuple[int, ...]:
    """Return the folds of each round on the images that models may learn from."""
    groups = None if data.groups is None else data.groups[_learned(data)]
    return incv.folds(n_units(n_learned(data), groups))


def split_notes(data: Source) -> list[str]:
    """Return what is worth knowing about the splits: which one is learned from, and whether that is little."""
    learned = _learned(data)
    if data.splits is None or learned.all():
        return []
    train, n, others = learned_split(data.splits), int(learned.sum()), int((~learned).sum())
    notes = []
    alike = not is_train(train) and n <= _ALIKE * len(data) / len(np.unique(data.splits))
    if not is_train(train):
        notes.append(
            f"no split is called train: models learn from {train} alone, {n:,} of {len(data):,} images, and judge the "
            f"others{_OF_FOLDS if alike else ''}."
        )
    if others > _MUCH_LARGER * n and not alike:
        notes.append(
            f"{others:,} images are judged by models that learn from {n:,} of {train}; splits= or "
            "--split-column may say otherwise, and --split judges one split by its own images."
        )
    absent = np.setdiff1d(data.labels[~learned], data.labels[learned])
    if len(absent):
        names = ", ".join(repr(data.class_names[k]) for k in absent[:5].tolist())
        names += f" and {len(absent) - 5:,} more" if len(absent) > 5 else ""
        notes.append(
            f"{names}: no image of {train} has {'that label' if len(absent) == 1 else 'these labels'}, so the "
            "models never see the class; look at these images yourself."
        )
    return notes


def lone_images(data: Source, select: str) -> list[str]:
    """Return a sentence on the classes with a single image, or images of a single group, if there are any.

    select: The rule of the run. The summary of "posterior" names classes of too few labels, so these are not said here.
    """
    units, learned = np.arange(len(data)) if data.groups is None else data.groups, _learned(data)
    pairs = np.unique(np.stack([data.labels[learned], units[learned]]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(data.class_names))
    said_later = beyond_judgment(data.labels) if select == "posterior" else ()
    lone = [repr(data.class_names[k]) for k in np.setdiff1d(np.flatnonzero(counts == 1), said_later)]
    what = "1 image" if data.groups is None else "images of 1 group"
    if len(lone) == 1:
        return [f"class {lone[0]} has {what}: the models that score it never see the class, so look at it yourself."]
    names = ", ".join(lone[:5]) + (f" and {len(lone) - 5:,} more" if len(lone) > 5 else "")
    return lone and [
        f"{len(lone):,} of {len(counts):,} classes have {what}: {names}; the models that score it never see its "
        "class, so look at these images yourself."
    ]
