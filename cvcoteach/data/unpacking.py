"""How much a compressed file may unpack to, so that a small one does not fill the memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cvcoteach._files import in_bytes
from cvcoteach._validation import InputError

ALWAYS = 2**30
"""Bytes that may always be unpacked, unless `unpack_limit` says otherwise."""
_TIMES = 200  # the packed size may be unpacked to in any case; images take about ten
_limit: ContextVar[int] = ContextVar("unpack_limit", default=ALWAYS)


@contextmanager
def unpack_limit(n_bytes: int) -> Iterator[None]:
    """Let arrays unpack to so many bytes while this lasts, if their packed size would not allow for it."""
    token = _limit.set(n_bytes)
    try:
        yield
    finally:
        _limit.reset(token)


def check_archive(archive: zipfile.ZipFile, where: str, instead: str) -> None:
    """Raise InputError where a part of a .zip, such as an array of an .npz, would unpack to more than is allowed.

    Args:
        archive: The .zip.
        where: What it is called, for the sentence.
        instead: How to do without.
    """
    for part in archive.infolist():
        check_unpacked(f"{part.filename} in {where}", part.compress_size, part.file_size, instead)


def check_unpacked(what: str, packed: int, unpacked: int, instead: str) -> None:
    """Raise InputError where a few bytes would unpack to more than is allowed.

    Args:
        what: What would, as the sentence begins.
        packed: Its size in the file, in bytes.
        unpacked: Its size in memory, in bytes.
        instead: How to do without.
    """
    if unpacked > max(_limit.get(), _TIMES * packed):
        raise InputError(
            f"{what} would unpack from {in_bytes(packed)} to {in_bytes(unpacked)}; if that is right, {instead}, or "
            "raise what is allowed with --max-unpacked."
        )
