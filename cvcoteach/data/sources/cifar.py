"""CIFAR-10 and CIFAR-100 as published: the batches for Python and the binary ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import InputError, near
from cvcoteach.data.sources import plain_pickle
from cvcoteach.data.sources.array_source import Arrays, source_of_arrays, unlabelled_arrays
from cvcoteach.data.sources.source import Choices, Format, chosen_split

_PIXELS = 3 * 32 * 32
_TEN = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_HUNDRED = {"train": ["train"], "test": ["test"]}


def recognises(location: Path) -> bool:
    """Return whether a folder holds the files of CIFAR-10 or CIFAR-100."""
    return bool(_parts(location))


class Part(NamedTuple):
    """The batches of a part, and which of their labels are read."""

    files: list[Path]
    kinds: tuple[str, ...]
    """The labels that they have."""
    wanted: str
    """Those that are read."""
    class_names: Sequence[str]
    """Of these, where the folder holds them."""
    notes: tuple[str, ...]

    @property
    def label_byte(self) -> int:
        """Which byte of a binary record holds the label: the coarse one before the fine."""
        return sorted(self.kinds).index(self.wanted)


def part_of_folder(location: Path, choices: Choices) -> Part:
    """Return one part, train unless --split says test. Raises InputError where there is none."""
    parts = _parts(location)
    if not parts:
        raise InputError(f"{location} holds no batches of CIFAR; it takes data_batch_1 or train, also with .bin.")
    part, notes = chosen_split(list(parts), choices, location.name)
    files = parts[part]
    kinds = ("fine_labels", "coarse_labels") if files[0].stem in ("train", "test") else ("labels",)
    wanted = choices.label_column or kinds[0]
    if wanted not in kinds:
        raise InputError(f"{location.name} has no labels {wanted!r} (--label-column); {near(wanted, kinds)}")
    return Part(files, kinds, wanted, _class_names(location, wanted), notes)


def read_batch(file: Path, part: Part) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return images and labels of a batch. Raises InputError for a file that holds something else."""
    return (_read_binary if file.suffix == ".bin" else _read_python)(file, part)


def load(location: Path, choices: Choices) -> Arrays:
    """Return one part, train unless --split says test. Raises InputError for files that hold something else."""
    part = part_of_folder(location, choices)
    pieces = [read_batch(file, part) for file in part.files]
    images = np.concatenate([images for images, _ in pieces])
    labels = np.concatenate([labels for _, labels in pieces])
    first, last = part.files[0].name, part.files[-1].name
    said = first if first == last else f"{first} to {last}"
    return Arrays(images, labels, part.class_names, f"{part.wanted} and pixels in {said}", part.notes)


FORMAT = Format(
    recognises,
    lambda location, choices: source_of_arrays(location, load(location, choices)),
    lambda location, choices: unlabelled_arrays(location, load(location, choices)),
    lambda location, choices: True,
    frozenset(["split", "label_column"]),
    "cifar",
    lambda location, choices: list(_parts(location)),
)


def _parts(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each part that is there."""
    if not folder.is_dir():
        return {}
    for kind, about in ((_TEN, "batches.meta"), (_HUNDRED, "meta")):
        for suffix in ("", ".bin"):
            # train and test alone are names that anything may have
            if kind is _HUNDRED and not (folder / (about if not suffix else "fine_label_names.txt")).is_file():
                continue
            there = {
                part: [folder / f"{name}{suffix}" for name in names if (folder / f"{name}{suffix}").is_file()]
                for part, names in kind.items()
            }
            if any(there.values()):
                return {part: files for part, files in there.items() if files}
    return {}


def _class_names(folder: Path, wanted: str) -> Sequence[str]:
    """Return the names of the classes, where the folder holds them."""
    stem = wanted.removesuffix("s")
    for name in ("batches.meta", "meta"):
        if (folder / name).is_file():
            about = _unpickled(folder / name)
            names = about.get(f"{stem}_names")
            if isinstance(names, list):
                if not all(isinstance(each, str | bytes) for each in names):
                    raise InputError(f"{folder / name} holds a list {stem}_names of something other than text.")
                return [each if isinstance(each, str) else each.decode("utf-8", "replace") for each in names]
    for name in ("batches.meta.txt", f"{stem}_names.txt"):
        if (folder / name).is_file():
            try:
                text = (folder / name).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{folder / name} cannot be read ({error}); it takes a name per line, as UTF-8."
                ) from None
            return [line.strip() for line in text.splitlines() if line.strip()]
    return ()


def _pixels(data: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _read_binary(file: Path, part: Part) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return images and labels of a binary batch: the labels of an image, the coarse before the fine, then pixels."""
    data = np.fromfile(file, np.uint8)
    width = len(part.kinds) + _PIXELS
    if not len(data) or len(data) % width:
        raise InputError(f"{file.name} holds {len(data):,} bytes, which are no records of {width:,} bytes as CIFAR's.")
    records = data.reshape(-1, width)
    return _pixels(records[:, len(part.kinds) :]), records[:, part.label_byte].astype(np.int64)


def _read_python(file: Path, part: Part) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    batch = _unpickled(file)
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS:
        raise InputError(f"{file.name} holds no data of (n, {_PIXELS:,}) bytes, as a batch of CIFAR does.")
    labels = batch.get(part.wanted)
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise InputError(f"{file.name} holds no list {part.wanted!r} of whole numbers, as a batch of CIFAR does.")
    if len(labels) != len(data):
        raise InputError(f"{file.name} holds {len(data):,} images, but {len(labels):,} labels.")
    if any(abs(label) >= 2**63 for label in labels):
        raise InputError(f"{file.name} holds a label beyond 64 bits in {part.wanted!r}.")
    return _pixels(data), np.array(labels, np.int64)


def unpickled(file: Path) -> dict[Any, Any]:
    """Return what a batch holds, text of Python 2 as bytes. Raises InputError for what is none, or could run code."""
    return plain_pickle.unpickled(file, "a batch of CIFAR")


def _unpickled(file: Path) -> dict[Any, Any]:
    """Return what a batch holds, its keys as text. Errors as of `unpickled`."""
    content = unpickled(file)
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
