"""`Copy`: what is to be written, in whatever format."""

from __future__ import annotations

import os
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cvcoteach._files import check_regular, open_regular
from cvcoteach._validation import BoolArray, InputError, IntArray
from cvcoteach.data.decode import open_image
from cvcoteach.data.sources import Choices, Source
from cvcoteach.data.sources.source import IMAGE_SUFFIXES

_PARQUET = b"PAR1"
_SNAPSHOTS = "snapshots"


@dataclass(frozen=True, eq=False)
class Copy:
    """A source of n images under other labels, without some of them."""

    source: Source
    """What is copied."""
    choices: Choices
    """How it was read."""
    labels: IntArray
    """(n,) labels of the copy, 0..K-1 in the numbers of the source."""
    kept: BoolArray
    """(n,) the images that the copy has."""

    @cached_property
    def changed(self) -> IntArray:
        """Images that are kept under another label, (m,) indices, ascending."""
        return np.flatnonzero(self.kept & (self.labels != self.source.labels))

    @cached_property
    def donors(self) -> IntArray:
        """(n,) for each image, one whose label in the source is what the copy has for it; itself where unchanged.

        A label is copied as it is written there, whatever its type.
        """
        present, first = np.unique(self.source.labels, return_index=True)
        of_class = np.full(len(self.source.class_names), -1, np.int64)
        of_class[present] = first
        result = np.arange(len(self.labels))
        result[self.changed] = of_class[self.labels[self.changed]]
        if (result < 0).any():
            name = self.source.class_names[int(self.labels[int(np.argmax(result < 0))])]
            raise InputError(
                f"the class {name!r} has no image in {self.source.location}; nothing says how to write it."
            )
        return result


def check_content(location: Path) -> None:
    """Raise InputError where a folder, to be copied with all that lies in it, holds links to folders, pipes or devices.

    They could lead anywhere, in circles too, or never end. Links to files: see `check_link`.
    """
    for where, folders, names in os.walk(location):
        linked = next((name for name in folders if os.path.islink(os.path.join(where, name))), None)
        if linked is not None:
            raise InputError(f"{os.path.join(where, linked)} is a link to a folder, which a copy does not follow.")
        for name in names:
            check_regular(os.path.join(where, name))
            check_link(os.path.join(where, name), location)


def check_link(file: str | Path, location: Path) -> None:
    """Raise InputError where a file is a link out of `location` to something that is no image, Parquet or tar.

    Whoever made the dataset could have a copy hold what only its owner may read, to be passed on with it.
    """
    if not os.path.islink(file):
        return
    real, here = Path(os.path.realpath(file)), Path(os.path.realpath(location))
    if here in real.parents or _of_snapshot(here) in real.parents or is_image(real):
        return
    with suppress(OSError), open_regular(real) as opened:
        if opened.read(len(_PARQUET)) == _PARQUET or tarfile.is_tarfile(real):
            return
    raise InputError(
        f"{file} is a link to {real}, which lies outside of {location} and is no image; a copy would hold it. Put the "
        "file itself there if it belongs to the dataset, or remove the link."
    )


def is_image(file: str | Path) -> bool:
    """Return whether a file is an image by its own name, not that of a link to it, or else by how it begins."""
    real = os.path.realpath(file)
    if os.path.splitext(real)[1].lower() in IMAGE_SUFFIXES:
        return True
    try:
        with open_regular(real) as opened:
            open_image(opened).close()
    except Exception:  # Pillow raises anything
        return False
    return True


def _of_snapshot(location: Path) -> Path:
    """Return where the files of a dataset lie whose folder the hub of Hugging Face has filled with links."""
    parts = location.parts
    depth = parts.index(_SNAPSHOTS) if _SNAPSHOTS in parts else len(parts)
    return Path(*parts[:depth], "blobs")
