"""Patterns of file names, such as `data/*.parquet` or `shard-{000..009}.tar` -> one folder of what they name."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path, PurePosixPath

import filelock

from cvcoteach._files import digest
from cvcoteach._validation import InputError
from cvcoteach.data.cache_folder import cache_folder

_TABLES, _SHARDS = (".parquet", ".pq"), (".tar", ".tar.gz", ".tgz")
"""Ends of the names of files of which several are read as one source."""

_WILD = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{([^{}/]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_MOST = 100_000
"""Names that braces may stand for."""


def is_wild(name: str, *, web: bool = False) -> bool:
    """Return whether a name holds `*`, `?` or `[…]`; in an address of the web a question mark is none."""
    return bool(_WILD.search(name.replace("?", "") if web else name))


def shown_address(address: str) -> str:
    """Return an address without user, password and query, which may be secret."""
    return re.sub(r"\?.*?(?=::|$)", "?…", re.sub(r"://[^/\s]+@", "://…@", address))


def expanded(name: str) -> list[str]:
    """Return the names that a name with `{000..009}` or `{a,b}` stands for, as a shell does; of any other that alone.

    Raises InputError for more than a hundred thousand.
    """
    parts, choices, end = [], [], 0
    for found in _BRACES.finditer(name):
        inside = found[1]
        if (numbers := _RANGE.fullmatch(inside)) is not None:
            options: Sequence[str] = _Numbers(numbers[1], numbers[2])
        elif "," in inside:
            options = inside.split(",")
        else:
            continue
        parts.append(name[end : found.start()])
        choices.append(options)
        end = found.end()
    total = 1
    for options in choices:
        total *= len(options)
    if total > _MOST:
        raise InputError(f"{shown_address(name)!r} stands for {total:,} names; it takes up to {_MOST:,}.")
    rest = name[end:]
    named = product(*choices)
    return [
        "".join(each for pair in zip(parts, chosen, strict=True) for each in pair) + rest
        for chosen in islice(named, _MOST)
    ]


class _Numbers(Sequence[str]):
    """The numbers of `000..009`, as wide as the first; down where the second is smaller."""

    def __init__(self, first: str, last: str) -> None:
        step = 1 if int(first) <= int(last) else -1
        self._range = range(int(first), int(last) + step, step)
        self._width = len(first) if first.startswith("0") or len(first) == len(last) else 0

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, at: int) -> str:  # type: ignore[override]
        return f"{self._range[at]:0{self._width}}"

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self)))


def is_pattern(source: str | Path) -> bool:
    """Return whether a path that is not there may be a pattern."""
    name = os.path.expanduser(source)
    return "\0" not in name and (is_wild(name) or expanded(name) != [name]) and not os.path.lexists(name)


def matched(source: str | Path, cache_dir: str | Path | None = None) -> Path:
    """Return the one file or folder that a pattern of local paths names, or a folder of links to several files.

    Raises:
        InputError: where it names none, or files that are not read together.
    """
    pattern = os.path.abspath(os.path.expanduser(source))
    files: dict[str, None] = {}
    for name in expanded(pattern):
        found = sorted(glob.glob(name, recursive=True)) if is_wild(name) else [name]
        if not found:
            raise InputError(f"{name} matches no file; it takes the names of Parquet files or of .tar shards.")
        if not os.path.exists(found[0]):
            raise InputError(f"{found[0]}, of {str(source)!r}, does not exist.")
        files |= dict.fromkeys(found)
    if len(files) == 1:
        return Path(next(iter(files)))
    names = together([Path(file).as_posix() for file in files], str(source))
    folder = cache_folder(cache_dir) / "patterns" / digest(pattern)[:24] / folder_name(pattern)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.parent / ".lock"):
        _link(folder, dict(zip(names, files, strict=True)))
    return folder


def together(files: Sequence[str], pattern: str) -> list[str]:
    """Return the names of several files in one folder: those after the folder that they share; shards in no folder.

    files: POSIX paths.

    Raises:
        InputError: for files of other kinds than Parquet and tar, or of both.
    """
    are_shards, are_tables = (all(file.lower().endswith(ends) for file in files) for ends in (_SHARDS, _TABLES))
    if not are_shards and not are_tables:
        said = ", ".join(PurePosixPath(shown_address(file)).name for file in files[:3])
        raise InputError(
            f"{pattern!r} names {len(files):,} files, such as {said}; of Parquet files or of .tar shards several are "
            "read together, of anything else name one file, or a folder."
        )
    shared = os.path.commonpath([os.path.dirname(file) or "." for file in files])
    names = [os.path.relpath(file, shared).replace(os.sep, "/") for file in files]
    if not are_shards:
        return names
    flat = [name.replace("/", "-") for name in names]
    return flat if len(set(flat)) == len(flat) else [f"{i:06}-{name}" for i, name in enumerate(flat)]


def folder_name(pattern: str) -> str:
    """Return what the folder of a pattern is called: as its file names begin, else as the folder before it."""
    for part in reversed(PurePosixPath(pattern.split("::")[0].replace(os.sep, "/")).parts):
        plain = re.sub(r"[^\w.+-]", "_", re.split(r"[*?\[{]", part)[0]).strip("._-")
        if plain:
            return plain
    return "data"


def _link(folder: Path, targets: Mapping[str, str]) -> None:
    """Make a folder hold links of these names to these files, and nothing else; without links, copies."""
    if folder.is_symlink():  # whoever put it there, what lies elsewhere is not ours to tidy
        raise InputError(f"{folder} is a link, which the cache holds none of; remove it.")
    folder.mkdir(exist_ok=True)
    for where, folders, names in os.walk(folder):
        for name in [*names, *(each for each in folders if os.path.islink(os.path.join(where, each)))]:
            place = Path(where, name)
            if targets.get(place.relative_to(folder).as_posix()) != (os.readlink(place) if place.is_symlink() else ""):
                place.unlink()
    for name, target in targets.items():
        place = folder / name
        if place.is_symlink():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.symlink(target, place)
        except (OSError, NotImplementedError):  # Windows without the right to it
            shutil.copy2(target, place)
