"""The source of a finished run, read once more: as it was read then, and whether it still holds the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvcoteach._validation import InputError
from cvcoteach.data.images import Images
from cvcoteach.data.sources import Source, read_source

ColumnNames = tuple[str | None, str | None]
"""Columns of the paths and of the labels in a table; None: auto-detected."""


def read_again(source: Path, record: dict[str, Any], columns: ColumnNames) -> Source:
    """Return the source, read as the run read it, where it is the same one and nothing else was said."""
    reading = dict(record.get("reading", {})) if str(source.absolute()) == record.get("source") else {}
    reading |= {
        name: column
        for name, column in zip(("path_column", "label_column"), columns, strict=True)
        if column is not None
    }
    return read_source(source, **reading)


def check_same_images(run: Path, record: dict[str, Any], data: Source, images: Images) -> None:
    """Raise InputError where the images are not those of the run, though they have the same names."""
    then = record.get("images", {})
    if then.get("count") == len(data) and then.get("digest") not in (None, images.content):
        raise InputError(
            f"the images in {data.location} are not those of the run, though they have the same names; name its own "
            f"(cvcoteach retrain SOURCE --run {run}), or run find-issues on these."
        )
