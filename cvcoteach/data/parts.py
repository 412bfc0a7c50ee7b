"""Images inside larger files: a part of a file, named as text as whole files are, and read by its place."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from contextlib import AbstractContextManager
from types import TracebackType
from typing import IO, NamedTuple, Self

from cvcoteach._files import open_regular

_PART = re.compile(r"(.+)\0(\d{1,18})\+(\d{1,18})", re.DOTALL)
"""A null byte is in no name of a file."""
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Status(NamedTuple):
    """What tells whether a file, or a part of one, has changed; times in nanoseconds."""

    size: int
    mtime: int
    ctime: int
    inode: int


def part_of(file: str, offset: int, size: int) -> str:
    """Return the name of `size` bytes of a file, from byte `offset` on; `Reader` and `opened` take it."""
    return f"{file}\0{offset}+{size}"


def place_of(name: str) -> tuple[str, int | None, int]:
    """Return the file of a name, and first byte and length where it is a part of one; None and 0 for a whole file."""
    found = _PART.fullmatch(name) if "\0" in name else None
    return (name, None, 0) if found is None else (found[1], int(found[2]), int(found[3]))


class Reader:
    """Reads files and parts of files; a file stays open from one of its parts to the next. Use in a `with`."""

    def __init__(self) -> None:
        self._name, self._number = "", -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read(self, name: str, max_bytes: int) -> tuple[bytes, Status]:
        """Return the content of a file or a part, and its status before it was read.

        Raises:
            OSError: It cannot be read, or is a device or a pipe, which might never end.
            ValueError: It is larger than `max_bytes`, or its file ends before it does.
        """
        file, offset, size = place_of(name)
        if offset is None or self._name != file:
            self._open(file)
        number = self._number
        try:
            found = os.fstat(number)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", file)
            length = found.st_size if offset is None else size
            status = Status(length, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            if length > max_bytes:
                raise ValueError(f"the file has {length / 1e9:.1f} GB; --max-megapixels raises what is allowed")
            if offset is not None:
                os.lseek(number, offset, os.SEEK_SET)
            data = _read(number, length, to_end=offset is None)
        except BaseException:
            self._close()
            raise
        if offset is None:
            self._close()
        elif len(data) < size:
            raise ValueError(f"{file} ends before it does")
        return data, status

    def _open(self, file: str) -> None:
        self._close()
        self._number = os.open(file, _FLAGS)
        self._name = file

    def _close(self) -> None:
        if self._number >= 0:
            os.close(self._number)
        self._name, self._number = "", -1


def _read(number: int, size: int, *, to_end: bool) -> bytes:
    """Return so many bytes from an open file, fewer where it ends; or all there are, should it have grown."""
    data = os.read(number, size + to_end)
    if len(data) == size:
        return data
    pieces, left = [data], size - len(data)
    while data and (to_end or left):  # a system may give less at once
        data = os.read(number, 2**20 if to_end else left)
        pieces.append(data)
        left -= len(data)
    return b"".join(pieces)


def opened(name: str) -> AbstractContextManager[IO[bytes]]:
    """Open a file or a part to read, as a context. Raises OSError and ValueError as `Reader.read`."""
    if place_of(name)[1] is None:
        return open_regular(name)
    with Reader() as reader:
        return io.BytesIO(reader.read(name, 2**62)[0])


def statuses(names: list[str] | tuple[str, ...]) -> list[Status]:
    """Return the status of each file or part; all -1 where there is no file."""
    result: list[Status] = []
    known: dict[str, Status] = {}
    for name in names:
        file, offset, size = place_of(name)
        found = known.get(file)
        if found is None:
            try:
                status = os.stat(file)
            except (OSError, ValueError):
                found = Status(-1, -1, -1, -1)
            else:
                found = Status(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            if offset is not None:
                known = {file: found}
        result.append(found._replace(size=size) if offset is not None and found.size >= 0 else found)
    return result
