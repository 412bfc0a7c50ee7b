"""Files written whole or not at all, and fingerprints of what is in them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import InputError

PARTIAL = ".partial"

_AT_ONCE = getattr(os, "O_NONBLOCK", 0)


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
def open_regular(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a regular file to read, unbuffered. Raises OSError for none, a device or a pipe, which might never end."""
    # without waiting for somebody to write into a pipe
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | _AT_ONCE)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file


def check_regular(path: str | Path) -> None:
    """Raise InputError for a device or a pipe, whose content might never end; a file that is not there passes."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path} is not a regular file.")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of a run to write in place of `path`, as `written_whole` does.

    Raises InputError where the disk is full or the folder cannot be written; what was there stays.
    """
    try:
        with written_whole(path) as file:
            yield file
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON for people (indented), atomically."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a .npy, atomically."""
    with replacing(path) as file:
        np.save(file, array, allow_pickle=False)


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
