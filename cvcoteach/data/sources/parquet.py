"""Parquet: one row per image, the names of the classes where Hugging Face wrote them into the file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cvcoteach._validation import InputError
from cvcoteach.data.sources.source import Choices, Format, Source
from cvcoteach.data.sources.table import Table, read_table, read_table_unlabelled, table_has_labels

SUFFIXES = frozenset([".parquet", ".pq"])


def open_parquet(file: Path) -> Table:
    """Return a Parquet file, of which nothing but the schema is read yet.

    Raises:
        InputError: for a file that is not Parquet, and where it holds the images themselves.
    """
    schema = _schema(file)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    inside = next((field.name for field in schema if _holds_images(field.type)), None)

    def load(columns: Sequence[str], most: int | None = None) -> pd.DataFrame:
        wanted = list(dict.fromkeys(columns))
        for column in wanted:
            kind = schema.field(column).type
            if _holds_images(kind):
                raise InputError(_images_inside(file, column, kind))
            if pa.types.is_nested(kind):
                raise InputError(f"the column {column!r} of {file.name} holds {kind}; it takes text or whole numbers.")
        try:
            with pq.ParquetFile(file) as opened:
                batches = opened.iter_batches(columns=wanted)
                if most is not None:
                    first = next(batches, None)
                    return pd.DataFrame(columns=wanted) if first is None else first.slice(0, most).to_pandas()
                parts = pa.schema([schema.field(name) for name in wanted])
                return pa.Table.from_batches(batches, parts).to_pandas(ignore_metadata=True)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise InputError(f"{file.name} cannot be read as Parquet: {' '.join(str(error).split())}") from None

    return Table(
        file,
        {field.name: any(test(field.type) for test in text) for field in schema},
        load,
        no_paths=None if inside is None else _images_inside(file, inside, schema.field(inside).type),
        class_names=_class_names(schema),
    )


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of a Parquet file."""
    return read_table(open_parquet(location), choices)


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of a Parquet file."""
    return read_table_unlabelled(open_parquet(location), choices)


FORMAT = Format(
    lambda path: path.suffix.lower() in SUFFIXES and not path.is_dir(),
    read,
    read_unlabelled,
    lambda path, choices: table_has_labels(open_parquet(path), choices),
    frozenset(["path_column", "label_column", "path_pattern", "group_column"]),
)


def _schema(file: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise InputError(f"{file.name} cannot be read as Parquet: {' '.join(str(error).split())}") from None
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{file.name} has two columns of the same name: {', '.join(schema.names)}.")
    return schema


def _holds_images(kind: pa.DataType) -> bool:
    binary = (pa.types.is_binary, pa.types.is_large_binary)
    if pa.types.is_struct(kind):
        return any(test(field.type) for field in kind for test in binary)
    return any(test(kind) for test in binary)


def _images_inside(file: Path, column: str, kind: pa.DataType) -> str:
    what = "struct" if pa.types.is_struct(kind) else kind
    return (
        f"the column {column!r} of {file.name} holds {what}, the images themselves, as Hugging Face writes them; save "
        f"them as files first: for i, row in enumerate(datasets.load_dataset('parquet', data_files={file.name!r})"
        "['train']): row['image'].save(f'{i}.png'), and name a .csv of these files and their labels."
    )


def _class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, where the file holds them for Hugging Face's `ClassLabel`."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
