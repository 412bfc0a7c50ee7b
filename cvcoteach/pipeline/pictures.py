"""Pictures of some images of a run, read from where the run found them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.sources import read_source
from cvcoteach.data.thumbnails import thumbnails
from cvcoteach.pipeline.run_source import choices_in


def pictures_of(record: Mapping[str, Any], paths: Sequence[str], rows: IntArray, size: int) -> list[bytes | None]:
    """Return JPEG bytes of the images `rows` of a run; None for those that are not there any more.

    record: the content of its run.json; paths: its images, n; size: pixels a side.
    """
    try:
        choices = choices_in(record.get("reading", {}), Path("run.json"))
        source = read_source(Path(record["source"]), **asdict(choices))
    except (InputError, KeyError):
        return [None] * len(rows)
    place = {path: row for row, path in enumerate(source.paths)}
    there = np.array([place.get(paths[i], -1) for i in rows.tolist()], np.int64)
    found = iter(thumbnails(source, there[there >= 0], size, "JPEG"))
    return [next(found) if row >= 0 else None for row in there.tolist()]
