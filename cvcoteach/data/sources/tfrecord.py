"""TFRecord files of `tf.train.Example`, as TensorFlow and its datasets write them; TensorFlow is not needed."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cvcoteach._files import check_regular, read_text
from cvcoteach._validation import InputError, near, verb
from cvcoteach.data.heif import is_heif
from cvcoteach.data.parts import part_of
from cvcoteach.data.sources.example_proto import Feature, Span, features_of
from cvcoteach.data.sources.labels import describe, encode, group_codes
from cvcoteach.data.sources.source import (
    IMAGE_SUFFIXES,
    Choices,
    Format,
    Source,
    UnlabelledError,
    chosen_split,
    count,
    printable_name,
    some,
    unlabelled,
)

_NAME = re.compile(r"(?P<stem>.*?)\.tfrec(?:ord)?s?(?:-\d+-of-\d+)?", re.IGNORECASE)
_SPLIT = re.compile(r"(?:^|[-_.])(train|training|test|testing|val|valid|validation|dev)$", re.IGNORECASE)
_IMAGE_KEYS = ("image/encoded", "image", "image_raw", "jpeg", "png")
_LABEL_KEYS = ("image/class/text", "image/class/label", "label", "class", "target", "category")
_ENCODED = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
_LARGEST_RECORD = 2**30
"""Bytes."""


class _Record(NamedTuple):
    """What a record says about one image."""

    name: str
    """`train.tfrecord#12`"""
    part: str
    """Where its image lies; see `part_of`."""
    values: dict[str, Any]
    """The first value of each feature that is no image: text or a number."""


def recognises(location: Path) -> bool:
    """Return whether a path is a TFRecord file, or a folder that holds some and no images."""
    return bool(_files(location))


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of TFRecord files; --path-column and --label-column name other features.

    Raises:
        InputError: for files that are damaged, and where a record has no label or no encoded image.
    """
    files, notes = _chosen(location, choices)
    records, key = _records(files, choices.path_column)
    label, values = _labels(records, choices.label_column, location)
    if all(value == -1 for value in values):
        raise UnlabelledError(f"none of {len(values):,} labels {label!r} of {location.name} is known: all are -1.")
    names = _class_names(files[0].parent, label)
    if names and all(isinstance(value, int) for value in values):
        if not all(0 <= value < len(names) for value in values):
            raise InputError(
                f"the labels {label!r} of {location.name} are from {min(values)} to {max(values)}, but "
                f"{label}.labels.txt names {len(names)} classes."
            )
        values = [names[value] for value in values]
    where = f"labels {label!r} of {location.name}"
    encoded = encode(pd.Series(values), where)
    groups = None
    if choices.group_column is not None:
        group = pd.Series([record.values.get(choices.group_column) for record in records], dtype=object)
        if group.isna().all():
            raise InputError(
                f"no record of {location.name} has the feature {choices.group_column!r} (--group-column); "
                f"{near(choices.group_column, records[0].values)}"
            )
        groups = group_codes(group, f"groups {choices.group_column!r} of {location.name}")
    # of one split, or of all joined
    held = count(len(files), "TFRecord file") if choices.split is None else "TFRecord files"
    said = f"features {key} and {label} in {held} of {printable_name(location)}"
    return Source(
        location,
        location.parent,
        tuple([record.name for record in records]),
        encoded.labels,
        encoded.class_names,
        notes=(*notes, *encoded.notes),
        description=describe(len(records), len(encoded.class_names), said),
        file_names=tuple([record.part for record in records]),
        groups=None if groups is None else groups.codes,
        group_names=None if groups is None else groups.names,
    )


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of TFRecord files."""
    files, notes = _chosen(location, choices)
    records, _ = _records(files, choices.path_column)
    source = unlabelled(location, location.parent, [record.name for record in records])
    return replace(source, file_names=tuple([record.part for record in records])).noted(*notes)


def has_labels(location: Path, choices: Choices) -> bool:
    """Return whether the first record has a label."""
    features = features_in(next(iter(framed(_chosen(location, choices)[0][0])))[1])
    wanted = _LABEL_KEYS if choices.label_column is None else (choices.label_column,)
    return any(key in features and features[key].values for key in wanted)


FORMAT = Format(
    recognises,
    read,
    read_unlabelled,
    has_labels,
    frozenset(["path_column", "label_column", "group_column", "split"]),
    "tfrecord",
    lambda location, choices: splits_of(location, choices),
)


# -- files --


def _files(location: Path) -> list[Path]:
    if not location.is_dir():
        return [location] if _NAME.fullmatch(location.name) else []
    with os.scandir(location) as scanned:
        entries = [entry for entry in scanned if not entry.name.startswith(".")]
    if any(entry.is_dir() or os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in entries):
        return []
    return [location / name for name in sorted(entry.name for entry in entries) if _NAME.fullmatch(name)]


def _chosen(location: Path, choices: Choices) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files of the split to read, and a note where there are others."""
    files = _files(location) or ([location] if location.is_file() else [])
    if not files:
        raise InputError(f"{location} holds no TFRecord files.")
    for file in files:
        check_regular(file)
    parts = _by_split(files)
    named = [name for name in parts if name]
    if choices.split is None and (len(parts) == 1 or not named):
        return files, ()
    part, notes = chosen_split(named or ["all"], choices, location.name)
    if named and "" in parts:
        left = some(file.name for file in parts[""])
        notes = (*notes, f"{left} in {location.name} say nothing of a split and were left out.")
    return parts.get(part, files), notes


