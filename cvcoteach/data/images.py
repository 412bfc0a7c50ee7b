"""Images decoded once: a memory-mapped array on disk, reused by all folds, rounds and later runs."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvcoteach._files import FULL, in_bytes
from cvcoteach._validation import BoolArray, InputError, IntArray, check_at_least
from cvcoteach.data.arrays import decode_array
from cvcoteach.data.cache import Build, Decoded, SourceCache, content_digest, key_of, path_hashes
from cvcoteach.data.cache_folder import CACHE_VARIABLE, cache_folder
from cvcoteach.data.decode import (
    MAX_PIXELS,
    RECORD,
    Decoding,
    Done,
    Misfit,
    Records,
    Target,
    decode_chunk,
    decode_each,
    decode_files,
    digest_chunk,
    open_image,
    pixel_limit,
    stat_files,
)
from cvcoteach.data.levels import ORDINARY, Levels, Pixels, levels_of, merged
from cvcoteach.data.parts import opened
from cvcoteach.data.sources import Source, spread
from cvcoteach.data.workers import cpu_count, in_processes

LARGEST_SMALL_IMAGE = 64  # px; a small network sees no more of a photograph than this

LARGEST_SIZE = 4096
"""Pixels a side that images may be decoded to."""

Progress = Callable[[int, int], None]
"""Called with the number of images done and the number of all."""

InTasks = Callable[[Callable[..., Any], Iterable[tuple[object, ...]], int], Generator[Any]]
"""Function, tasks, number of workers -> function(*task) of each, in any order; in this process if the number is 1."""

_PROBED = 64
"""Images decoded first, to tell grey from colour, the range of values, and how long the rest will take."""
_WORTH_WORKERS = 5.0
"""Seconds of decoding below which worker processes cost more than they save."""
_CHUNK_BYTES = 32 * 2**20
_CHUNK_SECONDS = 0.5
_SURELY_LEFT = 3600.0
"""Seconds after which nobody is still writing a note of the cache."""
_STAT_THREADS = 4
"""Threads help on remote file systems; on local ones they make no difference."""


@dataclass(frozen=True, eq=False)
class Images:
    """All images of a source, of one size."""

    pixels: Pixels
    """(n, size, size, C) uint8, C = 1 or 3; on disk, memory-mapped, for files; zeros where unreadable."""
    readable: BoolArray
    """(n,)"""
    errors: dict[int, str]
    """Row -> why its image cannot be read."""
    content_key: str
    """Hex digest of what all images hold, in order, with size and channels: another image, another key."""
    content: str
    """Hex digest of what all images hold, in order, whatever their size here."""
    levels: Levels = ORDINARY
    """Black and white of what is not ordinary bytes."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how pixels were read, and about images that all look the same."""
        notes = [self.levels.note] if self.levels.note else []
        rows = np.flatnonzero(self.readable)
        rows = rows[spread(len(rows), _PROBED)]
        sample = self.pixels[rows]
        if len(rows) > 1 and (sample == sample[:1]).all():
            colour = f", of one colour ({_colour(sample[0])})" if (sample[0] == sample[0, :1, :1]).all() else ""
            notes.append(
                f"all of {len(rows):,} images looked at are the same{colour}; nothing can be learned from them."
            )
        return tuple(notes)


