"""Parquet with the schema, metadata and compression of the source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvcoteach._files import replacing
from cvcoteach._validation import BoolArray, InputError
from cvcoteach.data.sources import Source
from cvcoteach.data.sources.arrow import holds_images
from cvcoteach.data.sources.parquet import FORMAT, open_parquet
from cvcoteach.data.writers.columns import find_columns, relocated, rows_held
from cvcoteach.data.writers.copy import Copy

_ROWS, _ROWS_WITH_IMAGES = 65536, 1024
"""Rows copied at a time."""


def recognises(source: Source) -> bool:
    """Return whether a source is a Parquet file."""
    return source.array is None and source.location.is_file() and FORMAT.recognises(source.location)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError unless the name of the copy is that of a Parquet file."""
    if not FORMAT.recognises(destination):
        raise InputError(f"{destination} is to be a copy of a Parquet file; let its name end in .parquet.")


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the table without the rows of images left out, with the new labels where they changed.

    Raises InputError where the table has changed since it was read.
    """
    file = copy.source.location
    held = rows_held(copy.source) if open_parquet(file).images else None
    with pq.ParquetFile(file) as opened:
        columns = find_columns(
            plain_columns(opened.schema_arrow, holds=held is not None),
            lambda name: _values(column_of(opened, name)),
            copy.source,
            copy.choices,
            open_parquet(file).class_names,
            held,
        )
        n_rows = opened.metadata.num_rows
        donors, kept = np.arange(n_rows), np.ones(n_rows, np.bool_)
        donors[columns.rows] = columns.rows[copy.donors]
        kept[columns.rows] = copy.kept
        changed = {name: column_of(opened, name).take(pa.array(donors)) for name in columns.labels}
        paths = relocated(copy, destination) if columns.path else None
        if paths is not None:
            written = _values(column_of(opened, columns.path)).astype(object).to_numpy(copy=True)
            written[columns.rows] = paths
            changed[columns.path] = pa.array(written.tolist(), pa.string())
        done, to_do = 0, int(kept.sum())
        with replacing(destination) as out:
            for n in write_rows(opened, out, changed, kept, Place(file, destination, held is not None)):
                done += n
                on_image(done, to_do)


class Place(NamedTuple):
    """From where to where a Parquet file is copied."""

    file: Path
    destination: Path
    holds_images: bool


def write_rows(
    opened: pq.ParquetFile, out: IO[bytes], changed: Mapping[str, pa.Array], kept: BoolArray, place: Place
) -> Iterator[int]:
    """Write the rows of a file that are kept, with its schema and compression; yield how many, batch by batch.

    Args:
        opened: The file.
        out: Where to write.
        changed: Name of a column -> its values, (n,).
        kept: (n,) rows to write.
        place: What messages speak of.

    Raises:
        InputError: where rows name files in place of holding images, which a copy elsewhere would not find.
    """
    schema = opened.schema_arrow
    with pq.ParquetWriter(out, schema, compression=_compression(opened)) as writer:
        first = 0
        for batch in opened.iter_batches(_ROWS_WITH_IMAGES if place.holds_images else _ROWS):
            part = slice(first, first + batch.num_rows)
            first += batch.num_rows
            table = pa.Table.from_batches([batch])
            if place.holds_images and place.destination.parent.resolve() != place.file.parent.resolve():
                _check_held(table, place.file, place.destination)
            for name, values in changed.items():
                field = schema.field(name)
                piece = values.slice(part.start, batch.num_rows).cast(field.type)
                table = table.set_column(table.schema.get_field_index(name), field, piece)
            table = table.filter(pa.array(kept[part]))
            writer.write_table(table.cast(schema))
            yield len(table)


def plain_columns(schema: pa.Schema, *, holds: bool) -> list[str]:
    """Return the columns of which one may be that of the labels, or of paths. holds: whether another holds images."""
    return [f.name for f in schema if not pa.types.is_nested(f.type) and not (holds and holds_images(f.type))]


def _check_held(table: pa.Table, file: Path, destination: Path) -> None:
    """Raise InputError where rows name files in place of holding images, which a copy elsewhere would not find."""
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        hugging_face = pa.types.is_struct(kind) and holds_images(kind) and kind.get_field_index("bytes") >= 0
        if hugging_face and pc.struct_field(table[name], "bytes").null_count:
            raise InputError(
                f"some rows of {file.name} name files in place of holding images; name an output beside it, not "
                f"{destination}."
            )


def column_of(opened: pq.ParquetFile, name: str) -> pa.Array:
    """Return a column, (n,); one of a dictionary as its values."""
    column = opened.read(columns=[name]).column(0).combine_chunks()
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _values(column: pa.Array) -> pd.Series:
    return column.to_pandas()


def _compression(opened: pq.ParquetFile) -> str:
    metadata = opened.metadata
    if not metadata.num_row_groups or not metadata.num_columns:
        return "snappy"
    found = str(metadata.row_group(0).column(0).compression).lower()
    return "none" if found == "uncompressed" else found
