"""Encoded images inside another file -> files in the cache, which are decoded as any others."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import filelock

from cvcoteach._files import PARTIAL, check_regular, digest
from cvcoteach._validation import InputError
from cvcoteach.data.cache_folder import CACHE_VARIABLE, cache_folder
from cvcoteach.data.sources.source import Choices

_IN_FOLDER = 1000
"""Files in a folder."""
_DONE = "unpacked.json"


def stamp_of(files: Iterable[Path]) -> str:
    """Return what tells whether files have changed: their names, sizes and times. Raises InputError for a pipe."""
    stats = [(file, file.stat()) for file in files]
    for file, _ in stats:
        check_regular(file)
    return digest(*[f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats])


def unpack(
    location: Path, stamp: str, images: Callable[[], Iterable[bytes]], choices: Choices, part: str = ""
) -> Sequence[str]:
    """Return a file for each of the encoded images, written into the cache unless they lie there already.

    Args:
        location: the file or folder that holds them, for the name of the folder.
        stamp: what tells whether its content has changed; see `stamp_of`.
        images: called for the images, in order, where they are not in the cache.
        choices: where the cache is.
        part: which images of the location these are, such as a split and a column; those of other parts stay.

    Raises:
        InputError: where the cache cannot be written.
    """
    base = cache_folder(choices.cache_dir) / "unpacked"
    folder = base / f"{digest(str(location), part, stamp)[:24]}"
    try:
        base.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(base / f".{folder.name}.lock"):
            n = _unpacked(folder)
            if n is None:
                for left in base.glob(f".{folder.name}.*{PARTIAL}"):  # of calls that were killed
                    shutil.rmtree(left, ignore_errors=True)
                n = _write(base, folder, {"location": str(location), "part": part}, images())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise InputError(
            f"the images inside {location} cannot be unpacked into {base} "
            f"({'the disk is full' if full else error.strerror or error}); {CACHE_VARIABLE} names another folder."
        ) from error
    return [str(folder / _place(row)) for row in range(n)]


def _unpacked(folder: Path) -> int | None:
    """Return how many images a folder holds; None where it is absent, or damaged: it is made again then."""
    try:
        done = json.loads((folder / _DONE).read_text(encoding="utf-8"))
        n, n_bytes = done["n_images"], done["n_bytes"]
        sizes = [(folder / _place(row)).stat().st_size for row in range(n)]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return len(sizes) if sum(sizes) == n_bytes else None


def _write(base: Path, folder: Path, origin: dict[str, str], images: Iterable[bytes]) -> int:
    """Write all images into `folder`, as a whole or not at all; images of an earlier state of the same go.

    Returns how many there are.
    """
    partial = Path(tempfile.mkdtemp(dir=base, prefix=f".{folder.name}.", suffix=PARTIAL))
    try:
        n = n_bytes = 0
        for row, image in enumerate(images):
            if row % _IN_FOLDER == 0:
                (partial / _place(row)).parent.mkdir()
            (partial / _place(row)).write_bytes(image)
            n, n_bytes = row + 1, n_bytes + len(image)
        (partial / _DONE).write_text(json.dumps({**origin, "n_images": n, "n_bytes": n_bytes}), encoding="utf-8")
        # datasets in memory may share a name, and another run may be reading the other one
        for other in base.iterdir() if os.path.exists(origin["location"]) else ():
            if not other.name.startswith(".") and _origin_of(other) == origin:
                shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        return n
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _origin_of(folder: Path) -> dict[str, str] | None:
    try:
        written = json.loads((folder / _DONE).read_text(encoding="utf-8"))
        return {name: written[name] for name in ("location", "part")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _place(row: int) -> str:
    return os.path.join(f"{row // _IN_FOLDER:06}", f"{row:09}")
