"""Arrays of images with class numbers -> a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._validation import InputError
from cvcoteach.data.sources.labels import describe, encode
from cvcoteach.data.sources.source import Source, printable_name, unlabelled


class Arrays(NamedTuple):
    """What a file or folder of arrays holds."""

    images: npt.NDArray[Any]
    """(n, H, W) or (n, H, W, C)."""
    labels: npt.NDArray[Any]
    """(n,) class numbers."""
    class_names: Sequence[str] = ()
    """Names of the classes 0, 1, …, where the files hold them."""
    what: str = ""
    """What was read, for people: "data_batch_1 to data_batch_5"."""
    notes: tuple[str, ...] = ()


def source_of_arrays(location: Path, arrays: Arrays) -> Source:
    """Return images in memory with their labels. Raises InputError where labels and images or names do not match."""
    images, labels, names, name = arrays.images, arrays.labels, arrays.class_names, printable_name(location)
    if len(labels) != len(images):
        raise InputError(f"{name} holds {len(images):,} images, but {len(labels):,} labels; it takes one label each.")
    if len(names) and len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise InputError(
            f"the labels of {name} are from {labels.min()} to {labels.max()}, but it names {len(names)} classes."
        )
    values = np.array(names, object)[labels.astype(np.int64)] if len(names) else labels
    encoded = encode(pd.Series(values), f"labels in {name}")
    return Source(
        location,
        location.parent,
        _paths(location, len(images)),
        encoded.labels,
        encoded.class_names,
        array=images,
        notes=(*arrays.notes, *encoded.notes),
        description=describe(len(images), len(encoded.class_names), f"{arrays.what} of {name}"),
    )


def unlabelled_arrays(location: Path, arrays: Arrays) -> Source:
    """Return the images alone."""
    return unlabelled(location, location.parent, _paths(location, len(arrays.images)), arrays.images).noted(
        *arrays.notes
    )


def _paths(location: Path, n: int) -> tuple[str, ...]:
    name = printable_name(location)
    return tuple([f"{name}#{row}" for row in range(n)])
