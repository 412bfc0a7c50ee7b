"""WebDataset: .tar shards, in which the files of one name before its first dot are one sample."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cvcoteach._files import check_regular, in_bytes
from cvcoteach._json import parsed_text
from cvcoteach._validation import InputError, verb
from cvcoteach.data.parts import part_of
from cvcoteach.data.sources.joined import in_order
from cvcoteach.data.sources.labels import describe, encode, group_codes
from cvcoteach.data.sources.source import (
    IMAGE_SUFFIXES,
    Choices,
    Format,
    Source,
    chosen_split,
    count,
    printable_name,
    some,
    unlabelled,
)
from cvcoteach.data.sources.tar_files import DAMAGED, TarFiles, is_plain
from cvcoteach.data.sources.unpacked import stamp_of, unpack
from cvcoteach.data.splits import split_in_name

_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_LABEL_KEYS = ("label", "cls", "class", "class_name", "target", "category")
_LARGEST_TEXT = 2**20
"""Bytes of a label or a JSON."""
_LARGEST_IMAGE = 2**30
"""Bytes of an image; a packed shard of a few megabytes may claim to hold more."""


class Sample(NamedTuple):
    """What a shard says about one image."""

    name: str
    """`shard.tar/folder/000012.jpg`"""
    texts: dict[str, bytes]
    """What lies beside it, by what follows the first dot of its name: `cls` -> b"3"."""
    part: str
    """Where it lies in the shard; see `part_of`."""
    shard: str
    """Name of the shard."""
    key: str
    """Its name in the shard up to the first dot, folders and all."""


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
    shards, notes = _of_split(location, choices)
    samples, files = _found_in(location, shards, choices)
    key, values = labels_of(samples, choices.label_column, location)
    encoded = encode(pd.Series(values), f"labels {key!r} of {location.name}")
    codes, names = None, None
    if choices.group_column is not None:
        named = pd.Series([_value(sample, choices.group_column) for sample in samples], dtype=object)
        if named.isna().all():
            there = sorted({extension for sample in samples[:100] for extension in sample.texts})
            raise InputError(
                f"no sample of {location.name} has {choices.group_column!r} (--group-column) as an extension or field "
                f"of its .json; beside the image there is {', '.join(there) or 'nothing'}."
            )
        codes, names = group_codes(named, f"groups {choices.group_column!r} of {location.name}")
    where = count(len(shards), "shard") if choices.split is None else "shards"  # of one split, or of all joined
    return Source(
        location,
        location.parent,
        tuple([sample.name for sample in samples]),
        encoded.labels,
        encoded.class_names,
        notes=(*notes, *encoded.notes),
        description=describe(
            len(samples), len(encoded.class_names), f"labels {key} in {where} of {printable_name(location)}"
        ),
        file_names=tuple(files),
        groups=codes,
        group_names=names,
    )


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of shards."""
    shards, notes = _of_split(location, choices)
    samples, files = _found_in(location, shards, choices)
    source = unlabelled(location, location.parent, [sample.name for sample in samples])
    return replace(source, file_names=tuple(files), notes=notes)


def has_labels(location: Path, choices: Choices) -> bool:
    """Return whether the first samples have a label."""
    try:
        labels_of(_walked(_found(location)[:1]), choices.label_column, location)
    except InputError:
        return False
    return True


def splits_of(location: Path, choices: Choices) -> list[str]:
    """Return the splits that the names of shards tell, such as `train-000.tar` and `val-000.tar`; none for one."""
    return in_order([name for name in _by_split(location) if name])