def _by_split(files: list[Path]) -> dict[str, list[Path]]:
    """Return the files of each split that their names tell, those that say nothing under an empty one."""
    parts: dict[str, list[Path]] = {}
    for file in files:
        found = _SPLIT.search(_stem(file))
        parts.setdefault(found[1].lower() if found else "", []).append(file)
    return parts


def splits_of(location: Path, choices: Choices) -> list[str]:
    """Return the splits that the names of files in a folder tell."""
    return [name for name in _by_split(_files(location)) if name] if location.is_dir() else []


def _stem(file: Path) -> str:
    found = _NAME.fullmatch(file.name)
    return found["stem"] if found else file.stem


def _class_names(folder: Path, label: str) -> list[str]:
    """Return the names of the classes where TensorFlow's datasets have written them beside the records."""
    try:
        text = read_text(folder / f"{Path(label).name}.labels.txt")
    except (OSError, ValueError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


# -- records --


def framed(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield where each record of a file begins, and the record. Raises InputError where a checksum is wrong."""
    crc32c = _crc32c()
    number = 0
    try:
        with open(file, "rb") as opened:
            if opened.read(2) == b"\x1f\x8b":
                raise InputError(f"{file.name} is gzipped; unpack it with gunzip.")
            opened.seek(0)
            while head := opened.read(12):
                number += 1
                offset = opened.tell()
                (length,) = struct.unpack("<Q", head[:8]) if len(head) == 12 else (0,)
                if len(head) < 12 or _masked(crc32c(head[:8])) != struct.unpack("<I", head[8:])[0]:
                    raise InputError(_damaged(file, number))
                if length > _LARGEST_RECORD:
                    raise InputError(f"record {number} of {file.name} has {length / 1e9:.1f} GB; it takes up to 1.")
                record, foot = opened.read(length), opened.read(4)
                if len(foot) < 4 or _masked(crc32c(record)) != struct.unpack("<I", foot)[0]:
                    raise InputError(_damaged(file, number))
                yield offset, record
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}).") from None
    if not number:
        raise InputError(f"{file.name} is empty; it takes a record per image.")


def features_in(record: bytes) -> dict[str, Feature]:
    """Return the features of a record. Raises InputError for one that is no `tf.train.Example`."""
    try:
        return features_of(record)
    except ValueError as error:
        raise InputError(f"a TFRecord holds something else than tf.train.Example ({error}).") from None


def _damaged(file: Path, number: int) -> str:
    what = "is no TFRecord file" if number == 1 else f"is damaged: record {number} is not as it was written"
    return f"{file.name} {what} (its checksum is wrong)."


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc32c() -> Callable[[bytes], int]:
    try:
        from crc32c import crc32c
    except ImportError:
        raise InputError("reading TFRecord takes the package crc32c: pip install 'cvcoteach[tfrecord]'.") from None
    result: Callable[[bytes], int] = crc32c
    return result


def _records(files: list[Path], wanted: str | None) -> tuple[list[_Record], str]:
    """Return all records, and the feature that holds the images."""
    result: list[_Record] = []
    key = wanted
    for file in files:
        name = printable_name(file)
        for row, (offset, record) in enumerate(framed(file)):
            features = features_in(record)
            if key is None:
                key = _image_key(record, features, file)
            image = features.get(key)
            if image is None or image.kind != "bytes" or len(image.values) != 1:
                raise InputError(_no_image(f"record {row + 1} of {file.name}", key, features))
            [place] = image.values
            assert isinstance(place, Span)
            part = part_of(str(file), offset + place.start, place.end - place.start)
            values = {
                other: value
                for other, feature in features.items()
                if other != key and (value := _value(record, feature)) is not None
            }
            result.append(_Record(f"{name}#{row}", part, values))
    assert key is not None  # no file is empty
    return result, key


def _image_key(record: bytes, features: dict[str, Feature], file: Path) -> str:
    """Return the feature that holds an encoded image: of a usual name, or the only one."""
    found = [
        key
        for key, feature in features.items()
        if len(feature.values) == 1 and isinstance(feature.values[0], Span) and _is_encoded(record, feature.values[0])
    ]
    usual = [key for key in _IMAGE_KEYS if key in found]
    if usual:
        return usual[0]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{file.name} holds images in {', '.join(sorted(found))}; --path-column says which are meant.")
    raise InputError(
        f"the records of {file.name} hold no encoded image, but {', '.join(sorted(features)) or 'nothing'}; raw pixels "
        "without a PNG or JPEG around them are not read."
    )


def _is_encoded(record: bytes, place: Span) -> bool:
    head = record[place.start : min(place.end, place.start + 64)]
    return head.startswith(_ENCODED) or is_heif(head) or head[4:12] == b"ftypavif"


def _no_image(where: str, key: str, features: dict[str, Feature]) -> str:
    if key not in features:
        return f"{where} has no feature {key!r}; {near(key, list(features))}"
    return f"{where} holds {len(features[key].values)} {features[key].kind} in {key!r}; it takes one encoded image."


def _value(record: bytes, feature: Feature) -> str | int | float | None:
    """Return the one value of a feature; None for none, several, and for bytes that are no short text."""
    if len(feature.values) != 1:
        return None
    [value] = feature.values
    if not isinstance(value, Span):
        return value
    if value.end - value.start > 1000:
        return None
    try:
        return record[value.start : value.end].decode()
    except UnicodeDecodeError:
        return None


def _labels(records: list[_Record], wanted: str | None, location: Path) -> tuple[str, list[Any]]:
    """Return the feature of the labels, and the label of each record. Raises InputError where one has none."""
    first = records[0].values
    key = wanted or next((each for each in _LABEL_KEYS if first.get(each) not in (None, "")), None)
    if key is None:
        raise InputError(
            f"the records of {location.name} hold no label, but {', '.join(sorted(first)) or 'nothing'} beside the "
            "image; --label-column names the feature."
        )
    values = [record.values.get(key) for record in records]
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(values):,} records of {location.name} "
            f"{verb(len(missing), 'has', 'have')} no single label {key!r}, "
            f"the first is {records[missing[0]].name}; leave them out, or --label-column names another feature."
        )
    return key, values
