"""Image files -> small squares of uint8, in chunks that worker processes take. No cache is known here."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cvcoteach._validation import IntArray

# what Pillow logs is said by the exception that follows; a program that wants its log still gets it
logging.getLogger("PIL").addHandler(logging.NullHandler())

Pixels = npt.NDArray[np.uint8]

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
"""What is known of a file, and of the content that it had."""
Records = npt.NDArray[np.void]

UNSETTLED = -1
TICK = 2_000_000_000
"""Nanoseconds: file times are this coarse at worst (FAT), so that a second write within them may leave no trace."""

_INODE = 2**63 - 1
"""Inodes are unsigned; the lower 63 bits tell files apart as well."""

_DEEP_MODES = frozenset(["I", "F", "I;16", "I;16L", "I;16B", "I;16N"])
"""Grey, of more than 8 bits."""


class Done(NamedTuple):
    """What came of a chunk."""

    rows: IntArray
    """(m,) rows of the source."""
    records: Records
    """(m,)"""
    errors: dict[int, str]
    """Row -> why its image cannot be read."""
    coloured: bool
    """A chunk that was to be grey is not; nothing was written."""


def stat_files(files: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Size, mtime, ctime and inode of each file; -1 throughout where there is none."""
    result = []
    for file in files:
        try:
            status = os.stat(file)
        except (OSError, ValueError):
            result.append((-1, -1, -1, -1))
        else:
            result.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _INODE))
    return result


def digest_chunk(files: Sequence[str], rows: IntArray) -> Done:
    """Content hashes of `files`, which are the `rows` of a source; nothing is decoded."""
    records = np.zeros(len(files), RECORD)
    for i, file in enumerate(files):
        try:
            _read(file, records[i : i + 1])
        except (OSError, ValueError):
            continue  # decoding meets it again, and says why
    return Done(rows, records, {}, False)


def decode_chunk(
    files: Sequence[str], rows: IntArray, pixel_file: Path, offset: int, size: int, channels: int, only_grey: bool
) -> Done:
    """Decode `files` into the rows of a file of (n, size, size, channels) uint8 that starts at byte `offset`.

    only_grey: write nothing once an image is coloured, and say so.
    """
    pixels, records, errors, coloured = decode_files(files, size, channels, only_grey)
    if not coloured:
        write_rows(pixel_file, offset, rows, pixels)
    return Done(rows, records, {int(rows[i]): reason for i, reason in errors.items()}, coloured)


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
    files: Sequence[str], size: int, channels: int, only_grey: bool
) -> tuple[Pixels, Records, dict[int, str], bool]:
    """Pixels (m, size, size, channels), zeros where unreadable; records (m,); reasons by position; coloured or not."""
    pixels = np.zeros((len(files), size, size, channels), np.uint8)
    records = np.zeros(len(files), RECORD)
    errors: dict[int, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a picture's oddities; what cannot be read is an exception
        for i, file in enumerate(files):
            try:
                data = _read(file, records[i : i + 1])
                square = to_square(data, size)
                if only_grey and not _is_grey(square):
                    return pixels, records, errors, True
                pixels[i] = as_pixels(square, channels)
                records[i]["readable"] = True
            except Exception as error:  # a broken file makes a decoder raise anything at all
                errors[i] = reason(error)
    return pixels, records, errors, False


def to_square(data: bytes | Image.Image, size: int) -> Image.Image:
    """An encoded image as size×size, mode L or RGB.

    The whole image is squashed, antialiased. Nothing is cropped away: the label may speak of what stands at the
    border, and a network that never saw it would call a right label wrong.

    First frame of animations; upright by EXIF; transparency on white; 16 bits to 8.
    """
    image: Image.Image = Image.open(io.BytesIO(data)) if isinstance(data, bytes) else data
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at ½, ¼ or ⅛, never below twice the target
    image.load()
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    if image.mode in _DEEP_MODES:
        image = Image.fromarray(_unit_range(image))
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    image = squash(image, size)
    if image.mode == "F":
        image = Image.fromarray((np.asarray(image) * 255).round().clip(0, 255).astype(np.uint8))
    return image if turn is None else image.transpose(turn)


def squash(image: Image.Image, size: int) -> Image.Image:
    """The whole image at size×size, antialiased."""
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)


def reason(error: Exception) -> str:
    """Why an image cannot be read, in words that are the same in every run."""
    if isinstance(error, UnidentifiedImageError):
        return "no image format that is known"
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


def _unit_range(image: Image.Image) -> npt.NDArray[np.float32]:
    """Whole numbers of more than 8 bits, or floats, as [0, 1] of the smallest usual range that holds them."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if image.mode.startswith("I;16"):
        return values / np.float32(65535)
    low, high = min(0.0, float(values.min())), float(values.max())
    if low < 0:
        return (values - np.float32(low)) / np.float32(high - low)
    ranges = [1.0] if image.mode == "F" else []
    return values / np.float32(next((top for top in (*ranges, 255.0, 65535.0) if high <= top), high))


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    values = np.asarray(image)
    return bool((values == values[..., :1]).all())


def as_pixels(image: Image.Image, channels: int) -> Pixels:
    """An image of mode L or RGB as (H, W, channels), or (H, W, 1), which fills three."""
    values = np.asarray(image if channels == 3 or image.mode == "L" else image.convert("L"))
    return values[..., None] if values.ndim == 2 else values


def _read(file: str, record: Records) -> bytes:
    """The content of a file; its stat and digest go into `record` (1,), the name does not."""
    with open(file, "rb", buffering=0) as opened:
        status = os.fstat(opened.fileno())  # before reading: what changes meanwhile looks changed later
        data = opened.read()
    record["size"], record["ctime"], record["inode"] = status.st_size, status.st_ctime_ns, status.st_ino & _INODE
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > TICK
    record["mtime"] = status.st_mtime_ns if settled else UNSETTLED
    record["digest"] = np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), "<u8")
    if not data:
        raise ValueError("the file is empty")
    return data
