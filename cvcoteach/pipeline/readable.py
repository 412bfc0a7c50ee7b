"""Which images of a source can be read, where nothing else needs their pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cvcoteach.data.decode import MAX_PIXELS, decode_files
from cvcoteach.data.sources import Source
from cvcoteach.data.workers import cpu_count, in_processes
from cvcoteach.pipeline.progress import RunProgress

_CHUNK = 256
_WORTH_WORKERS = 4096
"""Images below which worker processes cost more than they save."""


def readable_part(
    source: Source, progress: RunProgress, max_pixels: int | None = None
) -> tuple[Source, dict[str, str]]:
    """Return the images of a source that can be read, in its order, and why others cannot, by path.

    Each file is decoded as `find_issues` decodes it. Images in memory are all readable.

    Args:
        source: Images with labels.
        progress: Follows the reading.
        max_pixels: Of the largest image that is read; None: `MAX_PIXELS`.
    """
    if source.files is None:
        return source, {}
    tasks = [
        (source.files[start : start + _CHUNK], start, max_pixels or MAX_PIXELS)
        for start in range(0, len(source), _CHUNK)
    ]
    reasons: dict[int, str] = {}
    workers = cpu_count() if len(source) >= _WORTH_WORKERS else 1
    for done, found in enumerate(in_processes(_reasons, tasks, workers), start=1):
        reasons |= found
        progress.reading(min(done * _CHUNK, len(source)), len(source))
    readable = np.ones(len(source), np.bool_)
    readable[[*reasons]] = False
    unreadable = {source.paths[row]: reasons[row] for row in sorted(reasons)}
    return source.subset(readable) if unreadable else source, unreadable


def _reasons(files: Sequence[str], start: int, max_pixels: int) -> dict[int, str]:
    """Return row -> why its image cannot be read, of the files from row `start` on."""
    errors = decode_files(files, 1, 3, False, max_pixels=max_pixels)[2]
    return {start + place: reason for place, reason in errors.items()}
