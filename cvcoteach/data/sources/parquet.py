"""Parquet: one row per image, with paths or the images themselves, and class names where Hugging Face wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cvcoteach._files import check_regular
from cvcoteach._validation import InputError
from cvcoteach.data.sources.arrow import arrow_table, checked, holds_images
from cvcoteach.data.sources.columns import OF_TABLES, Table
from cvcoteach.data.sources.source import Choices, Format, Source
from cvcoteach.data.sources.table import read_table, read_table_unlabelled, table_has_labels
from cvcoteach.data.sources.unpacked import stamp_of
from cvcoteach.data.unpacking import check_unpacked

SUFFIXES = frozenset([".parquet", ".pq"])
SHARD = re.compile(r"(?P<name>.+?)-\d{5}-of-(?P<of>\d{5})(-\w+)?")
"""Name of one file of several: `train-00000-of-00002`, with a fingerprint at the end in old versions of datasets."""
_ROWS = 1024
"""Rows read at a time: they may hold images."""
_AT_ONCE = 2**28
"""Bytes of images read at a time, more or less."""
_REPEATS = {"PLAIN_DICTIONARY", "RLE_DICTIONARY", "DELTA_BYTE_ARRAY"}
"""Encodings in which a value is written once for many rows."""


def open_parquet(file: Path) -> Table:
    """Return a Parquet file, of which nothing but the schema is read yet. Raises InputError for what is not Parquet."""
    check_regular(file)
    try:
        schema = pq.read_schema(file)
        _ = schema.names  # raises for a name that is no UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from None

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(file) as opened:
                _check_size(opened, file, columns)
                wanted = [column for column in columns if holds_images(schema.field(column).type)]
                yield from checked(opened.iter_batches(_rows(opened, wanted), columns=list(columns)), file)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _unreadable(file, error) from None

    return arrow_table(file, schema, batches, stamp_of([file]))


def _check_size(opened: pq.ParquetFile, file: Path, columns: Sequence[str]) -> None:
    """Raise InputError where a few bytes hold gigabytes, by what the file says itself."""
    parts = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
    chunks = [part.column(number) for part in parts for number in range(part.num_columns)]
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    check_unpacked(file.name, file.stat().st_size, size, "write it unpacked")


def _rows(opened: pq.ParquetFile, of_images: Sequence[str]) -> int:
    """Return how many rows to read at a time: an image may be repeated without taking room in the file."""
    parts = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)] if of_images else []
    chunks = [part.column(number) for part in parts for number in range(part.num_columns)]
    most = [
        chunk.total_uncompressed_size
        for chunk in chunks
        if chunk.path_in_schema.split(".")[0] in of_images and _REPEATS & set(chunk.encodings)
    ]
    return max(1, min(_ROWS, _AT_ONCE // max([1, *most])))


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of a Parquet file."""
    source = read_table(open_parquet(location), choices)
    shard = SHARD.fullmatch(location.stem)
    if shard is None or int(shard["of"]) < 2:
        return source
    return source.noted(f"{location.name} is one of {int(shard['of'])} files: name the folder to read all of them.")


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of a Parquet file."""
    return read_table_unlabelled(open_parquet(location), choices)


FORMAT = Format(
    lambda path: path.suffix.lower() in SUFFIXES and not path.is_dir(),
    read,
    read_unlabelled,
    lambda path, choices: table_has_labels(open_parquet(path), choices),
    OF_TABLES,
    "parquet",
)


def _unreadable(file: Path, error: Exception) -> InputError:
    return InputError(f"{file.name} cannot be read as Parquet: {' '.join(str(error).split())}")
