"""A dataset as `save_to_disk` leaves it: other labels, fewer rows; other splits and columns stay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa

from cvcoteach._files import folder_written_whole
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, hugging_face
from cvcoteach.data.sources.arrow import holds_images
from cvcoteach.data.writers.columns import find_columns, rows_held
from cvcoteach.data.writers.copy import Copy, check_content
from cvcoteach.data.writers.folder import check as check_folder


def recognises(source: Source) -> bool:
    """Return whether a source is a folder of `save_to_disk`."""
    return source.array is None and hugging_face.recognises(source.location)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError where the folder would lie in the source, or the source in it."""
    check_folder(copy, destination)


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the dataset without the rows of images left out, with the new labels where they changed.

    Raises InputError where the dataset has changed since it was read, or names files in place of holding images.
    """
    location = copy.source.location
    saved, _ = hugging_face.opened_part(location, copy.choices)
    plain = [
        field.name for field in saved.schema if not pa.types.is_nested(field.type) and not holds_images(field.type)
    ]
    held = rows_held(copy.source) if saved.table.images else None
    if held is None and not all(Path(file).is_absolute() for file in copy.source.file_names or copy.source.paths):
        raise InputError(
            f"{location} names files in place of holding images, which a copy elsewhere would not find; --action list "
            "gives the changes as a table."
        )
    columns = find_columns(
        plain,
        lambda name: _column(saved, name).to_pandas(),
        copy.source,
        copy.choices,
        saved.table.class_names,
        held,
    )
    n_rows = len(_column(saved, columns.labels[0]))
    donors, kept = np.arange(n_rows), np.ones(n_rows, np.bool_)
    donors[columns.rows] = columns.rows[copy.donors]
    kept[columns.rows] = copy.kept
    changed = {name: _column(saved, name).take(pa.array(donors)) for name in columns.labels}
    n, done = int(kept.sum()), 0
    check_content(location)
    with folder_written_whole(destination) as partial:
        for entry in location.iterdir():
            if entry != saved.folder and entry not in saved.files:
                (shutil.copytree if entry.is_dir() else shutil.copy2)(entry, partial / entry.name)
        target = partial / saved.folder.relative_to(location)
        target.mkdir(exist_ok=True)
        for entry in saved.folder.iterdir():
            if entry.is_file() and entry not in saved.files:
                shutil.copy2(entry, target / entry.name)
        first = 0
        for file in saved.files:
            with pa.OSFile(str(target / file.name), "wb") as out, pa.ipc.new_stream(out, saved.schema) as writer:
                for batch in hugging_face.batches_of(file):
                    part = slice(first, first + len(batch))
                    first += len(batch)
                    for name, values in changed.items():
                        number = saved.schema.get_field_index(name)
                        piece = values.slice(part.start, len(batch)).cast(saved.schema.field(name).type)
                        batch = batch.set_column(number, saved.schema.field(name), piece)
                    batch = batch.filter(pa.array(kept[part]))
                    writer.write_batch(batch.cast(saved.schema))
                    done += len(batch)
                    on_image(done, n)
        state = json.loads((target / "state.json").read_text(encoding="utf-8"))
        # datasets finds what it has computed before by this
        (target / "state.json").write_text(json.dumps({**state, "_fingerprint": uuid4().hex[:16]}, indent=2), "utf-8")


def _column(saved: hugging_face.Saved, name: str) -> pa.Array:
    pieces = [batch.column(name) for file in saved.files for batch in hugging_face.batches_of(file)]
    column = pa.chunked_array(pieces, saved.schema.field(name).type).combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
