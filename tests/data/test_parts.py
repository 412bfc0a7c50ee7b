"""Parts of files are read by their place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvcoteach.data.parts import Reader, opened, part_of, place_of, statuses


def test_files_and_parts_are_read_in_any_order(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    Path(one).write_bytes(bytes(range(100)))
    Path(two).write_bytes(b"two")
    with Reader() as reader:
        assert reader.read(part_of(one, 10, 3), 100)[0] == bytes([10, 11, 12])
        assert reader.read(part_of(one, 0, 0), 100)[0] == b""
        assert reader.read(two, 100)[0] == b"two"
        assert reader.read(part_of(one, 97, 3), 100)[0] == bytes([97, 98, 99])
        assert reader.read(part_of(two, 1, 1), 100)[0] == b"w"
        with pytest.raises(ValueError, match="one ends before it does"):
            reader.read(part_of(one, 99, 2), 100)
        with pytest.raises(ValueError, match="--max-megapixels raises"):
            reader.read(part_of(one, 0, 100), 99)
        with pytest.raises(ValueError, match="--max-megapixels raises"):
            reader.read(one, 99)
        assert reader.read(part_of(one, 1, 1), 100)[0] == b"\1"
    assert place_of(part_of(one, 10, 3)) == (one, 10, 3)
    assert place_of(one) == (one, None, 0)
    assert opened(part_of(two, 0, 2)).read() == b"tw"


def test_no_file_stays_open(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"one")
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    with Reader() as reader:
        reader.read(part_of(str(tmp_path / "one"), 0, 1), 9)
        with pytest.raises(FileNotFoundError):
            reader.read(str(tmp_path / "two"), 9)
        with pytest.raises(OSError, match="not a regular file"):
            reader.read(str(tmp_path), 9)
        with pytest.raises(ValueError, match="null byte"):
            reader.read("a\0b", 9)
        reader.read(part_of(str(tmp_path / "one"), 0, 1), 9)
    assert before is None or len(os.listdir("/proc/self/fd")) == before


def test_a_part_has_the_times_of_its_file_and_a_size_of_its_own(tmp_path: Path) -> None:
    file = str(tmp_path / "one")
    Path(file).write_bytes(b"one")
    status = os.stat(file)
    whole, part, gone, broken = statuses([file, part_of(file, 1, 2), part_of(f"{file}2", 1, 2), "a\0b"])
    assert whole == (3, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert part == whole._replace(size=2)
    assert gone == broken == (-1, -1, -1, -1)
