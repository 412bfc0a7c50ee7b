"""A CSV or TSV, written as the source is: what does not change stays as it is, to the character."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from cvcoteach._csv import escaped, is_ours, unescaped_values
from cvcoteach._files import replacing
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source
from cvcoteach.data.sources.text_table import FORMAT, dialect_of
from cvcoteach.data.writers.columns import find_columns, relocated
from cvcoteach.data.writers.copy import Copy

_BOM = b"\xef\xbb\xbf"


def recognises(source: Source) -> bool:
    """Return whether a source is a CSV or TSV."""
    return source.array is None and FORMAT.recognises(source.location)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError unless the name of the copy ends as the source's does."""
    if destination.suffix.lower() != copy.source.location.suffix.lower():
        raise InputError(f"{destination} is to be a copy of a {copy.source.location.suffix}; let its name end so.")


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the table without the rows of images left out, with the new labels where they changed.

    Raises InputError where the table has changed since it was read.
    """
    file = copy.source.location
    dialect = dialect_of(file)
    with open(file, encoding="utf-8-sig", newline="") as opened:
        before = [opened.readline() for _ in range(dialect.skipped)]
        raw, values = zip(*_rows(opened, dialect.separator), strict=True)
    width = len(dialect.names)
    if any(len(row) != width for row in values):
        raise InputError(f"{file.name} has rows of different lengths; it has changed since.")
    ours = is_ours(dialect.names)  # a table that we wrote, whose texts are escaped
    as_read = unescaped_values if ours else pd.Series.copy
    number = {name: position for position, name in enumerate(dialect.names)}
    columns = find_columns(
        dialect.names,
        lambda name: as_read(pd.Series([row[number[name]] for row in values], dtype=object)),
        copy.source,
        copy.choices,
        {},
    )
    label_places = [number[name] for name in columns.labels]
    paths = relocated(copy, destination)
    image_of = np.full(len(values), -1, np.int64)
    image_of[columns.rows] = np.arange(len(columns.rows))
    ending = "\r\n" if (before or raw)[0].endswith("\r\n") else "\n"
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=dialect.separator, lineterminator=ending)
    text.writelines(before)
    for row, image in enumerate(image_of.tolist()):
        if image >= 0 and not copy.kept[image]:
            continue
        donor = image if image < 0 else int(copy.donors[image])
        if image < 0 or (paths is None and donor == image):
            text.write(raw[row] if raw[row].endswith("\n") else raw[row] + ending)
            continue
        cells = list(values[row])
        if donor != image:
            given = values[columns.rows[donor]]
            for place in label_places:
                cells[place] = given[place]
        if paths is not None:
            cells[number[columns.path]] = escaped(paths[image]) if ours else paths[image]
        writer.writerow(cells)
    with open(file, "rb") as opened_bytes:
        start = _BOM if opened_bytes.read(3) == _BOM else b""
    with replacing(destination) as out:
        out.write(start + text.getvalue().encode("utf-8"))
    on_image(int(copy.kept.sum()), int(copy.kept.sum()))


def _rows(lines: TextIO, separator: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each row as it is written, line breaks within values included, and its values; empty lines are skipped."""
    seen: list[str] = []

    def watched() -> Iterator[str]:
        for line in lines:
            seen.append(line)
            yield line

    for row in csv.reader(watched(), delimiter=separator):
        if row:
            yield "".join(seen), row
        seen.clear()
