"""Files written whole or not at all, and fingerprints of what is in them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from tempfile import NamedTemporaryFile
from typing import IO, Any

import filelock
import numpy as np
import numpy.typing as npt

from cvcoteach._validation import InputError

PARTIAL = ".partial"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk that has no room."""

_ABANDONED = 3600.0
"""Seconds without a change after which nobody is taken to be filling a folder."""
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
_LONGEST_HOLDER = 1000
"""Bytes of what `sign` wrote."""


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write in place of `path`: it appears as a whole at the end, or not at all. Raises OSError."""
    temporary = None
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL, delete=False) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Make a folder to fill in place of `path`, which may be an empty folder.

    It appears as a whole at the end, or not at all. What a killed call left goes once nothing in it has changed for an
    hour: until then another process may be filling it. Raises OSError.
    """
    _sweep_partial_folders(path)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))
    try:
        os.chmod(partial, 0o777 & ~_umask())
        yield partial
        if path.exists():
            path.rmdir()
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep_partial_folders(path: Path) -> None:
    latest = time.time() - _ABANDONED
    with suppress(OSError):
        for folder in path.parent.iterdir():
            ours = _LEFT_BY_A_KILLED_WRITE.fullmatch(folder.name) and folder.name[:-_TAIL] == f".{path.name}."
            if ours and folder.is_dir() and not folder.is_symlink() and _changed(folder) < latest:
                shutil.rmtree(folder, ignore_errors=True)


def _changed(folder: Path) -> float:
    """Return when anything in a folder last changed, in seconds since the epoch. Raises OSError."""
    inside = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in ["", *names]]
    return max(os.lstat(name).st_ctime for name in inside)


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a regular file to read, unbuffered. Raises OSError for none, a device or a pipe, which might never end."""
    # without waiting for somebody to write into a pipe
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | _AT_ONCE)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file


def read_text(path: str | Path) -> str:
    """Return the text of a regular file. Raises OSError as `open_regular`, and ValueError where it is not UTF-8."""
    with open_regular(path) as file:
        return file.read().decode("utf-8")


def check_regular(path: str | Path) -> None:
    """Raise InputError for a device or a pipe, whose content might never end; a file that is not there passes."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is not a regular file.")


def leads_out(name: str) -> bool:
    """Return whether a file name, as text, is absolute, goes up, or names nothing."""
    path = PurePath(name)
    return bool(path.anchor) or ".." in path.parts or not path.parts or "\0" in name


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of a run to write in place of `path`, as `written_whole` does.

    Raises InputError where the disk is full or the folder cannot be written; what was there stays.
    """
    try:
        with written_whole(path) as file:
            yield file
    except OSError as error:
        if error.errno in FULL:
            raise InputError(
                f"{path} could not be written: the disk is full. Free some space and repeat the same call: it "
                "resumes from the last finished fold."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError(f"{path} could not be written: {error.strerror}.") from error
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


@contextmanager
def locked(path: Path, waits: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock file `path`, which the system frees when its process dies. Raises OSError.

    waits: called with a sentence where another process holds it, before it is waited for.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if waits is not None:
            waits(f"Waiting for {held_by(path)}, which is at work on the same.")
        lock.acquire()
    try:
        sign(path)
        yield
    finally:
        unsign(path)
        lock.release()


def sign(path: Path) -> None:
    """Write beside the lock file `path`, which this process holds, that it does."""
    with suppress(OSError):
        _holder(path).unlink(missing_ok=True)
        with open(_holder(path), "x", encoding="utf-8") as file:  # never through a link that lies there
            file.write(f"process {os.getpid()} on {socket.gethostname()}")


def unsign(path: Path) -> None:
    """Take away what `sign` wrote."""
    with suppress(OSError):
        _holder(path).unlink(missing_ok=True)


def _holder(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def held_by(path: Path) -> str:
    """Return which process holds the lock file `path`, as part of a sentence."""
    try:
        with open_regular(_holder(path)) as file:
            return file.read(_LONGEST_HOLDER).decode("utf-8") or "another process"
    except (OSError, ValueError):
        return "another process"


def in_bytes(n: float) -> str:
    """Return a number of bytes in words: "1.20 GB", "3.4 MB", "25.1 kB"."""
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB" if n >= 1e5 else f"{n / 1e3:.1f} kB"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON for people (indented), atomically."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


class DamagedError(ValueError):
    """Raised for a file whose content is not what was written."""


_CHECKSUM = re.compile(rb"\ncrc32 [0-9a-f]{8}\n")
_BLOCK = 2**24


class Sealed:
    """A file to write: a line at its end, after `seal`, tells `read_sealed` a flipped bit; other readers ignore it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._crc = 0
        self.error: OSError | None = None
        """Why it could not be written; some callers hide that."""

    def write(self, data: Any) -> int:
        """Write bytes."""
        self._crc = zlib.crc32(data, self._crc)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Hand on what was written."""
        self._file.flush()

    def seal(self) -> None:
        """Write the line at the end."""
        self._file.write(b"\ncrc32 %08x\n" % self._crc)


def read_sealed(path: Path) -> memoryview:
    """Return the content of a file that `Sealed` wrote.

    Raises:
        DamagedError: Anything else is in the file.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        content = memoryview(file.read())
    end = len(content) - len(b"\ncrc32 00000000\n")
    tail = bytes(content[max(0, end) :])
    if not _CHECKSUM.fullmatch(tail) or zlib.crc32(content[:end]) != int(tail.split()[1], 16):
        raise DamagedError(f"{path} is damaged")
    return content[:end]


