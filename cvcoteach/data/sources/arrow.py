"""Columns of Arrow tables, as Parquet and Hugging Face's datasets hold them: labels, class names, images inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import Table

Batches = Callable[[Sequence[str]], Iterable[pa.RecordBatch]]
"""Yields some columns of a table, in pieces."""


def arrow_table(file: Path, schema: pa.Schema, batches: Batches, stamp: str, features: Any = None) -> Table:
    """Return a table of Arrow columns, of which nothing is read yet.

    Args:
        file: where it lies, for messages and as the folder that paths are relative to.
        schema: its columns.
        batches: yields some of them. Raises InputError where they cannot be read.
        stamp: what tells whether its content has changed.
        features: Hugging Face's description of the columns, where it is not in the schema's metadata.

    Raises:
        InputError: for two columns of one name.
    """
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{file.name} has two columns of the same name: {', '.join(schema.names)}.")
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)

    def load(columns: Sequence[str], most: int | None = None) -> pd.DataFrame:
        wanted = list(dict.fromkeys(columns))
        for column in wanted:
            kind = schema.field(column).type
            if pa.types.is_nested(kind) or holds_images(kind):
                raise InputError(f"the column {column!r} of {file.name} holds {kind}; it takes text or whole numbers.")
        found = batches(wanted)
        if most is not None:
            first = next(iter(found), None)
            return pd.DataFrame(columns=wanted) if first is None else first.slice(0, most).to_pandas()
        parts = pa.schema([schema.field(name) for name in wanted])
        return pa.Table.from_batches(found, parts).to_pandas(ignore_metadata=True)

    def images_of(column: str) -> Callable[[], Iterator[bytes]]:
        return lambda: _images(file, column, batches([column]))

    return Table(
        file,
        {field.name: any(test(field.type) for test in text) for field in schema},
        load,
        images={field.name: images_of(field.name) for field in schema if holds_images(field.type)},
        stamp=stamp,
        class_names=class_names(features if features is not None else _features(schema)),
    )


def holds_images(kind: pa.DataType) -> bool:
    """Return whether values may be encoded images: bytes, or Hugging Face's struct of bytes and path."""
    binary = (pa.types.is_binary, pa.types.is_large_binary)
    if pa.types.is_struct(kind):
        return any(test(field.type) for field in kind for test in binary)
    return any(test(kind) for test in binary)


def class_names(features: Any) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, where Hugging Face's features hold a `ClassLabel`."""
    if not isinstance(features, dict):
        return {}
    return {
        column: tuple(map(str, feature["names"]))
        for column, feature in features.items()
        if isinstance(feature, dict)
        and feature.get("_type") == "ClassLabel"
        and isinstance(feature.get("names"), list)
        and feature["names"]
    }


def _features(schema: pa.Schema) -> Any:
    try:
        return json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return None


def _images(file: Path, column: str, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """Yield the encoded images of a column, from the files that it names where it holds no bytes."""
    row = 0
    for batch in batches:
        for value in batch.column(0).to_pylist():
            row += 1
            data, path = _bytes_and_path(value)
            if data is None and path is not None:
                try:
                    data = (file.parent / path).read_bytes()
                except (OSError, ValueError) as error:
                    raise InputError(
                        f"row {row} of {file.name} names the image {path} in place of holding it, which cannot be read "
                        f"({getattr(error, 'strerror', None) or error}); save the dataset with its images."
                    ) from None
            if data is None:
                raise InputError(f"row {row} of {file.name} holds no image in the column {column!r}; leave it out.")
            yield data


def _bytes_and_path(value: Any) -> tuple[bytes | None, str | None]:
    if not isinstance(value, dict):
        return value, None
    data = value.get("bytes", next((each for each in value.values() if isinstance(each, bytes)), None))
    return data, value.get("path")
