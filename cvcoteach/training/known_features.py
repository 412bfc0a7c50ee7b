"""Features of images that were computed before, for another dataset: where images are added, only these are new."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import IntArray
from cvcoteach.data.cache import find

Features = npt.NDArray[np.float16]
Digests = npt.NDArray[np.uint64]
"""(n, 2), of what each image shows."""

_CHUNK = 256  # images
_ROWS = 8192
_GAP = 8
"""Known images between two unknown ones that are computed again with these: a batch of few takes as long as of some."""


def digests_of(pixels: npt.NDArray[np.uint8], threads: int) -> Digests:
    """Return digests (n, 2) of images (n, H, W, C): other pixels, another digest."""

    def part(start: int) -> bytes:
        images = np.ascontiguousarray(pixels[start : start + _CHUNK])
        return b"".join(hashlib.blake2b(image.data, digest_size=16).digest() for image in images)

    with ThreadPoolExecutor(threads) as pool:  # a digest leaves Python to other threads
        found = b"".join(pool.map(part, range(0, len(pixels), _CHUNK)))
    return np.frombuffer(found, "<u8").reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class KnownFeatures:
    """Where the features of n images lie, as far as they are known."""

    arrays: Sequence[Features]
    """(m, d) each."""
    array: IntArray
    """(n,) which of them, -1 where an image is not known."""
    row: IntArray
    """(n,) the row in it."""

    @classmethod
    def among(cls, wanted: Digests, there: Iterator[tuple[Digests, Features]]) -> KnownFeatures:
        """Look for images in features with the digests of theirs, all of one network, until all are found."""
        arrays: list[Features] = []
        array, row = np.full(len(wanted), -1), np.zeros(len(wanted), np.int64)
        for digests, features in there:
            if len(digests) != len(features) or (arrays and features.shape[1] != arrays[0].shape[1]):
                continue
            todo = np.flatnonzero(array < 0)
            at = find(digests[:, 0], wanted[todo, 0])
            same = (at >= 0) & (digests[at, 1] == wanted[todo, 1])
            array[todo[same]], row[todo[same]] = len(arrays), at[same]
            arrays.append(features)
            if (array >= 0).all():
                break
        return cls(arrays, array, row)

    @property
    def width(self) -> int | None:
        """d; None where nothing is known."""
        return self.arrays[0].shape[1] if (self.array >= 0).any() else None

    def unknown(self, start: int) -> list[range]:
        """Return the images from `start` on that have to be computed, as stretches in order."""
        rows = np.flatnonzero(self.array[start:] < 0) + start
        first = np.flatnonzero(np.diff(rows, prepend=-_GAP - 2) > _GAP + 1)
        last = np.append(first[1:], len(rows))[: len(first)] - 1
        return [range(a, b + 1) for a, b in zip(rows[first].tolist(), rows[last].tolist(), strict=True)]

    def between(self, start: int, stop: int) -> Iterator[Features]:
        """Yield the features (b, d) of known images start..stop-1, piece by piece."""
        for low in range(start, stop, _ROWS):
            part = slice(low, min(low + _ROWS, stop))
            found = np.empty((part.stop - low, self.arrays[0].shape[1]), np.float16)
            for number, features in enumerate(self.arrays):
                mine = self.array[part] == number
                found[mine] = features[self.row[part][mine]]
            yield found