def save_array(file: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Write a .npy, sealed for `read_array`."""
    sealed = Sealed(file)
    np.save(sealed, array, allow_pickle=False)
    sealed.seal()


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy as `save_array` does, atomically."""
    with replacing(path) as file:
        save_array(file, array)


def read_array(path: Path) -> npt.NDArray[Any]:
    """Return what `save_array` wrote; nothing is unpickled. Errors as of `read_sealed`."""
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(read_sealed(path)), allow_pickle=False)
    except DamagedError:
        raise
    except (ValueError, EOFError, MemoryError) as error:  # the last where it says that it is longer than it is
        raise DamagedError(f"{path} is damaged") from error
    return array


def checksum_of(path: Path) -> str:
    """Return length and checksum of a file, as text. Raises OSError."""
    crc, length, block = 0, 0, bytearray(_BLOCK)
    with open_regular(path) as file:
        while n := file.readinto(block):  # type: ignore[attr-defined]
            crc = zlib.crc32(memoryview(block)[:n], crc)
            length += n
    return f"{length} bytes, crc32 {crc:08x}"


def sync(path: Path) -> None:
    """Make sure that a file or folder is on the disk, as far as the system can."""
    if os.name == "nt" and path.is_dir():
        return  # there, folders cannot be opened
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have no such thing for folders
            raise
    finally:
        os.close(number)


_LEFT_BY_A_KILLED_WRITE = re.compile(rf"\..+\.[a-z0-9_]{{8}}{re.escape(PARTIAL)}")
_TAIL = len("abcdefgh" + PARTIAL)


def sweep_partials(folder: Path, name: str | None = None, *, older_than: float = 0.0) -> None:
    """Remove files in a folder that `written_whole` left when it was killed, and no others.

    Args:
        folder: Where they were to appear; folders in it are not looked into.
        name: Of the file that was written; None: whatever it was.
        older_than: Seconds; younger ones stay, since their process may be alive.
    """
    latest = time.time() - older_than
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            left = _LEFT_BY_A_KILLED_WRITE.fullmatch(entry.name) and entry.name.startswith(f".{name or ''}")
            if left and entry.is_file(follow_symlinks=False) and entry.stat().st_mtime <= latest:
                os.unlink(entry)


def write_arrays(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Write a .npz, atomically."""
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def digest(*parts: npt.NDArray[Any] | str) -> str:
    """Return a short fingerprint of arrays and strings: equal content, equal digest."""
    result = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            data = part.encode("utf-8", "surrogatepass")
            result.update(f"str {len(data)} ".encode())
            result.update(data)
        else:
            result.update(f"{part.dtype.str} {part.shape} ".encode())
            for start in range(0, len(part), 65536):  # in chunks: a memory-mapped array need not fit
                result.update(np.ascontiguousarray(part[start : start + 65536]).data)
    return result.hexdigest()
