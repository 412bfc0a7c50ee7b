"""The images of a source in the order in which everything reads them, for features that others compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cvcoteach._progress import Watcher
from cvcoteach.data.parts import place_of
from cvcoteach.data.sources import Choices, read_source
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.readable import readable_part


@dataclass(frozen=True, eq=False)
class Listing:
    """The readable images of a source."""

    table: pd.DataFrame
    """The columns path, label and, of images in files of their own, file: the absolute path; a row per image."""
    unreadable: Mapping[str, str]
    """Path -> why it was left out."""


def list_images(
    source: str | Path, choices: Choices | None = None, *, max_pixels: int | None = None, watcher: Watcher | None = None
) -> Listing:
    """Return the images of a source in the order in which `find_issues` takes the rows of features.

    Args:
        source: As `find_issues` takes it.
        choices: How to read it.
        max_pixels: Of the largest image that is read; None: 268 million.
        watcher: Follows the reading.

    Raises:
        InputError: The source cannot be read.
    """
    progress = RunProgress(watcher)
    data = read_source(source, **asdict(choices or Choices()))
    for sentence in (f"{data.description}.", *data.notes):
        progress.note(sentence)
    kept, unreadable = readable_part(data, progress, max_pixels)
    columns = {"path": list(kept.paths), "label": np.array(kept.class_names, dtype=object)[kept.labels]}
    if kept.files is not None:
        columns["file"] = [name if place_of(name)[1] is None else "" for name in kept.files]  # not parts of files
    return Listing(pd.DataFrame(columns), unreadable)
