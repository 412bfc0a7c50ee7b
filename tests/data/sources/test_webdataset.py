"""Shards as webdataset itself writes them (webdataset 1)."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images, natural_size
from cvcoteach.data.parts import place_of
from cvcoteach.data.sources import Source, read_source
from cvcoteach.data.sources.registry import has_labels, read_unlabelled

wds = pytest.importorskip("webdataset")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


def write(folder: Path, n: int = 12, *, per_shard: int = 5, **extra: Any) -> Path:
    """Write images of one gray each; extra: what lies beside image i, a function of i by extension."""
    folder.mkdir()
    with wds.ShardWriter(f"{folder}/shard-%03d.tar", maxcount=per_shard, verbose=0) as sink:
        for i in range(n):
            beside = {name.replace("_", "."): make(i) for name, make in extra.items()}
            beside = {name: value for name, value in beside.items() if value is not None}
            sink.write({"__key__": f"{i:06}", "png": np.full((6, 6, 3), i * 10, np.uint8), **beside})
    return folder


def is_right(source: Source) -> None:
    assert len(source) == 12
    assert [source.class_names[label] for label in source.labels] == [str(i % 3) for i in range(12)]
    assert load_images(source, 6).pixels[:, 0, 0, 0].tolist() == [i * 10 for i in range(12)]
    assert source.paths[5] == "shard-001.tar/000005.png"


def test_numbers_in_cls_are_the_labels(tmp_path: Path) -> None:
    is_right(read_source(write(tmp_path / "shards", cls=lambda i: i % 3)))


def test_a_field_of_json_is_the_label_and_another_the_group(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", json=lambda i: {"label": i % 3, "video": f"v{i // 4}", "boxes": [1]})
    source = read_source(folder, group_column="video")
    is_right(source)
    assert source.groups.tolist() == [i // 4 for i in range(12)]
    assert len(read_source(folder, label_column="video").class_names) == 3
    with pytest.raises(InputError, match=r"'boxes' in the \.json of .* is \[1\]; it takes one label per image"):
        read_source(folder, label_column="boxes")
    with pytest.raises(InputError, match=r"no sample of shards has 'clip' \(--group-column\) .* there is json\."):
        read_source(folder, group_column="clip")


def test_one_shard_packed_or_not_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", per_shard=100, cls=lambda i: i % 3)
    assert len(read_source(folder / "shard-000.tar")) == 12
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress((folder / "shard-000.tar").read_bytes()))
    assert len(read_source(tmp_path / "x.tar.gz")) == 12


def test_what_has_no_label_gets_a_sentence_or_a_prediction(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", txt=lambda i: f"a photo {i}")
    with pytest.raises(InputError, match="hold no label: beside the image there is txt; it takes"):
        read_source(folder)
    assert not has_labels(folder)
    assert len(read_unlabelled(folder)) == 12
    gaps = write(tmp_path / "gaps", cls=lambda i: None if i == 7 else i % 3)
    with pytest.raises(InputError, match=r"1 of 12 samples of gaps has no label 'cls', the first is .*000007\.png"):
        read_source(gaps)
    (folder / "shard-001.tar").write_bytes(b"no tar at all")
    with pytest.raises(InputError, match=r"shard-001\.tar cannot be read as tar"):
        read_source(folder)
    two = write(tmp_path / "two", cls=lambda i: i % 3, left_png=lambda i: np.zeros((6, 6, 3), np.uint8))
    with pytest.raises(InputError, match="holds several images of the sample '000000'"):
        read_source(two)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_heads_of_every_kind_are_read_as_tarfile_reads_them(tmp_path: Path, form: int) -> None:
    """Names of every length, in words of every script, folders and links between the files."""
    names = ["a", "b" * 70, "f/" * 40 + "g" * 60, "ü" * 40, "h/i"]
    if form != tarfile.USTAR_FORMAT:
        names += ["x" * 180, "long/" * 60 + "y"]
    with tarfile.open(tmp_path / "x.tar", "w", format=form) as archive:
        for i, name in enumerate(names):
            picture = io.BytesIO()
            Image.fromarray(np.full((6, 6, 3), i * 10, np.uint8)).save(picture, "PNG")
            folder = tarfile.TarInfo(f"folder{i}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            for ending, content in (("png", picture.getvalue()), ("cls", str(i % 2).encode())):
                entry = tarfile.TarInfo(f"{name}.{ending}")
                entry.size, entry.mtime = len(content), 1e9 + 0.5 if form == tarfile.PAX_FORMAT and i == 1 else 0
                archive.addfile(entry, io.BytesIO(content))
            link = tarfile.TarInfo(f"link{i}.png")
            link.type, link.linkname = tarfile.SYMTYPE, "a.png"
            archive.addfile(link)
    source = read_source(tmp_path / "x.tar")
    assert source.paths == tuple(f"x.tar/{name}.png" for name in names)
    assert source.labels.tolist() == [i % 2 for i in range(len(names))]
    assert load_images(source, 6).pixels[:, 0, 0, 0].tolist() == [i * 10 for i in range(len(names))]


def test_images_are_read_out_of_a_shard_where_it_lies(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", cls=lambda i: i % 3)
    source = read_source(folder)
    assert not (tmp_path / "cache" / "unpacked").exists()
    assert {place_of(file)[0] for file in source.files or ()} == {str(file) for file in folder.iterdir()}
    assert natural_size(source) == 6
    shard = folder / "shard-002.tar"
    shard.write_bytes(shard.read_bytes()[: place_of((source.files or ())[-1])[1]])
    assert load_images(source, 6).errors[11].endswith("ends before it does")


def test_an_image_that_changes_in_its_shard_is_seen(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", cls=lambda i: i % 3)
    before = load_images(read_source(folder), 6)
    with wds.TarWriter(str(folder / "shard-001.tar")) as sink:
        for i in range(5, 10):
            sink.write({"__key__": f"{i:06}", "png": np.full((6, 6, 3), 200 + i, np.uint8), "cls": i % 3})
    after = load_images(read_source(folder), 6)
    assert after.pixels[:, 0, 0, 0].tolist() == [*range(0, 50, 10), *range(205, 210), 100, 110]
    assert after.content_key != before.content_key


@pytest.mark.parametrize("packed", [False, True])
def test_names_of_shards_tell_splits(tmp_path: Path, packed: bool) -> None:
    folder = write(tmp_path / "shards", cls=lambda i: i % 3)
    ending = "tar.gz" if packed else "tar"
    for old, new in (("000", "val-000"), ("001", "train-000"), ("002", "train-001")):
        content = (folder / f"shard-{old}.tar").read_bytes()
        (folder / f"{new}.{ending}").write_bytes(gzip.compress(content) if packed else content)
        (folder / f"shard-{old}.tar").unlink()
    source = read_source(folder)
    order = [*range(5, 12), *range(5)]
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 7 + ["validation"] * 5
    assert [source.class_names[label] for label in source.labels] == [str(i % 3) for i in order]
    assert load_images(source, 6).pixels[:, 0, 0, 0].tolist() == [i * 10 for i in order]
    assert source.description == "12 images (7 in train, 5 in validation), 3 classes, labels cls in shards of shards"
    assert len(read_source(folder, split="validation")) == len(read_source(folder, split="val")) == 5
    assert len(read_unlabelled(folder)) == 12
    with pytest.raises(InputError, match="--split is 'test', but shards holds the splits train, validation"):
        read_source(folder, split="test")
    (folder / f"extra.{ending}").write_bytes((folder / f"val-000.{ending}").read_bytes())
    note = f"extra.{ending} in shards say nothing of a split and were left out."
    assert note in read_source(folder).notes


def test_a_split_of_shards_that_say_nothing_gets_a_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path / "shards", cls=lambda i: i % 3)
    with pytest.raises(InputError, match="--split is 'train', but no shard of shards is called that"):
        read_source(folder, split="train")
