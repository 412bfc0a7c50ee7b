"""One image file: without a label, so for predictions only."""

from __future__ import annotations

from pathlib import Path

from cvcoteach._validation import InputError
from cvcoteach.data.sources.source import IMAGE_SUFFIXES, Choices, Format, Source, unlabelled


def read(location: Path, choices: Choices) -> Source:
    """Raise InputError: one image has no label."""
    raise InputError(
        f"{location.name} is of a kind that cannot be read with labels, one image; it takes a folder of class folders, "
        "a .csv, .tsv, .parquet or .npz."
    )


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the one image."""
    return unlabelled(location, location.parent, [location.name])


FORMAT = Format(
    lambda path: path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir(),
    read,
    read_unlabelled,
    lambda path, choices: False,
    frozenset(),
    name="image",
)