FORMAT = Format(
    recognises,
    read,
    read_unlabelled,
    has_labels,
    frozenset(["label_column", "group_column", "split"]),
    "webdataset",
    splits_of,
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
    for shard in shards:
        check_regular(shard)
    return shards


def _by_split(location: Path) -> dict[str, list[Path]]:
    """Return the shards of each split, those whose name says nothing under an empty one."""
    result: dict[str, list[Path]] = {}
    for shard in _found(location) if location.is_dir() else []:
        result.setdefault(split_in_name(shard.name), []).append(shard)
    return result


def _of_split(location: Path, choices: Choices) -> tuple[list[Path], tuple[str, ...]]:
    """Return the shards of the split to read, or all where there are no splits, and notes."""
    parts = _by_split(location)
    named = in_order([name for name in parts if name])
    if not named:
        if choices.split is not None:
            raise InputError(f"--split is {choices.split!r}, but no shard of {location.name} is called that.")
        return _found(location), ()
    name, notes = chosen_split(named, choices, location.name)
    if "" in parts:
        left = some(shard.name for shard in parts[""])
        notes = (*notes, f"{left} in {location.name} say nothing of a split and were left out.")
    return parts[name], notes


def key_and_extension(name: str) -> tuple[str, str]:
    """Return a name in a shard up to the first dot of its last part, and what follows that, in lower case."""
    dot = name.find(".", name.rfind("/") + 1)
    return (name, "") if dot < 0 else (name[:dot], name[dot + 1 :].lower())


def _is_image(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in IMAGE_SUFFIXES


def _walk(shards: list[Path], samples: list[Sample], *, images: bool) -> Iterator[bytes]:
    """Fill `samples` with all that have an image, in order; yield the images, if these are wanted."""
    for shard in shards:
        try:
            with TarFiles(shard) as files:
                yield from _walk_shard(shard, files, samples, images=images)
        except DAMAGED as error:
            raise InputError(f"{shard} cannot be read as tar ({error}).") from None
    if not samples:
        raise InputError(f"{shards[0].name} holds no images; it takes samples such as 000012.jpg and 000012.cls.")


def _walk_shard(shard: Path, files: TarFiles, samples: list[Sample], *, images: bool) -> Iterator[bytes]:
    """Add the samples of a shard; yield its images, if these are wanted."""
    name, path, shard_name = printable_name(shard), str(shard), shard.name
    texts: dict[str, dict[str, bytes]] = {}
    seen = set()
    for member in files:
        if member.name.startswith((".", "__"), member.name.rfind("/") + 1):
            continue  # of the system, or about the shard
        key, extension = key_and_extension(member.name)
        if _is_image(extension):
            if key in seen:
                raise InputError(
                    f"{shard_name} holds several images of the sample {key!r}; it takes one image per sample."
                )
            seen.add(key)
            if member.size > _LARGEST_IMAGE:
                raise InputError(f"{member.name} in {shard_name} takes {in_bytes(member.size)}, too much for an image.")
            # its texts may come after the image: they land in the same dict
            part = part_of(path, member.offset, member.size)
            samples.append(Sample(f"{name}/{member.name}", texts.setdefault(key, {}), part, shard_name, key))
            if images:
                yield files.content(member)
        elif member.size <= _LARGEST_TEXT:
            texts.setdefault(key, {})[extension] = files.content(member)


def samples_of(location: Path, choices: Choices) -> tuple[list[Path], list[Sample]]:
    """Return all shards of a path, and the samples that `read_source` reads, in its order. Errors as of `read`."""
    names: list[str | None] = [choices.split]
    if choices.split is None and (found := splits_of(location, choices)):
        names = list(found)
    read = [shard for name in names for shard in _of_split(location, replace(choices, split=name))[0]]
    return _found(location), _walked(read)


def _walked(shards: list[Path]) -> list[Sample]:
    samples: list[Sample] = []
    for _ in _walk(shards, samples, images=False):
        pass
    return samples


def _found_in(location: Path, shards: list[Path], choices: Choices) -> tuple[list[Sample], list[str]]:
    """Return all samples, and where the image of each is: in its shard, or in the cache where shards are packed."""
    if all(map(is_plain, shards)):
        samples = _walked(shards)
        return samples, [sample.part for sample in samples]
    samples = []
    files = unpack(
        location, stamp_of(shards), lambda: _walk(shards, samples, images=True), choices, choices.split or ""
    )
    return samples or _walked(shards), list(files)


def labels_of(samples: list[Sample], wanted: str | None, location: Path) -> tuple[str, list[Any]]:
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
            f"{len(missing):,} of {len(values):,} samples of {location.name} "
            f"{verb(len(missing), 'has', 'have')} no label {wanted!r}, the first "
            f"is {samples[missing[0]].name}; leave them out, or --label-column names another extension or field."
        )
    return wanted, values


def _value(sample: Sample, key: str) -> Any:
    """Return what lies beside an image under an extension, or in a field of its .json; None for nothing."""
    text = sample.texts.get(key.lower())
    if text is not None and key.lower() != "json":
        return text.decode("utf-8", "replace").strip() or None
    if "json" not in sample.texts:
        return None
    try:
        found = parsed_text(sample.texts["json"])
    except ValueError as error:
        raise InputError(f"the .json of {sample.name} cannot be read ({error}).") from None
    value = found.get(key) if isinstance(found, dict) else None
    if isinstance(value, list | dict):
        raise InputError(f"{key!r} in the .json of {sample.name} is {str(value)[:40]}; it takes one label per image.")
    return value
