"""Image files -> small squares of uint8, in chunks that worker processes take. No cache is known here."""

from __future__ import annotations

import hashlib
import io
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from cvcoteach._validation import IntArray
from cvcoteach.data.heif import is_heif, register
from cvcoteach.data.levels import Kind, Levels, Pixels, Range, levels_of, merged, range_of, to_unit
from cvcoteach.data.parts import Reader, statuses
from cvcoteach.data.pointers import stand_in

# what Pillow logs is said by the exception that follows; a program that wants its log still gets it
logging.getLogger("PIL").addHandler(logging.NullHandler())

RECORD = np.dtype(
    [
        ("path", "<u8"),  # hash of the name
        ("size", "<i8"),  # bytes
        ("mtime", "<i8"),  # nanoseconds; UNSETTLED where the file may still change unseen
        ("ctime", "<i8"),
        ("inode", "<i8"),
        ("digest", "<u8", (2,)),  # blake2b of the content, 128 bits; zeros where it could not be read
        ("readable", "?"),
    ]
)
"""Stat and content digest of a file, as last seen."""
Records = npt.NDArray[np.void]

UNSETTLED = -1
TICK = 2_000_000_000
"""Nanoseconds. File times are this coarse at worst (FAT): a second write within them may leave no trace."""

_DIGEST = 16
"""Bytes of a digest."""
_INODE = 2**63 - 1
"""Inodes are unsigned; the lower 63 bits distinguish files just as well."""

_DEEP_MODES = frozenset(["I", "F", "I;16", "I;16L", "I;16B", "I;16N"])
"""Modes of grey images with more than 8 bits."""


FORMATS = ("JPEG", "PNG", "AVIF", "BMP", "DIB", "GIF", "JPEG2000", "PPM", "TGA", "TIFF", "WEBP")
"""Of Pillow's formats, those that are read, the usual ones first; others it hands to programs of the system."""

MAX_PIXELS = 2**28
"""Pixels of the largest image that is read unless the user allows more: 1 GiB in memory, in colour."""
_LEAST_BYTES = 2**30
"""Memory that an image may always take, bytes."""
_PIXEL_BYTES = {"1": 2, "L": 1, "P": 5, "RGB": 4, "CMYK": 8, "YCbCr": 8, "LAB": 8, "HSV": 8}
"""Bytes per pixel that decoding takes at most, by the mode of an opaque image of 8 bits."""
_TRANSPARENT_BYTES, _DEEP_BYTES = 13, 24
"""The same for any image with transparency, and for one of more than 8 bits."""
_MAX_TEXT = 2**26
"""Bytes of text in a PNG, such as the prompt that made it, that are skipped without a complaint."""


@dataclass(frozen=True)
class Decoding:
    """How an image file is decoded."""

    size: int
    """Pixels a side."""
    channels: int
    """1 or 3."""
    only_grey: bool = False
    """Stop at the first image with colours, for which one channel is not enough."""
    levels: Levels | None = None
    """Black and white; None: by each image alone."""
    may_clip: bool = True
    """Clip what lies outside the levels; else stop at the first image that does."""
    max_pixels: int = MAX_PIXELS

    @property
    def max_bytes(self) -> int:
        """Memory that one image may take: 4 bytes for each allowed pixel, and 1 GiB always."""
        return max(_LEAST_BYTES, 4 * self.max_pixels)


class Target(NamedTuple):
    """Where decoded rows go: an array (n, size, size, channels) of uint8 in a file."""

    file: Path
    offset: int
    """Bytes before its first row."""


class Done(NamedTuple):
    """The outcome of a chunk."""

    rows: IntArray
    """(m,) rows of the source."""
    records: Records
    """(m,)"""
    errors: dict[int, str]
    """Row -> why its image cannot be read."""
    misfit: Misfit | None = None
    """Why the decoding does not fit these images; nothing was written."""


class Misfit(NamedTuple):
    """An image for which the decoding is too narrow."""

    coloured: bool
    """It has colours."""
    found: Mapping[Kind, Range]
    """Its values."""


class Decoded(NamedTuple):
    """Some files, decoded."""

    pixels: Pixels
    """(m, size, size, channels), zeros where unreadable."""
    records: Records
    """(m,)"""
    errors: dict[int, str]
    """Position -> why it cannot be read."""
    misfit: Misfit | None
    """The decoding does not fit; the pixels are not complete."""
    found: dict[Kind, Range]
    """The values of those whose levels were not given."""


