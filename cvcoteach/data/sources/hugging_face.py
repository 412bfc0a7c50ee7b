"""Hugging Face's `datasets`: saved to disk, or a `Dataset` in memory. The library itself is not needed to read one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from cvcoteach._files import check_regular, leads_out
from cvcoteach._json import parsed_text
from cvcoteach._validation import InputError
from cvcoteach.data.sources.arrow import arrow_table, checked
from cvcoteach.data.sources.columns import OF_TABLES, Table
from cvcoteach.data.sources.joined import in_order, read_splits
from cvcoteach.data.sources.source import Choices, Format, Source, chosen_split
from cvcoteach.data.sources.table import read_table, read_table_unlabelled, table_has_labels
from cvcoteach.data.sources.unpacked import stamp_of

_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_ROWS = 1024
"""Rows read at a time: they may hold images."""


def recognises(location: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return (location / _SPLITS).is_file() or ((location / _STATE).is_file() and (location / _INFO).is_file())


def splits_of(location: Path, choices: Choices) -> list[str]:
    """Return the splits of a saved `DatasetDict`, none of a `Dataset`. Raises InputError for a broken one."""
    if not (location / _SPLITS).is_file():
        return []
    splits = _json(location / _SPLITS).get("splits")
    if not isinstance(splits, list) or not splits:
        raise InputError(f"{location / _SPLITS} names no splits; save the dataset again.")
    names = [str(name) for name in splits]
    odd = next((name for name in names if leads_out(name) or Path(name).name != name), None)
    if odd is not None:
        raise InputError(
            f"{location / _SPLITS} names a split {odd!r}, which is no folder in it; save the dataset again."
        )
    return names


class Saved(NamedTuple):
    """A dataset, or one split of several, as it lies on the disk."""

    folder: Path
    files: list[Path]
    """Of its rows."""
    schema: pa.Schema
    table: Table


def opened_part(location: Path, choices: Choices) -> tuple[Saved, tuple[str, ...]]:
    """Return a dataset that was saved to disk, or one split of it, and notes. Raises InputError for a broken one."""
    notes: tuple[str, ...] = ()
    folder = location
    if names := splits_of(location, choices):
        name, notes = chosen_split(names, choices, location.name)
        folder = location / name
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
            for batch in batches_of(file):
                yield batch.select(list(columns))

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
        _ = schema.names  # raises for a name that is no UTF-8
    features = _json(folder / _INFO).get("features") if (folder / _INFO).is_file() else None
    part = "" if folder == location else folder.name
    table = replace(arrow_table(location, schema, batches, stamp, features), part=part)
    return Saved(folder, files, schema, table), notes


def open_saved(location: Path, choices: Choices) -> tuple[Table, tuple[str, ...]]:
    """Return a dataset that was saved to disk, or one split of it, as a table, and notes."""
    saved, notes = opened_part(location, choices)
    return saved.table, notes


def batches_of(file: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an Arrow file, a few at a time: they may hold images. Raises InputError for a broken one."""
    with _opened(file) as reader:
        for batch in checked(reader, file):
            for start in range(0, len(batch), _ROWS):
                yield batch.slice(start, _ROWS)


def table_of_dataset(dataset: Any) -> Table:
    """Return a `datasets.Dataset` as a table; its images are read as they are needed.

    Raises InputError for a dataset without rows to ask for by number.
    """
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
    """Return the images and labels of a `datasets.Dataset`, or of all splits of a `DatasetDict`."""
    if not hasattr(dataset, "keys"):
        return read_table(table_of_dataset(dataset), choices)
    names = [str(name) for name in dataset]
    if choices.split is not None or len(names) == 1:
        name, _ = chosen_split(names, choices, "the source")
        return read_table(table_of_dataset(dataset[name]), replace(choices, split=None))
    return read_splits(
        in_order(names), lambda name: read_table(replace(table_of_dataset(dataset[name]), part=name), choices)
    )


def is_dataset(value: Any) -> bool:
    """Return whether a value comes from `datasets`, which is not imported for it."""
    return type(value).__module__.split(".")[0] == "datasets"


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of a dataset saved to disk."""
    table, notes = open_saved(location, choices)
    return read_table(table, replace(choices, split=None)).noted(*notes)


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of a dataset saved to disk."""
    table, notes = open_saved(location, choices)
    return read_table_unlabelled(table, choices).noted(*notes)


FORMAT = Format(
    recognises,
    read,
    read_unlabelled,
    lambda path, choices: table_has_labels(open_saved(path, choices)[0], choices),
    OF_TABLES,
    "huggingface",
    splits_of,
)


def _json(file: Path) -> dict[str, Any]:
    check_regular(file)
    try:
        content = parsed_text(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
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
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as Arrow: {' '.join(str(error).split())}") from None
