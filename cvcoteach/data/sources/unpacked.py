"""Encoded images inside another file -> one file in the cache that holds them end to end, read by their place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import filelock
import numpy as np

from cvcoteach._files import PARTIAL, DamagedError, check_regular, digest, read_array, read_text, save_array
from cvcoteach._json import parsed
from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.cache_folder import CACHE_VARIABLE, cache_folder
from cvcoteach.data.parts import part_of
from cvcoteach.data.sources.source import Choices

_FOLDER, _IMAGES, _ENDS, _DONE = "unpacked", "images", "ends.npy", "unpacked.json"
_BUFFER = 2**22


def stamp_of(files: Iterable[Path]) -> str:
    """Return what tells whether files have changed: their names, sizes and times. Raises InputError for a pipe."""
    stats = [(file, file.stat()) for file in files]
    for file, _ in stats:
        check_regular(file)
    return digest(*[f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats])


def holds_unpacked(cache_dir: Path) -> bool:
    """Return whether a folder is a cache into which images were unpacked."""
    try:
        return any((cache_dir / _FOLDER).glob(f"*/{_DONE}"))
    except (OSError, ValueError):  # a name with a null byte
        return False


def unpack(
    location: Path, stamp: str, images: Callable[[], Iterable[bytes]], choices: Choices, part: str = ""
) -> Sequence[str]:
    """Return the place of each of the encoded images in a file of the cache, written unless it is there already.

    Args:
        location: the file or folder that holds them, for the name of the folder.
        stamp: what tells whether its content has changed; see `stamp_of`.
        images: called for the images, in order, where they are not in the cache.
        choices: where the cache is.
        part: which images of the location these are, such as a split and a column; those of other parts stay.

    Raises:
        InputError: where the cache cannot be written.
    """
    base = cache_folder(choices.cache_dir) / _FOLDER
    folder = base / f"{digest(str(location), part, stamp, 'end to end')[:24]}"
    try:
        base.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(base / f".{folder.name}.lock"):
            ends = _ends_in(folder)
            if ends is None:
                for left in base.glob(f".{folder.name}.*{PARTIAL}"):  # of calls that were killed
                    shutil.rmtree(left, ignore_errors=True)
                ends = _write(base, folder, {"location": str(location), "part": part}, images())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise InputError(
            f"the images inside {location} cannot be unpacked into {base} "
            f"({'the disk is full' if full else error.strerror or error}); {CACHE_VARIABLE} names another folder."
        ) from error
    file = str(folder / _IMAGES)
    return [part_of(file, start, end - start) for start, end in pairwise([0, *ends.tolist()])]


def _ends_in(folder: Path) -> IntArray | None:
    """Return where each image ends, (n,) bytes; None where the images are not there, or not whole."""
    try:
        ends = read_array(folder / _ENDS)
        whole = (folder / _DONE).is_file() and (folder / _IMAGES).stat().st_size == (ends[-1] if len(ends) else 0)
    except (OSError, DamagedError):
        return None
    return ends if whole else None


def _write(base: Path, folder: Path, origin: dict[str, str], images: Iterable[bytes]) -> IntArray:
    """Write all images into `folder`, as a whole or not at all; return where each ends.

    Images of an earlier state of the same go.
    """
    partial = Path(tempfile.mkdtemp(dir=base, prefix=f".{folder.name}.", suffix=PARTIAL))
    try:
        with open(partial / _IMAGES, "wb", buffering=_BUFFER) as file:
            ends = np.cumsum(np.fromiter((file.write(image) for image in images), np.int64))
        with open(partial / _ENDS, "wb") as file:
            save_array(file, ends)
        (partial / _DONE).write_text(json.dumps({**origin, "n_images": len(ends)}), encoding="utf-8")
        # datasets in memory may share a name, and another run may be reading the other one
        for other in base.iterdir() if os.path.exists(origin["location"]) else ():
            if not other.name.startswith(".") and _origin_of(other) == origin:
                shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ends


def _origin_of(folder: Path) -> dict[str, str] | None:
    try:
        written = parsed(read_text(folder / _DONE))
        return {name: written[name] for name in ("location", "part")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