def load_images(
    source: Source,
    size: int,
    *,
    channels: int | None = None,
    cache_dir: Path | None = None,
    levels: Levels | None = None,
    max_pixels: int | None = None,
    workers: int | None = None,
    in_tasks: InTasks = in_processes,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Images:
    """Return the images of a source, squashed to size×size (see `to_square`), from the cache where they are in it.

    Only files that are new or changed (size, times, inode) are read, only content not seen before is decoded.

    Args:
        source: where they are.
        size: pixels a side.
        channels: 1 or 3; None takes 1 if all images are grey, else 3.
        cache_dir: else the environment's CVCOTEACH_CACHE_DIR, else the user's cache folder.
        levels: black and white, of the images that a model was trained on; None: by the range of the source.
        max_pixels: of the largest image that is read; None: `MAX_PIXELS`.
        workers: processes that decode; None takes as many as there are CPUs for this process, or none for few images.
        in_tasks: runs the pieces of the work, elsewhere if there are many.
        progress: called with the number of images done and of all.
        note: called with a sentence where another process decodes the same images, which is waited for.

    Raises:
        InputError: where more than half of the images cannot be read, and where the cache has no room.
    """
    check_at_least("size", size, 1)
    if size > LARGEST_SIZE:
        raise InputError(f"the image size is {size:,} pixels a side; it takes up to {LARGEST_SIZE:,}.")
    if channels not in (None, 1, 3):
        raise InputError(f"channels is {channels}; it takes 1 (grey), 3 (colour) or None (as the images are).")
    if workers is not None:
        check_at_least("workers", workers, 1)
    if max_pixels is not None:
        check_at_least("max_pixels", max_pixels, 1)
    if not len(source):
        raise InputError(f"no image of {source.location} was selected; it takes at least one.")
    if source.files is None:
        return _load_array(source, size, channels, levels)
    folder = cache_folder(cache_dir)
    try:
        wanted = Wanted(size, channels, levels, max_pixels or MAX_PIXELS)
        decoded, content = _Loader(source, source.files, wanted, folder, workers, in_tasks, progress, note).load()
    except OSError as error:
        raise InputError(
            f"the cache folder {folder} cannot be used ({error.strerror or error}); {CACHE_VARIABLE} names another one."
        ) from error
    readable, key = decoded.records["readable"], wanted.key(content)
    return _checked(Images(decoded.pixels, readable, decoded.errors, key, content, decoded.levels), source)


def natural_size(source: Source, sample: int = 256) -> int:
    """Return the median short side, in pixels, of up to `sample` images evenly spread; only headers are read.

    Raises:
        InputError: where none of them can be read.
    """
    if source.array is not None:
        return min(source.array.shape[1:3])
    assert source.files is not None
    sides, rows = [], spread(len(source), sample).tolist()
    with warnings.catch_warnings(), pixel_limit(sys.maxsize):
        warnings.simplefilter("ignore")
        for row in rows:
            try:
                with opened(source.files[row]) as file, open_image(file) as image:
                    sides.append(min(image.size))
            except Exception:  # a broken file makes a decoder raise anything; loading says what
                continue
    if not sides:
        reason = decode_files([source.files[rows[0]]], 1, 1, False)[2].get(0, "its size is not known")
        raise InputError(
            f"none of {len(rows):,} images looked at in {source.location} can be read, the first is "
            f"{source.paths[rows[0]]}: {reason}."
        )
    return int(np.median(sides))


def size_for(source: Source, own: int | None) -> int:
    """Return pixels a side: what the network was made for, else the images' own, 8 to `LARGEST_SMALL_IMAGE`."""
    return own or max(8, min(natural_size(source), LARGEST_SMALL_IMAGE))


def _checked(images: Images, source: Source) -> Images:
    n_unreadable = int((~images.readable).sum())
    if 2 * n_unreadable > len(source):
        first = int(np.argmin(images.readable))
        raise InputError(
            f"{n_unreadable:,} of {len(source):,} images in {source.location} cannot be read, "
            f"the first is {source.paths[first]}: {images.errors[first]}."
        )
    return images


# -- files --


@dataclass(frozen=True)
class Wanted:
    """What the images of a source are decoded to."""

    size: int
    """Pixels a side."""
    channels: int | None
    """1, 3, or None for as many as needed."""
    levels: Levels | None = None
    """None: by the range of the source."""
    max_pixels: int = MAX_PIXELS

    def key(self, content: str) -> str:
        """Return the name of a content decoded so."""
        more = [] if self.levels is None else [str(self.levels.as_json())]
        more += [] if self.max_pixels == MAX_PIXELS else [f"up to {self.max_pixels}"]
        return key_of(content, self.size, self.channels, " ".join(more))


@dataclass(frozen=True, eq=False)
class _Loader:
    """One call of `load_images` for files."""

    source: Source
    files: tuple[str, ...]
    wanted: Wanted
    folder: Path
    workers: int | None
    in_tasks: InTasks
    progress: Progress | None
    note: Callable[[str], None] | None

    def load(self) -> tuple[Decoded, str]:
        """Return the array of the present content and the digest of that."""
        cache = SourceCache(self.folder, self.source.location, self.wanted.size, self.wanted.channels)
        known = cache.has_seen()
        records = self._records(stat=known)
        if cache.recall(records).all():
            content = content_digest(records)
            if decoded := cache.open(self.wanted.key(content)):
                cache.tidy(_SURELY_LEFT)
                return decoded, content
        with cache.lock(self.note):
            cache.tidy()
            if cache.has_seen() != known:
                records = self._records(stat=True)
            unknown = np.flatnonzero(~cache.recall(records))  # once more: another process may have built meanwhile
            older = [decoded for key in cache.history() if (decoded := cache.open(key))]
            if older:
                for done in self._in_chunks(digest_chunk, unknown, 1e-4):
                    done.records["path"] = records["path"][done.rows]
                    records[done.rows] = done.records
                content = content_digest(records)
                if decoded := cache.open(self.wanted.key(content)):
                    cache.remember(records, self.wanted.key(content))
                    return decoded, content
            return self._build(cache, records, older)

    def _records(self, *, stat: bool) -> Records:
        """Return what is known of the files before they are read: names, and where it is asked for their stat."""
        records = np.zeros(len(self.files), RECORD)
        records["path"] = path_hashes(self.source.paths)
        if not stat:  # nothing to compare them with; decoding looks at them anyway
            return records
        step = 4096
        with ThreadPoolExecutor(_STAT_THREADS) as pool:
            parts = pool.map(
                stat_files, [self.files[start : start + step] for start in range(0, len(self.files), step)]
            )
            stats = np.concatenate([np.array(part, np.int64) for part in parts])
        for column, field in enumerate(("size", "mtime", "ctime", "inode")):
            records[field] = stats[:, column]
        return records

    def _build(self, cache: SourceCache, records: Records, older: Sequence[Decoded]) -> tuple[Decoded, str]:
        wanted = self.wanted
        probed = spread(len(self.files), _PROBED).tolist()
        started = time.perf_counter()
        probe = Decoding(wanted.size, 3, levels=wanted.levels, max_pixels=wanted.max_pixels)
        pixels, _, _, _, found = decode_each([self.files[row] for row in probed], probe)
        seconds = (time.perf_counter() - started) / len(probed)
        grey = wanted.channels is None and bool((pixels == pixels[..., :1]).all())
        while True:
            decoding = Decoding(
                wanted.size,
                wanted.channels or (1 if grey else 3),
                only_grey=grey,
                levels=wanted.levels or levels_of(found),
                may_clip=wanted.levels is not None,
                max_pixels=wanted.max_pixels,
            )
            made = self._decode(cache, records, older, decoding, seconds)
            if not isinstance(made, Misfit):
                return made
            # an image unlike all that were probed is rare: it may cost another start
            grey = grey and not made.coloured
            found = merged([found, made.found])

    def _decode(
        self, cache: SourceCache, records: Records, older: Sequence[Decoded], decoding: Decoding, seconds: float
    ) -> tuple[Decoded, str] | Misfit:
        """Return the array and the digest of its content; or why the decoding does not fit."""
        assert decoding.levels is not None
        build = cache.build(records, decoding.size, decoding.channels, decoding.levels)
        errors: dict[int, str] = {}
        misfit = None
        try:
            build.begin()
            self._check_room(build)
            for known in older:
                build.copy(known)
            todo = np.flatnonzero(~build.finished)
            n_done = len(self.files) - len(todo)
            target = Target(build.pixel_file, build.offset)
            with closing(self._in_chunks(decode_chunk, todo, seconds, target, decoding)) as chunks:
                for done in chunks:
                    if done.misfit is not None:
                        misfit = done.misfit
                        break
                    build.add(done)
                    errors.update(done.errors)
                    n_done += len(done.rows)
                    if self.progress is not None:
                        self.progress(n_done, len(self.files))
            if misfit is not None:  # only once no worker writes into it any more
                build.discard()
                return misfit
            content = content_digest(build.records)
            key = self.wanted.key(content)
            build.flush()
            cache.remember(build.records, key)
            if cache.open(key) is None:
                build.publish(cache.arrays / key, errors)
            else:  # of another source with the same images
                build.discard()
            cache.sweep()
        except OSError as error:
            if error.errno not in FULL:
                raise
            build.discard()
            raise self._no_room(build) from error
        except BaseException:  # stopped by hand, most likely: the next call goes on from here
            build.flush()
            raise
        decoded = cache.open(key)
        if decoded is None:
            raise OSError(errno.ENOENT, "an array vanished while it was made")
        return decoded, content

    def _in_chunks(
        self, function: Callable[..., Done], rows: IntArray, seconds: float, *args: object
    ) -> Generator[Done]:
        """Yield `function` of all `rows`, in this process or several; a row takes about `seconds`."""
        step = int(np.clip(_CHUNK_SECONDS / seconds, 1, min(512, max(1, _CHUNK_BYTES // self.wanted.size**2 // 3))))
        tasks = [
            ([self.files[row] for row in rows[start : start + step].tolist()], rows[start : start + step], *args)
            for start in range(0, len(rows), step)
        ]
        few = seconds * len(rows) < _WORTH_WORKERS
        workers = min(len(tasks), self.workers or (1 if few else cpu_count()))
        return self.in_tasks(function, tasks, max(1, workers))

    def _check_room(self, build: Build) -> None:
        if shutil.disk_usage(build.folder).free < build.bytes_to_come:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _no_room(self, build: Build) -> InputError:
        free = shutil.disk_usage(self.folder).free
        shape = "×".join(map(str, build.shape[1:]))
        return InputError(
            f"{self.folder} has {in_bytes(free)} free, but {len(self.files):,} images of {shape} need "
            f"{in_bytes(build.bytes_to_come)}; make room, take a smaller size, or name another folder "
            f"in {CACHE_VARIABLE}."
        )


# -- arrays --


def _load_array(source: Source, size: int, channels: int | None, levels: Levels | None) -> Images:
    assert source.array is not None
    pixels, content, found = decode_array(source.array, size, channels, levels)
    key = Wanted(size, channels, levels).key(content)
    return Images(pixels, np.ones(len(pixels), np.bool_), {}, key, content, found)


def _colour(image: Pixels) -> str:
    return " ".join(map(str, image[0, 0].tolist()))
