"""Files of a tar, read as tarfile reads them, but faster."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cvcoteach.data.sources import tar_files
from cvcoteach.data.sources.tar_files import TarFiles


def ours(file: Path) -> list[tuple[str, int, int, bytes]]:
    """Name, offset, size and content of all files."""
    with TarFiles(file) as files:
        return [(*member, files.content(member)) for member in files]


def theirs(file: Path) -> list[tuple[str, int, int, bytes]]:
    with tarfile.open(file) as archive:
        entries = [entry for entry in archive if entry.isfile() and not entry.issparse()]
        contents = [archive.extractfile(entry) for entry in entries]
        return [
            (entry.name, entry.offset_data, entry.size, content.read())
            for entry, content in zip(entries, contents, strict=True)
            if content is not None
        ]


def written(file: Path, sizes: list[int], *, form: int = tarfile.GNU_FORMAT, mode: str = "w") -> Path:
    """A tar of files of these sizes, every seventh of a name that takes more than one head, folders in between."""
    rng = np.random.default_rng(0)
    with tarfile.open(file, mode, format=form) as archive:  # type: ignore[call-overload]
        for i, size in enumerate(sizes):
            if i % 11 == 5:
                folder = tarfile.TarInfo(f"folder{i}")
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
            entry = tarfile.TarInfo(("long/" * 30 if i % 7 == 3 else "") + f"a/{i:04}" + ("é" if i % 5 == 0 else ""))
            entry.size = size
            archive.addfile(entry, io.BytesIO(rng.bytes(size)))
    return file


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_any_size_are_those_of_tarfile(tmp_path: Path, form: int, packed: bool) -> None:
    rng = np.random.default_rng(1)
    some = [*rng.integers(0, 3000, 300).tolist(), 0, 1, 511, 512, 513, 600_000, 10, 10, 10, 10, 600_000, 3]
    file = written(tmp_path / "a.tar", some, form=form, mode="w:gz" if packed else "w")
    assert len(ours(file)) == len(some)
    if packed:
        assert [row[0] for row in ours(file)] == [row[0] for row in theirs(file)]
        assert [row[3] for row in ours(file)] == [row[3] for row in theirs(file)]
    else:
        assert ours(file) == theirs(file)


def test_ordinary_heads_are_not_left_to_tarfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [100] * 200
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for i, size in enumerate(sizes):
            entry = tarfile.TarInfo(f"{i}.cls")
            entry.size = size
            archive.addfile(entry, io.BytesIO(bytes(size)))
    asked = []
    real = tarfile.TarInfo.fromtarfile.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(tarfile.TarInfo, "fromtarfile", classmethod(lambda *args: (asked.append(1), real(*args))[1]))
    assert len(ours(tmp_path / "a.tar")) == 200
    assert len(asked) < 6


@pytest.mark.parametrize("at", [0, 124, 130, 148, 156, 257, 345])
def test_a_damaged_head_is_left_to_tarfile(tmp_path: Path, at: int) -> None:
    """Where tarfile takes it, so do we; where it ends or complains there, so do we."""
    file = written(tmp_path / "a.tar", [700] * 40)
    data = bytearray(file.read_bytes())
    with tarfile.open(file) as archive:
        heads = [entry.offset for entry in archive if entry.isfile()]
    data[heads[20] + at] ^= 0x15
    file.write_bytes(data)
    outcomes = []
    for read in (ours, theirs):
        try:
            outcomes.append([row[:3] for row in read(file)])
        except tar_files.DAMAGED:
            outcomes.append([])
    assert outcomes[0] == outcomes[1]


def test_a_tar_that_was_cut_ends_where_it_was_cut(tmp_path: Path) -> None:
    file = written(tmp_path / "a.tar", [700] * 40)
    whole = ours(file)
    file.write_bytes(file.read_bytes()[: whole[30][1] - 100])
    assert [row[:3] for row in ours(file)] == [row[:3] for row in whole[:30]]
