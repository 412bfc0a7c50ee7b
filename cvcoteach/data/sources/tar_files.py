"""The files of a tar, in one pass over it: ordinary heads are read by the hundred, all others as tarfile reads them."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cvcoteach._files import in_bytes
from cvcoteach._validation import BoolArray
from cvcoteach.data.unpacking import check_unpacked

Bytes = npt.NDArray[np.uint8]

_BLOCK = tarfile.BLOCKSIZE
_MANY, _FEW = 1024, 16
"""Blocks that are read at a time: of small files many, of large ones little more than a head."""
_SMALL = 3
"""Heads in a stretch from which files count as small."""
_OCTAL = 8 ** np.arange(10, -1, -1)
_CHECKED = 8 ** np.arange(5, -1, -1)
_USTAR = np.frombuffer(b"ustar", np.uint8)
_SPACES = 8 * ord(" ")
"""What the eight bytes of a checksum count as in itself."""
_HEADS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LARGEST_HEAD = 2**20
"""Bytes of a long name or of extended headers, which are read into memory before any file."""
DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged tar raises."""
_BESIDE = (ValueError, OverflowError, IndexError, RecursionError)
"""What tarfile raises of heads that say odd things."""


_PACKED = ((b"\x1f\x8b", "r:gz"), (b"BZh", "r:bz2"), (b"\xfd7zXZ\0", "r:xz"))


