"""Columns of Arrow tables, as Parquet and Hugging Face's datasets hold them: labels, class names, images inside."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cvcoteach._files import open_regular
from cvcoteach._json import parsed_text
from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import Listed, Table, listing
from cvcoteach.data.unpacking import check_unpacked

_LISTS = ("List", "LargeList", "Sequence")
"""What Hugging Face calls columns of lists, in datasets 4 and later and before."""

_VALUE = 64
"""Bytes that a value takes in memory besides its content."""

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
        raise InputError(f"{file.name} has two columns of the same name: {listing(schema.names)}.")
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)

    def load(columns: Sequence[str], most: int | None = None) -> pd.DataFrame:
        wanted = list(dict.fromkeys(columns))
        for column in wanted:
            kind = schema.field(column).type
            if _is_foreign(kind):
                raise InputError(
                    f"the column {column!r} of {file.name} holds {kind}, a type of some other package, which might run "
                    "code to read it; write it as text or whole numbers."
                )
            if pa.types.is_nested(kind) or holds_images(kind):
                way = (
                    f"; --annotator-columns {shlex.quote(column)} reads one label per annotator from it"
                    if _is_list(kind)
                    else ""
                )
                raise InputError(f"the column {column!r} of {file.name} holds {kind}, not text or whole numbers{way}.")
        found = batches(wanted)
        if most is not None:
            first = next(iter(found), None)
            if first is None:
                return pd.DataFrame(columns=wanted)
            # without the notes of pandas, which may be damaged
            return first.slice(0, most).replace_schema_metadata().to_pandas()
        parts = pa.schema([schema.field(name) for name in wanted])
        return pa.Table.from_batches(found, parts).to_pandas(ignore_metadata=True)

    def images_of(column: str) -> Callable[[], Iterator[bytes]]:
        return lambda: _images(file, column, batches([column]))

    def values_of(column: str) -> Callable[[], Listed]:
        return lambda: _listed(column, batches([column]))

    return Table(
        file,
        {field.name: any(test(field.type) for test in text) for field in schema},
        load,
        images={field.name: images_of(field.name) for field in schema if holds_images(field.type)},
        stamp=stamp,
        class_names=class_names(features if features is not None else _features(schema)),
        lists={field.name: values_of(field.name) for field in schema if _is_list(field.type)},
    )


def checked(batches: Iterable[pa.RecordBatch], file: Path) -> Iterator[pa.RecordBatch]:
    """Yield pieces of a file once their values lie in it, are as they say, and are not far more than it could hold.

    Raises pyarrow's ArrowInvalid for damaged ones, and InputError for a few bytes that unpack to gigabytes.
    """
    packed, unpacked = file.stat().st_size, 0
    for batch in batches:
        batch.validate(full=True)
        unpacked += batch.nbytes + _VALUE * len(batch) * batch.num_columns
        check_unpacked(file.name, packed, unpacked, "write it unpacked")
        yield batch


def _is_foreign(kind: pa.DataType) -> bool:
    """Return whether a type, or one inside it, was defined in Python: reading its values runs that; Ray's unpickle."""
    if isinstance(kind, pa.ExtensionType):
        return True
    inside = [kind.field(number).type for number in range(kind.num_fields)]
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        inside.append(kind.value_type)
    return any(map(_is_foreign, inside))


def _is_list(kind: pa.DataType) -> bool:
    """Return whether values are lists of text or whole numbers."""
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(test(kind) for test in tests):
        return False
    plain = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
    return any(test(kind.value_type) for test in plain)


def _listed(column: str, batches: Iterable[pa.RecordBatch]) -> Listed:
    """Return the values of a column of lists."""
    n, rows, values = 0, [], []
    for batch in batches:
        lists = batch.column(0)
        rows.append(n + pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64))
        values.append(pc.list_flatten(lists))
        n += len(lists)
    together = pa.chunked_array(values) if values else pa.chunked_array([pa.array([], pa.string())])
    types = {"types_mapper": pd.ArrowDtype} if together.null_count else {}
    found = together.to_pandas(**types)
    if together.null_count:
        found = found.astype(object).where(found.notna(), None)
    return Listed(n, np.concatenate([np.empty(0, np.int64), *rows]), found.rename(column))


def holds_images(kind: pa.DataType) -> bool:
    """Return whether values may be encoded images: bytes, or Hugging Face's struct of bytes and path."""
    binary = (pa.types.is_binary, pa.types.is_large_binary)
    if _is_foreign(kind):
        return False
    if pa.types.is_struct(kind):
        return any(test(field.type) for field in kind for test in binary)
    return any(test(kind) for test in binary)


def class_names(features: Any) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, where Hugging Face's features hold a `ClassLabel`."""
    if not isinstance(features, dict):
        return {}
    inside = {
        column: feature["feature"] if isinstance(feature, dict) and feature.get("_type") in _LISTS else feature
        for column, feature in features.items()
        if not isinstance(feature, dict) or feature.get("_type") not in _LISTS or "feature" in feature
    }
    return {
        column: tuple(map(str, feature["names"]))
        for column, feature in inside.items()
        if isinstance(feature, dict)
        and feature.get("_type") == "ClassLabel"
        and isinstance(feature.get("names"), list)
        and feature["names"]
    }


def _features(schema: pa.Schema) -> Any:
    try:
        return parsed_text((schema.metadata or {})[b"huggingface"])["info"]["features"]
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
                    with open_regular(file.parent / path) as image:
                        data = image.read()
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
