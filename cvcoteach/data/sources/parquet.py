"""Parquet: one row per image, with paths or the images themselves, and class names where Hugging Face wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cvcoteach._validation import InputError
from cvcoteach.data.sources.arrow import arrow_table
from cvcoteach.data.sources.columns import OF_TABLES, Table
from cvcoteach.data.sources.source import Choices, Format, Source
from cvcoteach.data.sources.table import read_table, read_table_unlabelled, table_has_labels
from cvcoteach.data.sources.unpacked import stamp_of

SUFFIXES = frozenset([".parquet", ".pq"])
SHARD = re.compile(r"(?P<name>.+?)-\d{5}-of-(?P<of>\d{5})(-\w+)?")
"""Name of one file of several: `train-00000-of-00002`, with a fingerprint at the end in old versions of datasets."""
_ROWS = 1024
"""Rows read at a time: they may hold images."""


def open_parquet(file: Path) -> Table:
    """Return a Parquet file, of which nothing but the schema is read yet. Raises InputError for what is not Parquet."""
    try:
        schema = pq.read_schema(file)
        _ = schema.names  # raises for a name that is no UTF-8
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from None

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(_ROWS, columns=list(columns)):
                    batch.validate(full=True)  # text that is no UTF-8
                    yield batch
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise _unreadable(file, error) from None

    return arrow_table(file, schema, batches, stamp_of([file]))


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
