"""A folder, table or other source of images -> a FiftyOne dataset, named after it and found again by the next call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo

from cvcoteach._validation import InputError
from cvcoteach.data.parts import place_of
from cvcoteach.data.sources import Source, read_source

LABEL_FIELD = "ground_truth"
_LOCATION = "cvcoteach_source"
"""Key of `dataset.info`: what the dataset was made from."""


def dataset_of_source(location: str | Path) -> Any:
    """Return the dataset of a source of images in any format that `find-issues` reads; made if there is none yet.

    It is named after the folder or file, with a number where another dataset has that name, and persistent once it is
    complete. Files that are no images are passed over; `dataset.info["notes"]` says what else is worth a look.

    Raises InputError for what is no such source, and for images that are not files.
    """
    place = Path(location).expanduser().resolve()
    stem = (place.stem if place.is_file() else place.name) or "images"
    for name in (stem, *(f"{stem}-{number}" for number in range(2, 100))):
        if not fo.dataset_exists(name):
            return _made(name, read_source(place), place)
        known = fo.load_dataset(name)
        if known.info.get(_LOCATION) == str(place):
            return known
    raise InputError(f"there are a hundred datasets named {stem} already; delete those that are no longer needed.")


def _made(name: str, source: Source, place: Path) -> Any:
    if source.files is None or any(place_of(file)[1] is not None for file in source.files):
        raise InputError(
            f"the images of {place} are not files, which FiftyOne needs; give a folder or a table of paths."
        )
    dataset = fo.Dataset(name)
    samples = (
        fo.Sample(filepath=file, **{LABEL_FIELD: fo.Classification(label=source.class_names[label])})
        for file, label in zip(source.files, source.labels.tolist(), strict=True)
    )
    dataset.add_samples(samples, num_samples=len(source))
    dataset.info = {_LOCATION: str(place), "notes": list(source.notes)}
    dataset.persistent = True
    dataset.save()
    return dataset
