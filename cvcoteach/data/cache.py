"""The cache folder: decoded arrays by content, and for each source what its files held when last seen.

    arrays/KEY/          pixels.npy, records.npy, about.json: whole and never changed, or not there
    sources/SOURCE/      index.npy (each file's stat -> content digest), history.json (its arrays, newest first), used
    sources/SOURCE/building/   an array in the making, where a killed build goes on

Nothing here is worth more than the time to make it again: the folder may be deleted at any time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._files import (
    DamagedError,
    check_regular,
    checksum_of,
    locked,
    open_regular,
    read_array,
    read_text,
    save_array,
    sweep_partials,
    sync,
    written_whole,
)
from cvcoteach._json import parsed
from cvcoteach._validation import BoolArray, IntArray
from cvcoteach.data.decode import RECORD, Done, Records, write_rows
from cvcoteach.data.levels import Levels, Pixels

VERSION = 2
"""Version of the decoder and of the files; nothing written by another version is found."""

_STAT = ("size", "mtime", "ctime", "inode")
_KEPT_ARRAYS = 2
"""Arrays kept per source: the newest, and the one before the last change, which a run may return to."""
_FORGOTTEN_AFTER = 60 * 86_400
"""Seconds without use after which a source is removed."""
_FLUSH_EVERY = 10.0
"""Seconds of work that a power cut may cost at most."""
_COPY_BYTES = 64 * 2**20


class Decoded(NamedTuple):
    """A decoded array in the cache."""

    pixels: Pixels
    """(n, size, size, C), memory-mapped, read-only."""
    records: Records
    """(n,)"""
    errors: dict[int, str]
    """Row -> why its image cannot be read."""
    levels: Levels
    """Which values became black and white."""


def content_digest(records: Records) -> str:
    """Return the name of what these files hold, in this order; 32 hex digits."""
    return hashlib.blake2b(np.ascontiguousarray(records["digest"]).data, digest_size=16).hexdigest()


def key_of(content: str, size: int, channels: int | None, more: str = "") -> str:
    """Return the name of a content decoded at this size, 32 hex digits.

    Args:
        content: its digest.
        size: pixels a side.
        channels: 1, 3, or None for as many as needed.
        more: what else decides the pixels, where it is not as usual.
    """
    key = f"{VERSION} {size} {channels or 'auto'} {content} {more}"
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def path_hashes(paths: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each name, (n,), the same in every process."""
    names = np.array([path.encode("utf-8", "surrogateescape") for path in paths], dtype=object)
    return pd.util.hash_array(names, categorize=False)


def find(known: npt.NDArray[np.uint64], wanted: npt.NDArray[np.uint64]) -> IntArray:
    """Return the position in `known` (m,) of each of `wanted` (n,); -1 where it is absent."""
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known, wanted, sorter=order)
    rows = order[np.minimum(place, len(known) - 1)]
    return np.where(known[rows] == wanted, rows, -1)


def same_stat(records: Records, others: Records) -> BoolArray:
    """Return (n,) whether path, size, times and inode are equal, of a file that exists."""
    same = (records["path"] == others["path"]) & (records["size"] >= 0)
    for field in _STAT:
        same &= records[field] == others[field]
    return same


