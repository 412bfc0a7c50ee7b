"""Hugging Face's `datasets`: saved to disk, or a `Dataset` in memory. The library itself is not needed to read one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from cvcoteach._files import check_regular
from cvcoteach._validation import InputError
from cvcoteach.data.sources.arrow import arrow_table
from cvcoteach.data.sources.source import Choices, Format, Source, chosen_split
from cvcoteach.data.sources.table import Table, read_table, read_table_unlabelled, table_has_labels
from cvcoteach.data.sources.unpacked import stamp_of

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_ROWS = 1024
"""Rows read at a time: they may hold images."""


def recognises(location: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return (location / _SPLITS).is_file() or ((location / _STATE).is_file() and (location / _INFO).is_file())


def open_saved(location: Path, choices: Choices) -> tuple[Table, tuple[str, ...]]:
    """Return a dataset that was saved to disk, or one split of it, and notes. Raises InputError for a broken one."""
    notes: tuple[str, ...] = ()
    folder = location
    if (location / _SPLITS).is_file():
        splits = _json(location / _SPLITS).get("splits")
        if not isinstance(splits, list) or not splits:
            raise InputError(f"{location / _SPLITS} names no splits; save the dataset again.")
        names = [str(name) for name in splits]
        name, notes = chosen_split(names, choices, location.name)
        folder = location / Path(name).name
    elif choices.split is not None:
        raise InputError(f"--split is {choices.split!r}, but {location} holds one dataset without splits.")
    state = _json(folder / _STATE)
    if state.get("_indices_files"):
        raise InputError(f"{folder} was saved by an old version of datasets; load it and save it to disk again.")
    try:
        files = [folder / Path(each["filename"]).name for each in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / _STATE} does not name the files of the dataset; save it again.") from error
    if not files:
        raise InputError(f"{folder} holds a dataset without rows; it takes one row per image.")

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for file in files:
            with _opened(file) as reader:
                for batch in reader:
                    narrow = batch.select(list(columns))
                    for start in range(0, len(narrow), _ROWS):
                        yield narrow.slice(start, _ROWS)

    try:
        stamp = stamp_of(files)
    except OSError as error:
        raise InputError(f"{folder} lacks the file {error.filename}; save the dataset again.") from None
    except ValueError as error:  # a name with a null byte
        raise InputError(
            f"{folder / _STATE} does not name the files of the dataset ({error}); save it again."
        ) from None
    with _opened(files[0]) as reader:
        schema = reader.schema
    features = _json(folder / _INFO).get("features") if (folder / _INFO).is_file() else None
    part = "" if folder == location else folder.name
    return replace(arrow_table(location, schema, batches, stamp, features), part=part), notes


def table_of_dataset(dataset: Any) -> Table:
    """Return a `datasets.Dataset` as a table; its images are read as they are needed.

    Raises InputError for a dict of splits and for a dataset without rows to ask for by number.
    """
    if hasattr(dataset, "keys"):
        names = ", ".join(map(str, dataset))
        raise InputError(f"the source holds the splits {names}; take one: source[{next(iter(dataset), 'train')!r}].")
    if not hasattr(dataset, "with_format") or not hasattr(dataset, "__len__"):
        raise InputError("the source is an iterable dataset; load it without streaming=True, or save it to disk.")
    plain = dataset.with_format("arrow")

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for piece in plain.select_columns(list(columns)).iter(_ROWS):
            yield from piece.select(list(columns)).combine_chunks().to_batches()

    name = str(getattr(dataset.info, "dataset_name", None) or "dataset")
    return arrow_table(
        Path.cwd() / name,
        plain.features.arrow_schema,
        batches,
        str(dataset._fingerprint),
        dataset.features.to_dict(),
    )


def read_dataset(dataset: Any, choices: Choices) -> Source:
    """Return the images and labels of a `datasets.Dataset`. Errors as of `read_table`."""
    return read_table(table_of_dataset(dataset), choices)


def is_dataset(value: Any) -> bool:
    """Return whether a value comes from `datasets`, which is not imported for it."""
    return type(value).__module__.split(".")[0] == "datasets"


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of a dataset saved to disk."""
    table, notes = open_saved(location, choices)
    return read_table(table, choices).noted(*notes)


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of a dataset saved to disk."""
    table, notes = open_saved(location, choices)
    return read_table_unlabelled(table, choices).noted(*notes)


FORMAT = Format(
    recognises,
    read,
    read_unlabelled,
    lambda path, choices: table_has_labels(open_saved(path, choices)[0], choices),
    frozenset(["path_column", "label_column", "path_pattern", "group_column", "split"]),
    "huggingface",
)


def _json(file: Path) -> dict[str, Any]:
    check_regular(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read ({error}); save the dataset again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} is not what datasets writes; save the dataset again.")
    return content


@contextmanager
def _opened(file: Path) -> Iterator[pa.RecordBatchStreamReader]:
    """Open the Arrow stream of a file. Raises InputError for what is none."""
    try:
        with pa.memory_map(str(file)) as content, pa.ipc.open_stream(content) as reader:
            yield reader
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file} cannot be read as Arrow: {' '.join(str(error).split())}") from None
