"""TFRecord files as the package tfrecord 1.14.6 writes them, byte for byte as TensorFlow 2.21 does."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images
from cvcoteach.data.sources import has_labels, read_source, read_unlabelled
from cvcoteach.data.sources.example_proto import features_of

pytest.importorskip("crc32c")
writer = pytest.importorskip("tfrecord.writer")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


def picture(gray: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 6, 3), gray, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(file: Path, n: int = 6, image: str = "image/encoded", **more: Any) -> Path:
    """Write n records; more: kind and value of further features, functions of the number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    out = writer.TFRecordWriter(str(file))
    for i in range(n):
        features = {name.replace("__", "/"): (kind, make(i)) for name, (kind, make) in more.items()}
        out.write(
            {image: (picture(10 * i), "byte"), **{name: (value, kind) for name, (kind, value) in features.items()}}
        )
    out.close()
    return file


def text(i: int) -> bytes:
    return [b"cat", b"dog", b"eel"][i % 3]


def test_images_and_labels_are_read_where_they_lie(tmp_path: Path) -> None:
    file = write(
        tmp_path / "x.tfrecord",
        image__class__text=("byte", text),
        image__class__label=("int", lambda i: i % 3),
        video=("int", lambda i: i // 2),
        box=("float", lambda i: [0.0, 1.0]),
    )
    source = read_source(file, group_column="video")
    assert source.class_names == ("cat", "dog", "eel")
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.groups is not None
    assert source.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.paths[1] == "x.tfrecord#1"
    assert load_images(source, 6).pixels[:, 0, 0, 0].tolist() == [10 * i for i in range(6)]
    assert not (tmp_path / "cache" / "unpacked").exists()
    numbers = read_source(file, label_column="image/class/label")
    assert numbers.class_names == ("0", "1", "2")
    assert len(read_unlabelled(file)) == 6
    assert has_labels(file)


def test_splits_and_class_names_of_tensorflows_datasets(tmp_path: Path) -> None:
    folder = tmp_path / "pets" / "1.0.0"
    for split, n in (("train", 6), ("test", 3)):
        for shard in range(2):
            label = ("int", lambda i: i % 3)
            write(folder / f"pets-{split}.tfrecord-{shard:05}-of-00002", n, "image", label=label)
    (folder / "label.labels.txt").write_text("zebra\nyak\nxenops\n")
    (folder / "features.json").write_text("{}")
    source = read_source(folder)
    assert source.description == (
        "18 images (12 in train, 6 in test), 3 classes, features image and label in TFRecord files of 1.0.0"
    )
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 12 + ["test"] * 6
    assert source.class_names == ("xenops", "yak", "zebra")
    assert source.labels.tolist() == [2, 1, 0] * 6
    assert len(set(source.paths)) == len(set(source.file_names or ())) == 18
    assert len(read_source(folder, split="test")) == 6
    assert len(read_unlabelled(folder)) == 18
    for shard in range(2):  # as the datasets of challenges have it
        write(folder / f"pets-test.tfrecord-{shard:05}-of-00002", 3, "image", label=("int", lambda i: -1))
    train = read_source(folder)
    assert (len(train), train.splits) == (12, None)
    assert "the split test has no labels and was left out." in train.notes
    (folder / "label.labels.txt").write_text("zebra\nyak\n")
    with pytest.raises(InputError, match=r"are from 0 to 2, but label\.labels\.txt names 2 classes"):
        read_source(folder)


def test_records_that_do_not_fit_get_a_sentence(tmp_path: Path) -> None:
    good = write(tmp_path / "x.tfrecord", label=("int", lambda i: i % 2))
    data = good.read_bytes()
    broken = tmp_path / "y.tfrecord"
    for change, said in (
        (data[:-7], "is damaged: record 6 is not as it was written"),
        (data[:-60] + b"!" + data[-59:], "is damaged: record 6"),
        (b"nothing of the kind", "is no TFRecord file"),
        (struct.pack("<Q", 2**60) + data[8:], "is no TFRecord file"),
        (b"\x1f\x8b" + data, "is gzipped; unpack it"),
        (b"", "is empty"),
    ):
        broken.write_bytes(change)
        with pytest.raises(InputError, match=rf"y\.tfrecord {said}"):
            read_source(broken)
    with pytest.raises(InputError, match="has no feature 'picture'; "):
        read_source(good, path_column="picture")
    with pytest.raises(
        InputError, match=r"no record of x\.tfrecord has the feature 'video' \(--group-column\); did you"
    ):
        read_source(good, group_column="video")
    bare = write(tmp_path / "z.tfrecord", height=("int", lambda i: 6))
    with pytest.raises(InputError, match="hold no label, but height beside the image; --label-column names"):
        read_source(bare)
    assert not has_labels(bare)
    several = write(tmp_path / "s.tfrecord", label=("int", lambda i: [0, 1] if i == 4 else [0]))
    with pytest.raises(InputError, match=r"1 of 6 records of s\.tfrecord has no single label 'label', .*s\.tfrecord#4"):
        read_source(several)
    out = writer.TFRecordWriter(str(tmp_path / "raw.tfrecord"))
    out.write({"image_raw": (bytes(108), "byte"), "label": (1, "int")})
    out.close()
    with pytest.raises(InputError, match="hold no encoded image, but image_raw, label; raw pixels"):
        read_source(tmp_path / "raw.tfrecord")


def test_numbers_of_every_kind_are_read_and_what_is_damaged_is_refused() -> None:
    one_by_one = bytes.fromhex("0a0d 0a0b 0a016e 1206 1a04 0805 0807")
    assert features_of(one_by_one)["n"].values == [5, 7]
    minus = (1 << 64) - 1
    varint = bytes([minus >> 7 * i & 0x7F | 0x80 for i in range(9)] + [minus >> 63])
    packed = b"\x0a\x17\x0a\x15\x0a\x01n\x12\x10\x1a\x0e\x0a\x0c\x05\x06" + varint
    assert features_of(packed)["n"].values == [5, 6, -1]
    assert features_of(b"") == {}
    for data in (packed[:-1], b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0f", one_by_one[:9]):
        with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
            features_of(data)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        at, value = int(rng.integers(len(packed))), int(rng.integers(256))
        try:
            features_of(packed[:at] + bytes([value]) + packed[at + 1 :])
        except ValueError:
            continue


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_in_place_of_the_names_of_classes_is_not_waited_for(tmp_path: Path) -> None:
    file = write(tmp_path / "x.tfrecord", label=("int", lambda i: i % 2))
    os.mkfifo(tmp_path / "label.labels.txt")
    assert read_source(file).class_names == ("0", "1")