class Entry(tarfile.TarInfo):
    """An entry of a tar, as tarfile reads it; a head that claims gigabytes is refused."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _HEADS and not 0 <= self.size <= _LARGEST_HEAD:
            raise tarfile.ReadError(f"a head claims to take {in_bytes(self.size)}")
        return super()._proc_member(archive)  # type: ignore[misc]


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    """Where its content begins, bytes; in a packed tar, where it would."""
    size: int
    """Bytes."""


class TarFiles:
    """The files of a tar, packed or not. To iterate over once, in a `with`; `content` is that of the latest one."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._plain: IO[bytes] | None = None
        self._start, self._stretch = 0, b""
        self._packed = file.stat().st_size

    def __enter__(self) -> Self:
        try:
            if is_plain(self._file):
                self._plain = open(self._file, "rb")
                self._archive = tarfile.open(fileobj=self._plain, mode="r:", tarinfo=Entry)
            else:
                # not as a stream, which unpacks all that it has read at once, to a thousand times as much
                self._archive = tarfile.open(self._file, _mode(self._file), tarinfo=Entry)
        except _BESIDE as error:
            raise tarfile.ReadError(str(error) or type(error).__name__) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()
        if self._plain is not None:
            self._plain.close()

    def __iter__(self) -> Iterator[Member]:
        """Yield the files in order; no folders, links, sparse files. Errors as of `_next`."""
        plain = self._plain
        archive: Any = self._archive  # of whose attributes its stubs tell not all
        if plain is not None:
            archive.firstmember, archive.offset = None, 0
        n_blocks = _FEW
        while True:
            while plain is not None:
                found, n_found = self._ordinary(plain, archive.offset, n_blocks)
                n_blocks = _MANY if n_found >= _SMALL else _FEW
                if not n_found:
                    break
                archive.offset = self._after
                yield from found
            if (entry := self._next()) is None:
                return
            if entry.isfile() and not entry.issparse():
                self._entry = entry
                yield Member(entry.name, entry.offset_data, entry.size)

    def _next(self) -> tarfile.TarInfo | None:
        """Return the next entry, as tarfile reads it.

        Raises one of `DAMAGED`, and InputError where a small packed tar would unpack to gigabytes.
        """
        archive: Any = self._archive
        try:
            if self._plain is not None:
                self._plain.seek(archive.offset)
            entry: tarfile.TarInfo | None = archive.next()
        except _BESIDE as error:
            raise tarfile.ReadError(str(error) or type(error).__name__) from None
        archive.members = []  # else it keeps them all
        if entry is not None and not entry.offset_data <= archive.offset < 2**63:
            raise tarfile.ReadError("a head claims to take less than nothing, or more than there can be")
        if entry is not None and self._plain is None:
            check_unpacked(self._file.name, self._packed, archive.offset, "unpack it")
        return entry

    def content(self, member: Member) -> bytes:
        """Return the content of the file that the iteration is at."""
        if self._plain is None:
            opened = self._archive.extractfile(self._entry)
            assert opened is not None  # it is a file
            return opened.read()
        first = member.offset - self._start
        if 0 <= first <= len(self._stretch) - member.size:
            return self._stretch[first : first + member.size]
        self._plain.seek(member.offset)
        return self._plain.read(member.size)

    def _ordinary(self, plain: IO[bytes], offset: int, n_blocks: int) -> tuple[Iterator[Member], int]:
        """Return the files from an offset on whose heads are those of ordinary files, and how many these are.

        Nearly all are, and tarfile takes as long for one as decoding a small image does.
        """
        plain.seek(offset)
        stretch = plain.read(n_blocks * _BLOCK)
        self._start, self._stretch = offset, stretch
        blocks = np.frombuffer(stretch, np.uint8, len(stretch) // _BLOCK * _BLOCK).reshape(-1, _BLOCK)
        digits = blocks[:, 124:135] - ord("0")  # of what is no digit, more than 7
        sizes = digits.astype(np.int64) @ _OCTAL
        usual = (digits < 8).all(axis=1) & _is_end(blocks[:, 135]) & _is_file(blocks[:, 156])
        steps = np.where(usual, 1 - sizes // -_BLOCK, 0).tolist()
        heads, at = [], 0
        while at < len(steps) and steps[at]:
            heads.append(at)
            at += steps[at]
        rows = blocks[heads]
        names = rows[:, :100].copy().view("S100").ravel().tolist()
        kept = _sound(rows, names)
        self._after = offset + (heads[kept] if kept < len(heads) else at) * _BLOCK
        # a null byte is in none of these names
        decoded = b"\0".join(names[:kept]).decode("utf-8", "surrogateescape").split("\0")
        heads = heads[:kept]
        contents = [offset + (head + 1) * _BLOCK for head in heads]
        return map(Member, decoded, contents, sizes[heads].tolist()), kept


def _sound(heads: Bytes, names: list[bytes]) -> int:
    """Return how many heads (m, 512) from the first on are those of ordinary files, with a checksum that fits."""
    digits = heads[:, 148:154] - ord("0")
    told = digits.astype(np.int64) @ _CHECKED
    sums = heads.sum(axis=1, dtype=np.int64) - heads[:, 148:156].sum(axis=1, dtype=np.int64) + _SPACES
    magic = heads[:, 257:262]
    sound = (
        (digits < 8).all(axis=1)
        & _is_end(heads[:, 154:156]).all(axis=1)
        & (told == sums)
        & (heads[:, 345] == 0)
        & ((magic == _USTAR).all(axis=1) | (magic == 0).all(axis=1))
    )
    named = [bool(name) and b"\0" not in name and not name.endswith(b"/") for name in names]
    bad = np.flatnonzero(~(sound & np.array(named, np.bool_)))
    return int(bad[0]) if len(bad) else len(heads)


def _is_end(values: Bytes) -> BoolArray:
    """Return which bytes end a number: null or a space."""
    return (values == 0) | (values == ord(" "))


def _is_file(values: Bytes) -> BoolArray:
    """Return which bytes stand for a file."""
    return (values == ord("0")) | (values == 0)


def _mode(file: Path) -> Any:
    with open(file, "rb") as opened:
        head = opened.read(6)
    return next((mode for begin, mode in _PACKED if head.startswith(begin)), "r:")


def is_plain(file: Path) -> bool:
    """Return whether a file is a tar that is not packed."""
    try:
        tarfile.open(file, "r:", tarinfo=Entry).close()
    except (tarfile.TarError, OSError, *_BESIDE):
        return False
    return True