def stat_files(files: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Return size, mtime, ctime and inode of each file; all -1 where there is no file."""
    return [(*status[:3], status.inode & _INODE if status.size >= 0 else -1) for status in statuses(list(files))]


def digest_chunk(files: Sequence[str], rows: IntArray) -> Done:
    """Hash the content of `files`, which are the `rows` of a source; nothing is decoded."""
    seen = _Seen(len(files))
    with Reader() as reader:
        for i, file in enumerate(files):
            try:
                seen.read(reader, file, i)
            except (OSError, ValueError):
                continue  # decoding meets it again, and says why
    return Done(rows, seen.records(), {})


def decode_chunk(files: Sequence[str], rows: IntArray, target: Target, decoding: Decoding) -> Done:
    """Decode `files`, which are the `rows` of a source, into those of the target; none if it misfits."""
    pixels, records, errors, misfit, _ = decode_each(files, decoding)
    if misfit is None:
        write_rows(target.file, target.offset, rows, pixels)
    return Done(rows, records, {int(rows[i]): reason for i, reason in errors.items()}, misfit)


def write_rows(pixel_file: str | Path, offset: int, rows: IntArray, pixels: Pixels) -> None:
    """Put `pixels` (m, H, W, C) at `rows` (m,), ascending, of the array that starts at byte `offset` of a file."""
    # not through a memory map: there a full disk is a killed process, here an OSError
    with open(pixel_file, "r+b", buffering=0) as file:
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            if not len(run):
                continue
            file.seek(offset + int(rows[run[0]]) * pixels[0].nbytes)
            rest = memoryview(pixels[run[0] : run[-1] + 1].data).cast("B")
            while rest:  # an unbuffered file may take less at once
                rest = rest[file.write(rest) :]


def decode_files(
    files: Sequence[str], size: int, channels: int, only_grey: bool, *, max_pixels: int = MAX_PIXELS
) -> tuple[Pixels, Records, dict[int, str], bool]:
    """Decode a few files, with levels by all of them together.

    Returns:
        Pixels (m, size, size, channels), zeros where unreadable; records (m,); reasons by position; whether an image
        that was to be grey is coloured.
    """
    decoding = Decoding(size, channels, only_grey, max_pixels=max_pixels)
    done = decode_each(files, decoding)
    levels = levels_of(done.found)
    if levels.ranges and done.misfit is None:
        done = decode_each(files, replace(decoding, levels=levels))
    return done.pixels, done.records, done.errors, done.misfit is not None


def decode_each(files: Sequence[str], decoding: Decoding) -> Decoded:
    """Decode files one after the other, until one does not fit the decoding."""
    pixels = np.zeros((len(files), decoding.size, decoding.size, decoding.channels), np.uint8)
    seen, readable = _Seen(len(files)), np.zeros(len(files), np.bool_)
    errors: dict[int, str] = {}
    misfit: Misfit | None = None
    ranges: list[Mapping[Kind, Range]] = []
    with warnings.catch_warnings(), pixel_limit(decoding.max_pixels), Reader() as reader:
        warnings.simplefilter("ignore")  # of a picture's oddities; what cannot be read is an exception
        for i, file in enumerate(files):
            try:
                image = _opened(seen.read(reader, file, i, decoding.max_bytes), decoding)
                found = _range_of(image, decoding)
                levels = decoding.levels
                if levels is None:
                    ranges.append(found)
                    levels = levels_of(found)
                square = _finish(image, decoding.size, levels)
                coloured = decoding.only_grey and not _is_grey(square)
                if coloured or not (decoding.may_clip or levels.hold(found)):
                    misfit = Misfit(coloured, found)
                    break
                pixels[i] = as_pixels(square, decoding.channels)
                readable[i] = True
            except Exception as error:  # a broken file makes a decoder raise anything at all
                errors[i] = reason(error)
    records = seen.records()
    records["readable"] = readable
    return Decoded(pixels, records, errors, misfit, merged(ranges))


@contextmanager
def pixel_limit(max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Let Pillow open images of up to `max_pixels`, and PNGs with much text; `check_pixels` says no to larger ones."""
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = max_pixels, _MAX_TEXT
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before


def to_square(data: bytes, size: int, levels: Levels | None = None) -> Image.Image:
    """Return an encoded image as size×size, mode L or RGB.

    The whole image is squashed, antialiased. Nothing is cropped away: the label may speak of what stands at the
    border, and a network that never saw it would call a right label wrong.

    First frame of animations; upright by EXIF; transparency on white; more than 8 bits by `levels`, else by its own.
    """
    decoding = Decoding(size, 3, levels=levels)
    image = _opened(data, decoding)
    return _finish(image, size, levels_of(_range_of(image, decoding)) if levels is None else levels)


def open_image(file: IO[bytes]) -> Image.Image:
    """Return an image of which no more than the head is read. Raises whatever Pillow does, and ValueError for HEIC."""
    head = file.read(64)
    file.seek(0)
    if not is_heif(head):
        return Image.open(file, formats=FORMATS)
    if not register():
        raise ValueError("it is HEIC, which takes the package pillow-heif: pip install 'cvcoteach[heif]'")
    return Image.open(file, formats=("HEIF",))


def _opened(data: bytes, decoding: Decoding) -> Image.Image:
    """Return an image, decoded. Raises whatever Pillow does, and ValueError for one that is too large."""
    try:
        image: Image.Image = open_image(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise ValueError(
            f"it has more than the {2 * decoding.max_pixels:,} pixels that are allowed; --max-megapixels raises that"
        ) from None
    width, height = image.size
    if width * height > decoding.max_pixels:
        raise ValueError(
            f"it has {width * height:,} pixels, more than the {decoding.max_pixels:,} that are allowed; "
            "--max-megapixels raises that"
        )
    if image.format in ("JPEG", "MPO"):
        # a large JPEG is decoded at ½, ¼ or ⅛, never below twice the target
        image.draft(None, (2 * decoding.size, 2 * decoding.size))
    needed, allowed = image.width * image.height * _bytes_per_pixel(image), decoding.max_bytes
    if needed > allowed:
        raise ValueError(
            f"it would take {needed / 1e9:.1f} GB of memory, more than the {allowed / 1e9:.1f} GB that are allowed; "
            "--max-megapixels raises that"
        )
    image.load()
    return image


def _bytes_per_pixel(image: Image.Image) -> int:
    """Return the bytes of memory that decoding and converting an open image takes per pixel."""
    if image.mode in _DEEP_MODES:
        return _DEEP_BYTES
    return _TRANSPARENT_BYTES if image.has_transparency_data else _PIXEL_BYTES.get(image.mode, _TRANSPARENT_BYTES)


def _range_of(image: Image.Image, decoding: Decoding) -> Mapping[Kind, Range]:
    """Return the range of an image's values; empty where its levels are known to fit."""
    if image.mode in _DEEP_MODES:
        return range_of(np.asarray(image))
    usual = decoding.levels is not None and decoding.levels.of("bytes") is None
    if usual or image.mode not in ("L", "RGB") or image.format in ("JPEG", "MPO") or image.has_transparency_data:
        return {} if usual or image.mode == "1" else {"bytes": Range(0, 255)}
    extremes = image.getextrema()
    bands = extremes if isinstance(extremes[0], tuple) else (extremes,)
    return {"bytes": Range(0, float(max(band[1] for band in bands)))}


def _finish(image: Image.Image, size: int, levels: Levels) -> Image.Image:
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    if image.mode in _DEEP_MODES:
        image = Image.fromarray(to_unit(np.asarray(image), levels))
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    elif (few := levels.of("bytes")) is not None:
        factor = 255 / few.high
        image = image.point([min(255, round(value * factor)) for value in range(256)] * len(image.getbands()))
    image = squash(image, size)
    if image.mode == "F":
        image = Image.fromarray((np.asarray(image) * 255).round().clip(0, 255).astype(np.uint8))
    return image if turn is None else image.transpose(turn)


def squash(image: Image.Image, size: int) -> Image.Image:
    """Return the whole image at size×size, antialiased."""
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)


def reason(error: Exception) -> str:
    """Return why an image cannot be read, in words that are the same in every run."""
    if isinstance(error, UnidentifiedImageError):
        return "unknown image format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    values = np.asarray(image)
    return bool((values == values[..., :1]).all())


def as_pixels(image: Image.Image, channels: int) -> Pixels:
    """Return an image of mode L or RGB as (H, W, channels), or (H, W, 1), which broadcasts to three."""
    values = np.asarray(image if channels == 3 or image.mode == "L" else image.convert("L"))
    return values[..., None] if values.ndim == 2 else values


class _Seen:
    """Status and digest of n files, as they were read."""

    def __init__(self, n: int) -> None:
        self._numbers: list[Sequence[int]] = [(0, 0, 0, 0)] * n
        self._digests = [bytes(_DIGEST)] * n

    def read(self, reader: Reader, file: str, i: int, max_bytes: int = _LEAST_BYTES) -> bytes:
        """Return the content of the i-th file. Raises OSError and ValueError for one that holds no image."""
        data, status = reader.read(
            file, max_bytes
        )  # its status is from before: what changes meanwhile changes it later
        settled = time.time_ns() - max(status.mtime, status.ctime) > TICK
        self._numbers[i] = (
            status.size, status.mtime if settled else UNSETTLED, status.ctime, status.inode & _INODE
        )  # fmt: skip
        self._digests[i] = hashlib.blake2b(data, digest_size=_DIGEST).digest()
        if not data:
            raise ValueError("the file is empty")
        if found := stand_in(data):
            raise ValueError(f"it is {found}")
        return data

    def records(self) -> Records:
        """Return what was seen, (n,), zeros for a file that was not; names and `readable` are left open."""
        records = np.zeros(len(self._numbers), RECORD)
        numbers = np.array(self._numbers, np.int64).reshape(-1, 4)
        for column, field in enumerate(("size", "mtime", "ctime", "inode")):
            records[field] = numbers[:, column]
        records["digest"] = np.frombuffer(b"".join(self._digests), "<u8").reshape(-1, 2)
        return records
