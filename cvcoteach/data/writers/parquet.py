"""Parquet with the schema, metadata and compression of the source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cvcoteach._files import replacing
from cvcoteach._validation import InputError
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
        schema = opened.schema_arrow
        plain = [
            f.name for f in schema if not pa.types.is_nested(f.type) and not (held is not None and holds_images(f.type))
        ]
        columns = find_columns(
            plain,
            lambda name: _values(_column(opened, name)),
            copy.source,
            copy.choices,
            open_parquet(file).class_names,
            held,
        )
        n_rows = opened.metadata.num_rows
        donors, kept = np.arange(n_rows), np.ones(n_rows, np.bool_)
        donors[columns.rows] = columns.rows[copy.donors]
        kept[columns.rows] = copy.kept
        changed = {name: _column(opened, name).take(pa.array(donors)) for name in columns.labels}
        paths = relocated(copy, destination) if columns.path else None
        if paths is not None:
            written = _values(_column(opened, columns.path)).astype(object).to_numpy(copy=True)
            written[columns.rows] = paths
            changed[columns.path] = pa.array(written.tolist(), pa.string())
        done, to_do = 0, int(kept.sum())
        with replacing(destination) as out, pq.ParquetWriter(out, schema, compression=_compression(opened)) as writer:
            first = 0
            for batch in opened.iter_batches(_ROWS if held is None else _ROWS_WITH_IMAGES):
                part = slice(first, first + batch.num_rows)
                first += batch.num_rows
                table = pa.Table.from_batches([batch])
                if held is not None and destination.parent.resolve() != file.parent.resolve():
                    _check_held(table, file, destination)
                for name, values in changed.items():
                    field = schema.field(name)
                    piece = values.slice(part.start, batch.num_rows).cast(field.type)
                    table = table.set_column(table.schema.get_field_index(name), field, piece)
                table = table.filter(pa.array(kept[part]))
                writer.write_table(table.cast(schema))
                done += len(table)
                on_image(done, to_do)


def _check_held(table: pa.Table, file: Path, destination: Path) -> None:
    """Raise InputError where rows name files in place of holding images, which a copy elsewhere would not find."""
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        hugging_face = pa.types.is_struct(kind) and holds_images(kind) and kind.get_field_index("bytes") >= 0
        if hugging_face and pc.struct_field(table[name], "bytes").null_count:
            raise InputError(
                f"some rows of {file.name} name files in place of holding images; name an output beside it, not "
                f"{destination}."
            )


def _column(opened: pq.ParquetFile, name: str) -> pa.Array:
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
