"""Where the images of a finished run are, and how the run read them, from its run.json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices, as_far_as_taken
from cvcoteach.data.sources.unpacked import holds_unpacked


def reading_record(choices: Choices) -> dict[str, str | None]:
    """Return how a source is read, for a record in JSON, from any folder; `choices_in` takes it."""
    if choices.cache_dir is not None:
        choices = replace(choices, cache_dir=choices.cache_dir.absolute())
    return {name: None if value is None else str(value) for name, value in asdict(choices).items()}


def choices_in(reading: Mapping[str, Any], file: Path) -> Choices:
    """Return how a source was read, by the record `file`.

    The cache that it names is taken only if images were unpacked there: somebody else's record makes no new one.

    Raises InputError for a field that is unknown or of another kind.
    """
    known = {field.name for field in fields(Choices)}
    for name, value in reading.items():
        if name not in known or not isinstance(value, str | None):
            raise InputError(f"{file} is damaged: its reading has {name} {value!r}.")
    choices = Choices(**reading)
    folder = None if choices.cache_dir is None else Path(choices.cache_dir)
    return replace(choices, cache_dir=folder if folder is not None and holds_unpacked(folder) else None)


def location_of(folder: Path, record: Mapping[str, Any], how_to_name: str) -> Path:
    """Return where a run found its images.

    Args:
        folder: of the run.
        record: the content of its run.json.
        how_to_name: how the user names images that have moved, as the end of a sentence.

    Raises:
        InputError: They are not there any more, or the record does not say where they were.
    """
    if not record.get("source"):
        raise InputError(f"{folder / 'run.json'} is damaged: it has no source.")
    location = Path(record["source"])
    if not os.path.exists(location):
        raise InputError(f"{location}, where the run found its images, is not there; name them {how_to_name}.")
    return location


def as_in_run(folder: Path, record: Mapping[str, Any], location: Path, named: Choices | None = None) -> Choices:
    """Return how to read the images of a run: as the run read them, save for what the user named.

    Where they have moved, what the run was told counts as far as it means something to what is there now.

    Raises InputError where the record is damaged.
    """
    named = named or Choices()
    before = choices_in(record.get("reading", {}), folder / "run.json")
    if os.path.abspath(location) != record.get("source"):
        before = as_far_as_taken(location, before, named)
    return replace(before, **{name: value for name, value in vars(named).items() if value is not None})


def root_of(source: str) -> Path:
    """Return the folder that paths of a run's images are relative to, by where the run found them."""
    root = Path(source)
    return root if root.is_dir() else root.parent
