"""Shards whose heads say odd things, or that unpack to gigabytes: each ends in a sentence."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from cvcoteach.data.unpacking import unpack_limit


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")
    return file.getvalue()


def head(kind: bytes, size: bytes | int) -> bytes:
    """A head whose size is written as these bytes, a number, or what does not fit into the field's digits."""
    entry = tarfile.TarInfo("a.png")
    entry.type, entry.size = kind, size if isinstance(size, int) else 0
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    if isinstance(size, bytes):
        block[124:136] = size
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(records: bytes) -> bytes:
    return head(b"x", len(records)) + records + bytes(-len(records) % 512) + head(b"0", 0) + bytes(1024)


NEGATIVE, HUGE = b"\xff\x80" + bytes(10), b"\x80\x7f" + b"\xff" * 10
LONG_NAME = (head(b"L", 5) + b"abcd\0" + bytes(507)) * 2000


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        *(head(kind, size) + bytes(1024) for kind in (b"0", b"5", b"L", b"x", b"S") for size in (NEGATIVE, HUGE)),
        LONG_NAME + head(b"0", 0) + bytes(1024),
        extended(b"22 GNU.sparse.map=a,b\n"),
        extended(b"22 GNU.sparse.size=ab\n"),
        extended(b"30 size=99999999999999999999999999\n"),
    ],
)
def test_heads_that_say_odd_things_end_in_a_sentence(tmp_path: Path, content: bytes, packed: bool) -> None:
    file = tmp_path / ("x.tar.gz" if packed else "x.tar")
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match=r"cannot be read as tar|holds no images|too much for an image|would unpack"):
        read_source(file)


@pytest.mark.parametrize("name", ["7.txt", "7.bin"])
def test_a_packed_shard_that_unpacks_to_far_more_is_refused_unless_the_user_allows_it(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / "x.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for i in range(40):
            for ending, content in ((".png", picture()), (".cls", b"%d" % (i % 2))):
                entry = tarfile.TarInfo(f"{i}{ending}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        for i in range(8):
            entry = tarfile.TarInfo(f"more-{i}-{name}")
            entry.size = 2**20
            archive.addfile(entry, io.BytesIO(bytes(2**20)))
    with unpack_limit(2**20), pytest.raises(InputError, match=r"x.tar.gz would unpack from .* --max-unpacked"):
        read_source(file)
    assert len(read_source(file)) == 40
