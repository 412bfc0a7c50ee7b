"""`Copy`: what is to be written, in whatever format."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

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
