"""Folders that annotation tools export (COCO-style, CVAT, Datumaro): one split is written, the others as they are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from cvcoteach._files import folder_written_whole
from cvcoteach.data.sources import Source, coco, cvat, datumaro
from cvcoteach.data.writers import annotation_json
from cvcoteach.data.writers import cvat as cvat_xml
from cvcoteach.data.writers.copy import Copy, check_content
from cvcoteach.data.writers.folder import check as check

_OF_JSON = (coco, datumaro)


def recognises(source: Source) -> bool:
    """Return whether a source is such a folder, not one file of it."""
    location = source.location
    return source.array is None and location.is_dir() and any(kind.recognises(location) for kind in (*_OF_JSON, cvat))


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the folder with the images of all splits.

    Raises InputError where the file of the split has changed since it was read.
    """
    location, choices = copy.source.location, copy.choices
    kind = next((kind for kind in _OF_JSON if kind.recognises(location)), None)
    if kind is None:
        file = cvat.file_of(location, choices)
        content = cvat_xml.edited(file, copy, cvat.subset_of(location, choices))
    else:
        file = kind.file_of(location, choices)
        content = annotation_json.edited(file, copy)
    check_content(location)
    with folder_written_whole(destination) as partial:
        shutil.copytree(location, partial, dirs_exist_ok=True)
        (partial / file.relative_to(location)).write_bytes(content)
    n = int(copy.kept.sum())
    on_image(n, n)
