"""`tf.train.Example`, the protocol buffer in TFRecord files: features by name, each a list of bytes or numbers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_FEATURE = {1: "bytes", 2: "floats", 3: "integers"}
"""Kind of a feature by the number of its field."""


class Span(NamedTuple):
    """Bytes from `start` to `end` of a record."""

    start: int
    end: int


class Feature(NamedTuple):
    """The values of a feature."""

    kind: str
    """"bytes", "floats", "integers"."""
    values: list[int] | list[float] | list[Span]
    """For bytes, where they are in the record."""


def features_of(record: bytes) -> dict[str, Feature]:
    """Return the features of a serialized `tf.train.Example`. Raises ValueError for anything else."""
    result: dict[str, Feature] = {}
    try:
        for field, features in _messages(record, Span(0, len(record))):
            if field != 1:
                continue
            for number, entry in _messages(record, features):
                if number != 1:
                    continue
                parts = dict(_messages(record, entry))
                if 1 in parts:
                    name = record[parts[1].start : parts[1].end].decode()
                    result[name] = _feature(record, parts[2]) if 2 in parts else Feature("bytes", [])
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"no tf.train.Example: {error}") from None
    return result


def _feature(data: bytes, span: Span) -> Feature:
    for field, values in _messages(data, span):
        kind = _FEATURE.get(field)
        if kind == "bytes":
            return Feature(kind, [place for number, place in _messages(data, values) if number == 1])
        if kind == "floats":
            return Feature(kind, _floats(data, values))
        if kind == "integers":
            return Feature(kind, _integers(data, values))
    return Feature("bytes", [])


def _fields(data: bytes, span: Span) -> Iterator[tuple[int, int, Span, int]]:
    """Yield number, wire type, place and, of a varint, the value of each field. Raises ValueError for damaged ones."""
    at = span.start
    while at < span.end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value = 0
        if wire == _VARINT:
            start = at
            value, at = _varint(data, at)
        elif wire == _BYTES:
            length, start = _varint(data, at)
            at = start + length
        elif wire in _WIDTHS:
            start, at = at, at + _WIDTHS[wire]
        else:
            raise ValueError(f"no tf.train.Example: wire type {wire}")
        if at > span.end:
            raise ValueError("no tf.train.Example: a field is longer than what holds it")
        yield number, wire, Span(start, at), value


def _messages(data: bytes, span: Span) -> Iterator[tuple[int, Span]]:
    for number, wire, place, _ in _fields(data, span):
        if wire == _BYTES:
            yield number, place


def _floats(data: bytes, span: Span) -> list[float]:
    """Return the values of a FloatList, packed or one by one."""
    result: list[float] = []
    for number, wire, place, _ in _fields(data, span):
        if number == 1 and wire in (_BYTES, _FIXED32):
            result.extend(value for (value,) in struct.iter_unpack("<f", data[place.start : place.end]))
    return result


def _integers(data: bytes, span: Span) -> list[int]:
    """Return the values of an Int64List, packed or one by one."""
    result: list[int] = []
    for number, wire, place, value in _fields(data, span):
        if number == 1 and wire == _VARINT:
            result.append(_signed(value))
        elif number == 1 and wire == _BYTES:
            at = place.start
            while at < place.end:
                value, at = _varint(data, at)
                result.append(_signed(value))
    return result


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a varint and where the next field begins. Raises IndexError at the end, ValueError beyond 64 bits."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("no tf.train.Example: a number of more than 64 bits")
