"""`Copy`: what is to be written, in whatever format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cvcoteach._files import check_regular
from cvcoteach._validation import BoolArray, InputError, IntArray
from cvcoteach.data.sources import Choices, Source


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

    They could lead anywhere, in circles too, or never end.
    """
    for where, folders, names in os.walk(location):
        linked = next((name for name in folders if os.path.islink(os.path.join(where, name))), None)
        if linked is not None:
            raise InputError(f"{os.path.join(where, linked)} is a link to a folder, which a copy does not follow.")
        for name in names:
            check_regular(os.path.join(where, name))
