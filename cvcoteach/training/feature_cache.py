"""Features in the cache folder: those that are whole, and those in the making, where a stopped computation resumes.

    features/KEY.npy, KEY.json             whole: the array, and its shape, checksum and family
    features/KEY.images                    which image each row is of, for datasets that share images
    features/KEY.building, KEY.done.json   in the making: rows so far, and how many of them are surely on the disk

Nothing here is worth more than the time to make it again: the folder may be deleted at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import filelock
import numpy as np

from cvcoteach._files import (
    check_regular,
    checksum_of,
    in_bytes,
    open_regular,
    read_array,
    read_text,
    sweep_partials,
    sync,
    write_array,
    written_whole,
)
from cvcoteach._json import parsed
from cvcoteach._validation import InputError
from cvcoteach.data.cache_folder import CACHE_VARIABLE
from cvcoteach.training.known_features import Digests, Features

_FORGOTTEN_AFTER = 60 * 86_400
"""Seconds without use after which features are removed."""
_OTHERS_TAKE = 5.0
"""Seconds in which another process that has moved its features into their place writes their record."""
_SAVE_EVERY = 10.0
"""Seconds of computing that a power cut may cost."""


class FeatureFile:
    """The features of one dataset by one network."""

    def __init__(self, home: Path, key: str, family: str = "") -> None:
        """home: the folder of all features. key: names these. family: what makes features of an image the same."""
        self._home, self._family = home, family
        self._images = home / f"{key}.images"
        self._file, self._record = home / f"{key}.npy", home / f"{key}.json"
        self._building, self._done = home / f"{key}.building", home / f"{key}.done.json"
        self.lock = home / f"{key}.lock"

    def open(self) -> Features | None:
        """Return the features (n, d), memory-mapped; None where there are none that are whole."""
        try:
            record = parsed(read_text(self._record))
            check_regular(self._file)
            features = np.load(self._file, mmap_mode="r", allow_pickle=False)
            if list(features.shape) != record["shape"] or checksum_of(self._file) != record["checksum"]:
                return None
            os.utime(self._record)
            self._done.unlink(missing_ok=True)  # of a call that was killed before it could
        except (OSError, ValueError, EOFError, KeyError, TypeError):  # of another hand, or a failing disk
            return None
        return features

    def relatives(self) -> Iterator[tuple[Digests, Features]]:
        """Yield other whole features of the family, the latest used first, with the digests of their images."""
        with suppress(OSError):  # what another process removes meanwhile
            records = [(file.stat().st_mtime, file) for file in self._home.glob("*.json")]
            for _, file in sorted(records, reverse=True):
                with suppress(OSError, ValueError, TypeError, AttributeError):
                    if file == self._record or parsed(read_text(file)).get("family") != self._family:
                        continue
                    other = FeatureFile(self._home, file.stem, self._family)
                    digests, features = read_array(other._images), other.open()
                    if features is not None:
                        yield digests, features

    def begin(self, shape: tuple[int, int]) -> Building:
        """Go on with rows in the making, or begin; (n, d). Raises InputError where the disk has too little room."""
        sweep_partials(self._home, self._file.stem)  # of calls that were killed
        row, n = 2 * shape[1], shape[0]
        done, offset = self._resumed(shape)
        free = shutil.disk_usage(self._home).free
        if free < (needed := (n - done) * row):
            raise InputError(
                f"{self._home} has {in_bytes(free)} free, but {shape[1]:,} features of {n - done:,} images need "
                f"{in_bytes(needed)}; make room, or name another folder in {CACHE_VARIABLE}, and repeat the same call."
            )
        if not done:
            self._building.unlink(missing_ok=True)
            with open(self._building, "xb") as file:
                header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                offset = file.tell()
        os.truncate(self._building, offset + done * row)
        return Building(self._building, self._done, shape, done)

    def width(self) -> int | None:
        """Return d of the rows in the making; None where there are none."""
        try:
            return int(parsed(read_text(self._done))["shape"][1])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def _resumed(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return how many rows are surely there, and the bytes before the first."""
        try:
            state = parsed(read_text(self._done))
            if self._building.is_symlink():  # writing there would change what lies elsewhere
                self._building.unlink()
            with open_regular(self._building) as file:
                np.lib.format.read_magic(file)
                there, _, dtype = np.lib.format.read_array_header_1_0(file)
                offset = file.tell()
            done, length = int(state["done"]), self._building.stat().st_size
        except (OSError, ValueError, EOFError, KeyError, TypeError):
            return 0, 0
        whole = there == shape and dtype == np.float16 and 0 <= done <= shape[0]
        return (done, offset) if whole and length >= offset + done * 2 * shape[1] else (0, 0)

    def publish(self, shape: tuple[int, int], images: Digests | None = None) -> None:
        """Put the finished rows (n, d) of images with these digests in their place, and remove what is long unused.

        The same rows that another process has put there meanwhile, where the folder's file system knows no locks,
        stay. Raises OSError.
        """
        try:
            record: dict[str, Any] = {"shape": list(shape), "checksum": checksum_of(self._building)}
            if images is not None:
                write_array(self._images, images)
                record["family"] = self._family
            os.replace(self._building, self._file)
        except FileNotFoundError:
            if not self._published_elsewhere():
                raise
            return
        with written_whole(self._record) as file:  # last: without it, there is nothing
            file.write(json.dumps(record).encode())
        self._done.unlink(missing_ok=True)
        sync(self._home)
        self._sweep()

    def _published_elsewhere(self) -> bool:
        """Return whether whole features come to be there, of another process that is about to write their record."""
        until = time.monotonic() + _OTHERS_TAKE
        while self.open() is None:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def _sweep(self) -> None:
        """Remove features long unused, those of another process at work excepted."""
        latest = time.time() - _FORGOTTEN_AFTER
        names = {entry.name.partition(".")[0] for entry in os.scandir(self._home)}
        for name in names - {self._file.stem}:
            files = list(self._home.glob(f"{name}.*"))
            with suppress(OSError, filelock.Timeout):
                if max(file.stat().st_mtime for file in files) < latest:
                    with filelock.FileLock(self._home / f"{name}.lock", timeout=0):
                        for file in files:
                            file.unlink(missing_ok=True)


class Building:
    """Rows in the making, appended in order, from row `done` on; what is done at the end of the context is recorded."""

    def __init__(self, file: Path, record: Path, shape: tuple[int, int], done: int) -> None:
        """file: ends with row `done`. record: where to write how many rows are surely on the disk. shape: (n, d)."""
        self._record, self._shape, self.done = record, shape, done
        self._file = open(file, "ab", buffering=0)  # noqa: SIM115 (closed by __exit__)
        self._saved = time.monotonic()

    def add(self, features: Features) -> None:
        """Append rows (b, d). Raises OSError where the disk is full."""
        # not through a memory map: there a full disk is a killed process, here an OSError
        rest = memoryview(np.ascontiguousarray(features).data).cast("B")
        while rest:  # an unbuffered file may take less at once
            rest = rest[self._file.write(rest) :]
        self.done += len(features)
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file, suppress(OSError):  # on a full disk, the rows since the last record are computed again
            self._save()

    def _save(self) -> None:
        os.fsync(self._file.fileno())
        with written_whole(self._record) as file:
            file.write(json.dumps({"done": self.done, "shape": self._shape}).encode())
        self._saved = time.monotonic()
