"""WebDataset: .tar shards, in which the files of one name before its first dot are one sample."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cvcoteach._files import in_bytes
from cvcoteach._validation import InputError
from cvcoteach.data.sources.labels import describe, encode, group_codes
from cvcoteach.data.sources.source import IMAGE_SUFFIXES, Choices, Format, Source, count, printable_name, unlabelled
from cvcoteach.data.sources.unpacked import stamp_of, unpack

_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_LABEL_KEYS = ("label", "cls", "class", "class_name", "target", "category")
_LARGEST_TEXT = 2**20
"""Bytes of a label or a JSON."""
_LARGEST_IMAGE = 2**30
"""Bytes of an image; a packed shard of a few megabytes may claim to hold more."""


class _Sample(NamedTuple):
    """What a shard says about one image."""

    name: str
    """`shard.tar/folder/000012.jpg`"""
    texts: dict[str, bytes]
    """What lies beside it, by what follows the first dot of its name: `cls` -> b"3"."""


def recognises(location: Path) -> bool:
    """Return whether a path is a tar, or a folder of nothing but tars and what describes them."""
    if not location.is_dir():
        return location.name.lower().endswith(_SUFFIXES)
    return bool(_shards(location))


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of shards: labels in `.cls`, or in a field of `.json`; --label-column names another.

    Raises:
        InputError: for files that are no tar, and where a sample has no label, or several images.
    """
    shards = _found(location)
    samples, files = _unpacked(location, shards, choices)
    key, values = _labels(samples, choices.label_column, location)
    encoded = encode(pd.Series(values), f"labels {key!r} of {location.name}")
    groups = None
    if choices.group_column is not None:
        named = pd.Series([_value(sample, choices.group_column) for sample in samples])
        groups = group_codes(named, f"groups {choices.group_column!r} of {location.name}")
    return Source(
        location,
        location.parent,
        tuple([sample.name for sample in samples]),
        encoded.labels,
        encoded.class_names,
        notes=encoded.notes,
        description=describe(
            len(samples),
            len(encoded.class_names),
            f"labels {key} in {count(len(shards), 'shard')} of {printable_name(location)}",
        ),
        file_names=tuple(files),
        groups=groups,
    )


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of shards."""
    samples, files = _unpacked(location, _found(location), choices)
    source = unlabelled(location, location.parent, [sample.name for sample in samples])
    return replace(source, file_names=tuple(files))


def has_labels(location: Path, choices: Choices) -> bool:
    """Return whether the first samples have a label."""
    try:
        _labels(_walked(_found(location)[:1]), choices.label_column, location)
    except InputError:
        return False
    return True


FORMAT = Format(
    recognises, read, read_unlabelled, has_labels, frozenset(["label_column", "group_column"]), "webdataset"
)


def _shards(folder: Path) -> list[Path]:
    """Return the tars of a folder that holds no folders and no images, in order of their names."""
    with os.scandir(folder) as scanned:
        entries = [entry for entry in scanned if not entry.name.startswith(".")]
    if any(entry.is_dir() or os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in entries):
        return []
    return [folder / name for name in sorted(e.name for e in entries) if name.lower().endswith(_SUFFIXES)]


def _found(location: Path) -> list[Path]:
    shards = _shards(location) if location.is_dir() else [location]
    if not shards:
        raise InputError(f"{location} holds no .tar shards.")
    return shards


def _members(shard: Path) -> Iterator[tuple[str, str, tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the key, the extension, the archive and the entry of each file of a shard, in order."""
    try:
        with tarfile.open(shard, "r:*") as archive:
            for entry in archive:
                folder, name = os.path.split(entry.name)
                if entry.isfile() and not name.startswith((".", "__")):
                    stem, _, extension = name.partition(".")
                    yield os.path.join(folder, stem), extension.lower(), archive, entry
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{shard} cannot be read as tar ({error}).") from None


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in IMAGE_SUFFIXES


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(entry)
    assert opened is not None  # it is a file
    return opened.read()


def _walk(shards: list[Path], samples: list[_Sample], *, images: bool) -> Iterator[bytes]:
    """Fill `samples` with all that have an image, in order; yield the images, if these are wanted."""
    for shard in shards:
        name = printable_name(shard)
        texts: dict[str, dict[str, bytes]] = {}
        seen = set()
        for key, extension, archive, entry in _members(shard):
            if _is_image(extension):
                if key in seen:
                    raise InputError(
                        f"{shard.name} holds several images of the sample {key!r}; it takes one image per sample."
                    )
                seen.add(key)
                if entry.size > _LARGEST_IMAGE:
                    raise InputError(
                        f"{entry.name} in {shard.name} takes {in_bytes(entry.size)}, too much for an image."
                    )
                # its texts may come after the image: they land in the same dict
                samples.append(_Sample(f"{name}/{entry.name}", texts.setdefault(key, {})))
                if images:
                    yield _content(archive, entry)
            elif entry.size <= _LARGEST_TEXT:
                texts.setdefault(key, {})[extension] = _content(archive, entry)
    if not samples:
        raise InputError(f"{shards[0].name} holds no images; it takes samples such as 000012.jpg and 000012.cls.")


def _walked(shards: list[Path]) -> list[_Sample]:
    samples: list[_Sample] = []
    for _ in _walk(shards, samples, images=False):
        pass
    return samples


def _unpacked(location: Path, shards: list[Path], choices: Choices) -> tuple[list[_Sample], list[str]]:
    """Return all samples and the file of each; shards whose images are in the cache are read for their texts only."""
    samples: list[_Sample] = []
    files = unpack(location, stamp_of(shards), lambda: _walk(shards, samples, images=True), choices)
    return samples or _walked(shards), list(files)


def _labels(samples: list[_Sample], wanted: str | None, location: Path) -> tuple[str, list[Any]]:
    """Return where the labels are, and the label of each sample. Raises InputError where one has none."""
    if wanted is None:
        first = samples[0]
        wanted = next((key for key in ("cls", *_LABEL_KEYS) if _value(first, key) is not None), None)
    if wanted is None:
        there = sorted({extension for sample in samples[:100] for extension in sample.texts})
        raise InputError(
            f"the samples of {location.name} hold no label: beside the image there is {', '.join(there) or 'nothing'}; "
            "it takes .cls, or a .json with a label (--label-column names another extension or field)."
        )
    values = [_value(sample, wanted) for sample in samples]
    missing = [row for row, value in enumerate(values) if value is None]
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(values):,} samples of {location.name} have no label {wanted!r}, the first is "
            f"{samples[missing[0]].name}; leave them out, or --label-column names another extension or field."
        )
    return wanted, values


def _value(sample: _Sample, key: str) -> Any:
    """Return what lies beside an image under an extension, or in a field of its .json; None for nothing."""
    text = sample.texts.get(key.lower())
    if text is not None and key.lower() != "json":
        return text.decode("utf-8", "replace").strip() or None
    if "json" not in sample.texts:
        return None
    try:
        found = json.loads(sample.texts["json"])
    except (ValueError, RecursionError) as error:
        raise InputError(f"the .json of {sample.name} cannot be read ({error}).") from None
    value = found.get(key) if isinstance(found, dict) else None
    if isinstance(value, list | dict):
        raise InputError(f"{key!r} in the .json of {sample.name} is {str(value)[:40]}; it takes one label per image.")
    return value
