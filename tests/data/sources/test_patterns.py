"""Patterns of names, local and elsewhere, as several Parquet files or shards."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images
from cvcoteach.data.levels import ORDINARY
from cvcoteach.data.sources import Source, at_hand, read_source
from cvcoteach.data.sources.patterns import expanded, matched


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 6), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def shard(file: Path, first: int, n: int = 3) -> Path:
    """A tar of images of the gray 10 · number, with labels 0 to 2."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for i in range(first, first + n):
            for name, content in ((f"{i:03}.png", picture(10 * i)), (f"{i:03}.cls", str(i % 3).encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file


def table(file: Path, first: int, n: int = 3) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = range(first, first + n)
    pq.write_table(pa.table({"image": [picture(10 * i) for i in rows], "label": [i % 3 for i in rows]}), file)
    return file


def gray(source: Source) -> list[int]:
    return load_images(source, 6, levels=ORDINARY).pixels[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{id}.png", ["{id}.png"]),
        ("{}", ["{}"]),
    ],
)
def test_braces_stand_for_what_they_do_in_a_shell(name: str, names: list[str]) -> None:
    assert expanded(name) == names


def test_braces_of_millions_are_refused() -> None:
    with pytest.raises(InputError, match="stands for 1,000,000,000 names; it takes up to 100,000"):
        expanded("{0..999}{0..999}{0..999}")


def test_a_pattern_of_shards_reads_those_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        shard(tmp_path / "data" / f"shard-{number:03}.tar", 3 * number)
    shard(tmp_path / "data" / "other.tar", 20)
    (tmp_path / "data" / "notes.png").write_bytes(b"")  # beside which the folder is none of shards
    source = read_source(str(tmp_path / "data" / "shard-{000..002}.tar"))
    assert gray(source) == [10 * i for i in range(9)]
    assert source.location.name == "shard"
    assert source.paths[0] == "shard-000.tar/000.png"
    monkeypatch.chdir(tmp_path / "data")
    assert gray(read_source(Path("shard-*.tar"))) == [10 * i for i in range(12)]
    (tmp_path / "data" / "shard-003.tar").unlink()
    assert len(read_source("shard-*.tar")) == 9
    assert at_hand("shard-00[1].tar") == tmp_path / "data" / "shard-001.tar"
    with pytest.raises(InputError, match=r"shard-003\.tar, of .*, does not exist"):
        read_source("shard-{000..003}.tar")


def test_folders_in_a_pattern_tell_splits(tmp_path: Path) -> None:
    shard(tmp_path / "train" / "0.tar", 0)
    shard(tmp_path / "val" / "0.tar", 3)
    source = read_source(f"{tmp_path}/{{train,val}}/*.tar")
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 3 + ["validation"] * 3
    table(tmp_path / "train" / "0.parquet", 0)
    table(tmp_path / "test" / "0.parquet", 3)
    source = read_source(f"{tmp_path}/*/*.parquet")
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 3 + ["test"] * 3


def test_parquet_files_of_a_pattern_find_their_images_from_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(6):
        (tmp_path / "images" / f"{i}.png").write_bytes(picture(10 * i))
    (tmp_path / "tables").mkdir()
    for number in range(2):
        rows = range(3 * number, 3 * number + 3)
        made = pa.table({"path": [f"../images/{i}.png" for i in rows], "label": [i % 3 for i in rows]})
        pq.write_table(made, tmp_path / "tables" / f"{number}.parquet")
    assert gray(read_source(str(tmp_path / "tables" / "*.parquet"))) == [10 * i for i in range(6)]


def test_what_a_pattern_cannot_name_gets_a_sentence(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.parquet"):
        (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"names 2 files, such as a\.csv, b\.csv; of Parquet files or of \.tar shards"):
        read_source(str(tmp_path / "*.csv"))
    with pytest.raises(InputError, match=r"names 3 files"):
        read_source(str(tmp_path / "*"))
    with pytest.raises(InputError, match=r"none\*\.tar matches no file"):
        read_source(str(tmp_path / "none*.tar"))


def test_a_name_with_such_marks_that_is_there_is_a_name(tmp_path: Path) -> None:
    shard(tmp_path / "a[1]*.tar", 0)
    shard(tmp_path / "a1.tar", 3)
    assert gray(read_source(str(tmp_path / "a[1]*.tar"))) == [0, 10, 20]


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Any]:
    """Shards and Parquet files in a file system in memory."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for number in range(3):
        shard(tmp_path / "up" / f"train-{number:03}.tar", 3 * number)
        table(tmp_path / "up" / "tables" / f"{number}.parquet", 3 * number)
    (tmp_path / "up" / "notes.txt").write_text("")
    memory.put(str(tmp_path / "up"), "/bucket", recursive=True)
    yield memory
    memory.rm("/bucket", recursive=True)


def test_a_pattern_of_an_address_copies_what_it_names(bucket: Any) -> None:
    source = read_source("memory://bucket/*.tar")
    assert gray(source) == [10 * i for i in range(9)]
    assert sorted(os.listdir(source.location)) == ["train-000.tar", "train-001.tar", "train-002.tar"]
    assert gray(read_source("memory://bucket/train-{000..001}.tar")) == [10 * i for i in range(6)]
    assert gray(read_source("memory://bucket/tables/[01].parquet")) == [10 * i for i in range(6)]
    assert gray(read_source("memory://bucket/tables/2*.parquet")) == [60, 70, 80]
    bucket.rm("/bucket/train-002.tar")
    assert len(read_source("memory://bucket/*.tar")) == 6


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("memory://bucket/none*.tar", r"memory://bucket/none\*\.tar matches no file"),
        ("memory://bucket/train-{002..003}.tar", r"/bucket/train-003\.tar does not exist"),
        ("memory://bucket/*", r"of Parquet files or of \.tar shards several are read together"),
        ("http://localhost:9/*.tar", "is a pattern on the web, which cannot be listed"),
    ],
)
def test_an_address_that_names_nothing_gets_a_sentence(bucket: Any, address: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_source(address)


@pytest.mark.parametrize("inner", [False, True])
def test_a_link_in_the_cache_leads_to_no_files_that_are_tidied(tmp_path: Path, inner: bool) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/x0.parquet", "x1.parquet"):
        pq.write_table(pa.table({"path": ["a.png", "b.png"], "label": ["a", "b"]}), tmp_path / name)
    folder = matched(tmp_path / "**" / "x*.parquet")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_text("mine")
    place = folder / "a" if inner else folder
    shutil.rmtree(place)
    place.symlink_to(elsewhere)
    if inner:
        assert (matched(tmp_path / "**" / "x*.parquet") / "a").is_symlink() is False
    else:
        with pytest.raises(InputError, match="is a link, which the cache holds none of"):
            matched(tmp_path / "**" / "x*.parquet")
    assert [each.name for each in elsewhere.iterdir()] == ["kept.txt"]
