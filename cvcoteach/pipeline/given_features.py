"""Features from the user's own file, row by row to the images that they belong to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._csv import escaped
from cvcoteach._validation import InputError, IntArray, counted, near
from cvcoteach.data.sources import Source, open_npz
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.readable import readable_part
from cvcoteach.training.head_trainer import load_features

PATHS, FEATURES = "paths", "features"
"""Arrays of an .npz of features."""


@dataclass(frozen=True, eq=False)
class GivenFeatures:
    """The features of some images, and these images."""

    source: Source
    """The images that have features, in the order of the source; n of them."""
    features: npt.NDArray[Any]
    """(n, d)"""
    unreadable: Mapping[str, str]
    """Path -> why it was left out."""


def given_features(
    file: str | Path, source: Source, progress: RunProgress, max_pixels: int | None = None
) -> GivenFeatures:
    """Return the features in `file` with the images that they belong to; nothing is unpickled.

    A .npy (n, d) has a row per image, in the order that `cvcoteach list` writes down; so does an .npz without paths.
    An .npz with the arrays `features` (m, d) and `paths` (m,) is matched by path, relative to the source as in
    issues.csv or absolute; an image that was moved to another folder since by its file name, where only one has it.
    Images that cannot be read need no row; they are looked for only where rows are missing.

    Args:
        file: A .npy or .npz.
        source: Images with labels.
        progress: Follows the search for unreadable images.
        max_pixels: Of the largest image that counts as readable; None: `MAX_PIXELS`.

    Raises:
        InputError: There is no such file, it holds something else, or readable images have no row.
    """
    file = Path(file)
    if file.suffix.lower() != ".npz":
        return _in_order(file, load_features(file), source, progress, max_pixels)
    if not file.exists():
        raise InputError(f"{file} does not exist; it takes a .npy or .npz file with one row of numbers per image.")
    with open_npz(file) as arrays:
        name = _name_of_features(file, arrays.names)
        features = arrays.read(name)
        paths = arrays.read(PATHS) if PATHS in arrays.names else None
    if features.ndim != 2:
        raise InputError(f"{name} in {file} has shape {features.shape}; it takes one row of numbers per image, (n, d).")
    if paths is None:
        return _in_order(file, features, source, progress, max_pixels)
    if paths.shape != (len(features),) or paths.dtype.kind not in "US":
        raise InputError(
            f"{PATHS} in {file} holds {paths.dtype} of shape {paths.shape}; {len(features):,} rows of features need "
            f"text of shape ({len(features)},)."
        )
    names = [os.fsdecode(path) if isinstance(path, bytes) else path for path in paths.tolist()]
    return _by_path(file, features, names, source, progress, max_pixels)


def _name_of_features(file: Path, names: Sequence[str]) -> str:
    if FEATURES in names:
        return FEATURES
    others = [name for name in names if name != PATHS]
    if len(others) != 1:
        raise InputError(f"{file} has no array {FEATURES!r}; {near(FEATURES, names)}")
    return others[0]


def _in_order(
    file: Path, features: npt.NDArray[Any], source: Source, progress: RunProgress, max_pixels: int | None
) -> GivenFeatures:
    if len(features) == len(source):
        return GivenFeatures(source, features, {})
    if len(features) < len(source) and source.files is not None:
        kept, unreadable = readable_part(source, progress, max_pixels)
        if len(kept) == len(features):
            return GivenFeatures(kept, features, unreadable)
        source = kept
    raise InputError(
        f"{file} has {counted(len(features), 'row')}, but the source has {counted(len(source), 'image')}; "
        "it takes one row per image, in the order that cvcoteach list SOURCE prints; "
        "or an .npz with the arrays features and paths."
    )


def _by_path(
    file: Path,
    features: npt.NDArray[Any],
    names: Sequence[str],
    source: Source,
    progress: RunProgress,
    max_pixels: int | None,
) -> GivenFeatures:
    rows = _rows_of(names, source, file)
    missing = np.flatnonzero(rows < 0)
    unreadable: Mapping[str, str] = {}
    if len(missing) == len(source):
        raise InputError(
            f"none of the {len(names):,} paths in {file} is an image of the source; the first is {names[0]!r}, and "
            f"that of the source is {source.paths[0]!r}."
        )
    if len(missing):
        without, unreadable = readable_part(source.subset(missing), progress, max_pixels)
        if len(without):
            have = "has" if len(without) == 1 else "have"
            raise InputError(
                f"{len(without):,} of {len(source):,} images {have} no row in {file}, the first is {without.paths[0]}."
            )
    n_unused = len(names) - len(np.unique(rows[rows >= 0]))
    if n_unused:
        whose = "1 row of {} is" if n_unused == 1 else f"{n_unused:,} rows of {{}} are"
        progress.note(f"{whose.format(file)} of no image of the source, and ignored.")
    kept = rows[rows >= 0]
    return GivenFeatures(source.subset(rows >= 0) if len(missing) else source, features[kept], unreadable)


def _rows_of(names: Sequence[str], source: Source, file: Path) -> IntArray:
    """Return the row (n,) of each image, -1 where it has none. Raises InputError for a path that comes twice."""
    row_of = {os.path.normpath(name): row for row, name in enumerate(names)}
    if len(row_of) < len(names):
        twice = next(name for name, often in Counter(map(os.path.normpath, names)).items() if often > 1)
        raise InputError(f"{PATHS} in {file} holds {twice!r} twice; each image has one row.")
    whole = source.files or source.paths
    rows = np.array(
        [
            next((row_of[name] for name in (os.path.normpath(path), file_, escaped(path)) if name in row_of), -1)
            for path, file_ in zip(source.paths, whole, strict=True)
        ],
        np.int64,
    )
    missing = np.flatnonzero(rows < 0).tolist()
    if missing:
        free = set(range(len(names))) - {*rows.tolist()}
        there = _lone({os.path.basename(names[row]): row for row in free}, [os.path.basename(names[r]) for r in free])
        here = Counter(os.path.basename(source.paths[i]) for i in missing)
        for i in missing:
            name = os.path.basename(source.paths[i])
            if here[name] == 1:
                rows[i] = there.get(name, -1)
    return rows


def _lone(rows: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    often = Counter(names)
    return {name: row for name, row in rows.items() if often[name] == 1}