class SourceCache:
    """The part of the cache that belongs to one source at one size."""

    def __init__(self, folder: Path, location: Path, size: int, channels: int | None) -> None:
        """Keep it in `folder`."""
        name = f"{VERSION} {size} {channels or 'auto'} {location}".encode("utf-8", "surrogateescape")
        self.arrays = folder / "arrays"
        self.home = folder / "sources" / hashlib.blake2b(name, digest_size=16).hexdigest()

    def lock(self, note: Callable[[str], None] | None = None) -> AbstractContextManager[None]:
        """Return the lock of the one process that builds; `note` is told of another one that is waited for."""
        self.arrays.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "used").touch()
        return locked(self.home / "lock", note)

    def tidy(self, older_than: float = 0.0) -> None:
        """Remove what writes that were killed left behind: with the lock all of it, without it what is old, seconds."""
        sweep_partials(self.home, older_than=older_than)

    def has_seen(self) -> bool:
        """Return whether files of this source were seen before, or are being decoded."""
        return (self.home / "index.npy").exists() or (self.home / "building").exists()

    def recall(self, records: Records) -> BoolArray:
        """Fill in the digests of files unchanged since last seen; (n,) whether they are."""
        try:
            index = read_array(self.home / "index.npy")
        except (OSError, DamagedError):
            return np.zeros(len(records), np.bool_)
        if index.dtype != RECORD or not len(index):
            return np.zeros(len(records), np.bool_)
        rows = find(index["path"], records["path"])
        known = (rows >= 0) & same_stat(records, index[rows])
        records["digest"][known] = index["digest"][rows[known]]
        return known

    def remember(self, records: Records, key: str) -> None:
        """Record what the files hold now, and that array KEY is theirs."""
        with written_whole(self.home / "index.npy") as file:
            save_array(file, records)
        history = [key, *(other for other in self.history() if other != key)][:_KEPT_ARRAYS]
        with written_whole(self.home / "history.json") as file:
            file.write(json.dumps(history).encode())

    def history(self) -> list[str]:
        """Return the keys of this source's arrays, newest first; some may be gone."""
        return _read_history(self.home / "history.json")

    def open(self, key: str) -> Decoded | None:
        """Return array KEY, or None where there is none that is whole; what is damaged of it is removed."""
        folder = self.arrays / key
        decoded = _opened(folder)
        if decoded is None:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):
            (self.home / "used").touch()
        return decoded

    def build(self, records: Records, size: int, channels: int, levels: Levels) -> Build:
        """Return an empty array for these files, or one that a killed build left, with what is still right of it."""
        return Build(self.home / "building", records, (size, size, channels), levels)

    def sweep(self) -> None:
        """Remove sources long unused, and arrays that no source needs."""
        # arrays first: one that is listed had its name written into a history before it came to be
        arrays = [entry.name for entry in os.scandir(self.arrays)]
        needed: set[str] = set()
        for entry in os.scandir(self.home.parent):
            source = Path(entry.path)
            with suppress(OSError):
                # its own is in use, whatever a clock says that was set meanwhile
                if source != self.home and (source / "used").stat().st_mtime < time.time() - _FORGOTTEN_AFTER:
                    shutil.rmtree(source, ignore_errors=True)
            needed.update(_read_history(source / "history.json"))
        for name in arrays:
            if name not in needed:
                shutil.rmtree(self.arrays / name, ignore_errors=True)


