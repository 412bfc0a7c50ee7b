"""Which value is black and which is white: one rule for files, arrays and datasets, chosen by the range of a source.

Ordinary bytes are taken as they are. Everything else - whole numbers of more than 8 bits, floats, and bytes that use
few levels - is stretched from the smallest usual range that holds all values of the source: 1, 2, 3, 4, 5, 8, 10, 12,
14, 16, 24 or 32 bits, and [0, 1] for floats; where there are negative values, from the power of two below them. A range
of the source, not of each image: images stay comparable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Kind = Literal["bytes", "integers", "floats"]
Pixels = npt.NDArray[np.uint8]

_BITS = (1, 2, 3, 4, 5, 8, 10, 12, 14, 16, 24, 32)
_FEW = 31
"""Bytes up to here use few levels: nearly black, and next to nothing is left of them once they are scaled down."""


class Range(NamedTuple):
    """The least and the largest value of some images."""

    low: float
    high: float


@dataclass(frozen=True)
class Levels:
    """Black and white of each kind of value; a kind that is absent is as usual: bytes 0-255, the rest by itself."""

    ranges: tuple[tuple[Kind, Range], ...] = ()

    def of(self, kind: Kind) -> Range | None:
        """Return black and white of a kind of value."""
        return dict(self.ranges).get(kind)

    def hold(self, found: Mapping[Kind, Range]) -> bool:
        """Return whether all these values lie between black and white."""
        return all(kind_range is None or _within(found[kind], kind_range) for kind, kind_range in self._for(found))

    def _for(self, found: Mapping[Kind, Range]) -> list[tuple[Kind, Range | None]]:
        usual = Range(0, 255)
        return [(kind, self.of(kind) or (usual if kind == "bytes" else Range(math.inf, -math.inf))) for kind in found]

    @property
    def note(self) -> str:
        """A sentence on what was stretched; empty where nothing was."""
        if not self.ranges:
            return ""
        parts = [f"{kind} from {low:,g} (black) to {high:,g} (white)" for kind, (low, high) in self.ranges]
        return f"pixels are read as {' and '.join(parts)}, the smallest usual range that holds all of them."

    def as_json(self) -> list[list[Any]]:
        """Return plain lists, of which `from_json` makes the same again."""
        return [[kind, black, white] for kind, (black, white) in self.ranges]

    @classmethod
    def from_json(cls, content: Iterable[Any]) -> Levels:
        """Return what `as_json` gave. Raises ValueError or TypeError for anything else."""
        return cls(tuple([(kind, Range(float(black), float(white))) for kind, black, white in content]))


ORDINARY = Levels()
"""Bytes from 0 to 255."""


def levels_of(found: Mapping[Kind, Range]) -> Levels:
    """Return the smallest usual levels that hold all values of a source.

    Args:
        found: the range of each kind of value in it; see `range_of`.
    """
    ranges: list[tuple[Kind, Range]] = []
    for kind in sorted(found):
        low, high = found[kind]
        if kind == "bytes" and (high > _FEW or high == 0):
            continue
        ranges.append((kind, Range(_black(low), _white(high))))
    return Levels(tuple(ranges))


def merged(found: Iterable[Mapping[Kind, Range]]) -> dict[Kind, Range]:
    """Return the range of several images together."""
    result: dict[Kind, Range] = {}
    for ranges in found:
        for kind, (low, high) in ranges.items():
            known = result.get(kind, Range(low, high))
            result[kind] = Range(min(known.low, low), max(known.high, high))
    return result


def kind_of(dtype: np.dtype[Any]) -> Kind:
    """Return what values of that type are."""
    if dtype == np.uint8:
        return "bytes"
    return "floats" if dtype.kind == "f" else "integers"


def range_of(values: npt.NDArray[Any]) -> dict[Kind, Range]:
    """Return the range of pixel values; empty for bool, whose levels are known. What is not finite does not count."""
    if values.dtype == np.bool_ or not values.size:
        return {}
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        finite = values[np.isfinite(values)]
        if not finite.size:
            return {}
        low, high = float(finite.min()), float(finite.max())
    return {kind_of(values.dtype): Range(low, high)}


def to_unit(values: npt.NDArray[Any], levels: Levels) -> npt.NDArray[np.float32]:
    """Return values of any kind as float32 in [0, 1], black to white; what lies outside is clipped."""
    if values.dtype == np.bool_:
        return values.astype(np.float32)
    kind = kind_of(values.dtype)
    known = levels.of(kind) or (Range(0, 255) if kind == "bytes" else levels_of(range_of(values)).of(kind))
    black, white = known or Range(0, 1)  # nothing in it is finite
    scaled = (np.nan_to_num(values.astype(np.float32)) - np.float32(black)) / np.float32(white - black)
    return scaled.clip(0, 1)


def to_bytes(values: npt.NDArray[Any], levels: Levels) -> Pixels:
    """Return values of any kind as bytes, black to white."""
    if values.dtype == np.uint8 and levels.of("bytes") is None:
        return values
    return (to_unit(values, levels) * np.float32(255)).round().astype(np.uint8)


def bytes_of(images: npt.NDArray[Any], levels: Levels) -> Pixels:
    """Return images (..., 1|3|4) of any kind as bytes (..., 1|3), black to white; what is transparent is white."""
    if images.shape[-1] != 4:
        return to_bytes(images, levels)
    colours, alpha = to_bytes(images[..., :3], levels), images[..., 3:]
    full = 1 if alpha.dtype.kind in "fb" else np.iinfo(alpha.dtype).max
    share = (alpha.astype(np.float32) / np.float32(full)).clip(0, 1)
    return (colours * share + 255 * (1 - share)).round().astype(np.uint8)


def array_levels(images: npt.NDArray[Any]) -> Levels:
    """Return the levels of an array of images (n, H, W) or (n, H, W, C); an alpha channel does not count."""
    colours = images[..., :3] if images.ndim == 4 and images.shape[3] == 4 else images
    return levels_of(range_of(colours))


def _within(inner: Range, outer: Range) -> bool:
    return outer.low <= inner.low and inner.high <= outer.high


def _white(high: float) -> float:
    return next((float(2**bits - 1) for bits in _BITS if high <= 2**bits - 1), max(high, 1.0))


def _black(low: float) -> float:
    return 0.0 if low >= 0 else -(2.0 ** math.ceil(math.log2(max(-low, 1.0))))
