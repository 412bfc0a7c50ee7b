"""Shards as webdataset itself writes them (webdataset 1)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images
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
    with pytest.raises(InputError, match=r"1 of 12 samples of gaps have no label 'cls', the first is .*000007\.png"):
        read_source(gaps)
    (folder / "shard-001.tar").write_bytes(b"no tar at all")
    with pytest.raises(InputError, match=r"shard-001\.tar cannot be read as tar"):
        read_source(folder)
    two = write(tmp_path / "two", cls=lambda i: i % 3, left_png=lambda i: np.zeros((6, 6, 3), np.uint8))
    with pytest.raises(InputError, match="holds several images of the sample '000000'"):
        read_source(two)