class Build:
    """An unfinished array: a file of pixels, and a log of the rows in it. Call `begin` first."""

    LOG = np.dtype([("row", "<i8"), ("record", RECORD)])

    def __init__(self, folder: Path, records: Records, image_shape: tuple[int, int, int], levels: Levels) -> None:
        """image_shape: (size, size, channels)."""
        self.folder = folder
        self.levels = levels
        self.pixel_file = folder / "pixels.npy"
        self.records = records.copy()
        self.shape = (len(records), *image_shape)
        self.finished = np.zeros(len(records), np.bool_)
        self.offset = 0
        self._waiting: list[Records] = []
        self._flushed = time.monotonic()

    def begin(self) -> None:
        """Resume a killed build of the same files, or start."""
        names = hashlib.blake2b(np.ascontiguousarray(self.records["path"]).data, digest_size=16).hexdigest()
        plan = {"version": VERSION, "shape": list(self.shape), "names": names, "levels": self.levels.as_json()}
        if not self._resume(plan):
            self._start(plan)
        with open(self.pixel_file, "rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            self.offset = file.tell()

    @property
    def row_bytes(self) -> int:
        """Bytes per image."""
        return int(np.prod(self.shape[1:]))

    @property
    def bytes_to_come(self) -> int:
        """Bytes of the images still to be decoded."""
        return int((~self.finished).sum()) * self.row_bytes

    def _resume(self, plan: dict[str, Any]) -> bool:
        if self.folder.is_symlink() or any(file.is_symlink() for file in self.folder.glob("*")):
            return False  # writing there would change what lies elsewhere
        try:
            if parsed(read_text(self.folder / "plan.json")) != plan:
                return False
            check_regular(self.pixel_file)
            pixels = np.load(self.pixel_file, mmap_mode="r", allow_pickle=False)
            if pixels.shape != self.shape or pixels.dtype != np.uint8:
                return False
            with open_regular(self.folder / "log") as file:
                log = file.read()
        except (OSError, ValueError, EOFError):
            return False
        entries = np.frombuffer(log[: len(log) // self.LOG.itemsize * self.LOG.itemsize], self.LOG)
        rows = entries["row"]
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self.records):
            return False
        right = same_stat(self.records[rows], entries["record"])
        self.records[rows[right]] = entries["record"][right]
        self.finished[rows[right]] = True
        return True

    def _start(self, plan: dict[str, Any]) -> None:
        if self.folder.is_symlink():
            self.folder.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        np.lib.format.open_memmap(self.pixel_file, mode="w+", dtype=np.uint8, shape=self.shape)
        (self.folder / "log").touch()
        (self.folder / "plan.json").write_text(json.dumps(plan), "utf-8")

    def add(self, done: Done) -> None:
        """Log rows whose pixels are written; a resumed build retries those that could not be read."""
        done.records["path"] = self.records["path"][done.rows]
        self.records[done.rows] = done.records
        self.finished[done.rows] = True
        readable = done.records["readable"]
        entries = np.empty(int(readable.sum()), self.LOG)
        entries["row"], entries["record"] = done.rows[readable], done.records[readable]
        self._waiting.append(entries)
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()

    def copy(self, older: Decoded) -> None:
        """Take over the rows whose content an older array holds."""
        if older.pixels.shape[1:] != self.shape[1:] or older.levels != self.levels:
            return
        wanted = np.flatnonzero(~self.finished & self.records["digest"].any(axis=1))
        found = find(older.records["digest"][:, 0], self.records["digest"][wanted, 0])
        equal = (older.records["digest"][found] == self.records["digest"][wanted]).all(axis=1)
        here = (found >= 0) & equal & older.records["readable"][found]
        rows, origins = wanted[here], found[here]
        step = max(1, _COPY_BYTES // self.row_bytes)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            write_rows(self.pixel_file, self.offset, rows[part], older.pixels[origins[part]])
            records = self.records[rows[part]]
            records["readable"] = True
            self.add(Done(rows[part], records, {}))

    def flush(self) -> None:
        """Make sure of what is finished: pixels first, then the log that says they are there."""
        if self._waiting:
            with open(self.pixel_file, "r+b") as file:
                os.fsync(file.fileno())
            with open(self.folder / "log", "ab") as file:
                file.write(np.concatenate(self._waiting).tobytes())
                file.flush()
                os.fsync(file.fileno())
            self._waiting.clear()
        self._flushed = time.monotonic()

    def publish(self, folder: Path, errors: dict[int, str]) -> None:
        """Move the finished array into its place, atomically; leave the same one there that another process made."""
        self.flush()
        with open(self.folder / "records.npy", "wb") as file:
            save_array(file, self.records)
        about = {"errors": errors, "levels": self.levels.as_json(), "checksum": checksum_of(self.pixel_file)}
        (self.folder / "about.json").write_text(json.dumps(about), "utf-8")
        for name in ("records.npy", "about.json"):
            sync(self.folder / name)
        # from here on a killed build starts over: its plan goes first
        for name in ("plan.json", "log"):
            (self.folder / name).unlink(missing_ok=True)
        while True:
            try:
                self.folder.rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if _opened(folder) is not None:
                    return self.discard()
                shutil.rmtree(folder, ignore_errors=True)
            else:
                return sync(folder.parent)

    def discard(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)


_verified: dict[Path, tuple[int, ...]] = {}
"""Files whose checksum was right in this process, and their inode, length and time then."""


def _opened(folder: Path) -> Decoded | None:
    """Return the array in a folder; None where it is not there or not whole."""
    file = folder / "pixels.npy"
    try:
        check_regular(file)
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
        records = read_array(folder / "records.npy")
        about = parsed(read_text(folder / "about.json"))
        errors = {int(row): str(reason) for row, reason in about["errors"].items()}
        levels = Levels.from_json(about["levels"])
        if records.dtype != RECORD or records.shape != pixels.shape[:1]:
            return None
        status = file.stat()
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if _verified.get(file) != seen:
            if checksum_of(file) != about["checksum"]:
                return None
            _verified[file] = seen
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):  # of another hand, or a failing disk
        return None
    return Decoded(pixels, records, errors, levels)


def _read_history(file: Path) -> list[str]:
    try:
        return list(map(str, parsed(read_text(file))))
    except (OSError, ValueError):
        return []
