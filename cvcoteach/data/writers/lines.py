"""JSON lines and lists of paths and labels: a line that does not change stays as it is, to the character."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._files import replacing
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, records
from cvcoteach.data.writers.annotation_json import check_labels
from cvcoteach.data.writers.columns import Columns, find_columns, relocated
from cvcoteach.data.writers.copy import Copy

_BOM = b"\xef\xbb\xbf"


def recognises(source: Source) -> bool:
    """Return whether a source is a file of JSON lines, or a list of paths and labels."""
    formats = (records.LINES, records.LIST)
    return source.array is None and any(each.recognises(source.location) for each in formats)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError unless the name of the copy ends as the source's does."""
    if destination.suffix.lower() != copy.source.location.suffix.lower():
        raise InputError(f"{destination} is to be a copy of a {copy.source.location.suffix}; let its name end so.")


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the lines without those of images left out, with the new labels where they changed.

    Raises InputError where the file has changed since it was read.
    """
    data = copy.source.location.read_bytes()
    start = _BOM if data.startswith(_BOM) else b""
    lines = data.removeprefix(_BOM).decode().splitlines(keepends=True)
    is_list = records.LIST.recognises(copy.source.location)
    at, edit = (_of_list if is_list else _of_json)(lines, copy)
    paths = relocated(copy, destination)
    image_of = np.full(len(lines), -1, np.int64)
    image_of[at] = np.arange(len(at))
    written = []
    for line, image in zip(lines, image_of.tolist(), strict=True):
        if image >= 0 and not copy.kept[image]:
            continue
        if image >= 0 and (paths is not None or copy.donors[image] != image):
            body = line.rstrip("\r\n")
            line = edit(body, image, None if paths is None else paths[image]) + line[len(body) :]
        written.append(line)
    with replacing(destination) as file:
        file.write(start + "".join(written).encode())
    n = int(copy.kept.sum())
    on_image(n, n)


Edit = Callable[[str, int, str | None], str]
"""(line, image, path or None for the one that is there) -> the line of the copy."""


def _of_json(lines: list[str], copy: Copy) -> tuple[np.ndarray, Edit]:
    """Return the line (n,) of each image, and what makes its line in the copy."""
    at = [number for number, line in enumerate(lines) if line.strip()]
    rows = [json.loads(lines[number]) for number in at]
    frame = pd.DataFrame(rows)
    columns: Columns = find_columns(list(frame.columns), lambda name: frame[name], copy.source, copy.choices, {})

    def edit(line: str, image: int, path: str | None) -> str:
        record, donor = dict(rows[columns.rows[image]]), rows[columns.rows[copy.donors[image]]]
        record |= {name: donor[name] for name in columns.labels}
        if path is not None:
            record[columns.path] = path
        return json.dumps(record, ensure_ascii=False)

    return np.array(at, np.int64)[columns.rows], edit


def _of_list(lines: list[str], copy: Copy) -> tuple[np.ndarray, Edit]:
    at = [number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    pairs: list[Any] = [records.path_and_label(lines[number]) for number in at]
    if len(at) != len(copy.source) or any(
        pair is None or pair[0] != path for pair, path in zip(pairs, copy.source.paths, strict=True)
    ):
        raise InputError(
            f"{copy.source.location.name} does not hold the paths as they were read; it has changed since."
        )

    check_labels(copy, [label for _, label in pairs])

    def edit(line: str, image: int, path: str | None) -> str:
        there = pairs[image][0]
        cells = line.split("\t") if "\t" in line else line.rsplit(None, 1)
        place = next(number for number, cell in enumerate(cells) if cell.strip() == there)
        cells[len(cells) - 2 if place == len(cells) - 1 else -1] = pairs[int(copy.donors[image])][1]
        cells[place] = there if path is None else path
        return ("\t" if "\t" in line else " ").join(cells)

    return np.array(at, np.int64), edit
