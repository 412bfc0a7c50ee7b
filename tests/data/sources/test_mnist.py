"""MNIST's idx files, byte for byte, and as torchvision reads them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torchvision

from cvcoteach._validation import InputError
from cvcoteach.data import unpacking
from cvcoteach.data.sources import Source, read_source
from cvcoteach.data.sources.mnist import read_idx
from cvcoteach.data.unpacking import unpack_limit

IMAGES = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype=np.uint8)
LABELS = (np.arange(20) % 10).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    """An array as LeCun's format has it."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, part: str = "train", *, dot: bool = False, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images", IMAGES), ("labels", LABELS)):
        name = f"{part}-{kind}{'.' if dot else '-'}idx{array.ndim}-ubyte"
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


def is_right(source: Source) -> None:
    assert source.array is not None
    assert (source.array == IMAGES).all()
    assert [source.class_names[label] for label in source.labels] == [str(label) for label in LABELS]


@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_and_a_file_are_read(tmp_path: Path, dot: bool, packed: bool) -> None:
    write(tmp_path, dot=dot, packed=packed)
    is_right(read_source(tmp_path))
    is_right(read_source(next(tmp_path.glob("*images*"))))


def test_the_layout_of_torchvision_and_its_parts(tmp_path: Path) -> None:
    write(write(tmp_path / "MNIST" / "raw", "t10k").parent / "raw")
    theirs = torchvision.datasets.MNIST(str(tmp_path), train=True)
    source = read_source(tmp_path / "MNIST", split="train")
    is_right(source)
    assert (source.array == theirs.data.numpy()).all()
    both = read_source(tmp_path / "MNIST")
    assert both.splits is not None
    assert np.unique(both.splits).tolist() == ["test", "train"]
    assert "t10k-images" in read_source(tmp_path / "MNIST", split="test").description


def test_broken_files_get_a_sentence(tmp_path: Path) -> None:
    folder = write(tmp_path)
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(idx(IMAGES)[:-5])
    with pytest.raises(InputError, match=r"holds 15,675 bytes, but its head says 20 × 28 × 28"):
        read_source(folder)
    images.write_bytes(idx(IMAGES) + b"x")
    with pytest.raises(InputError, match="holds more than 15,680 bytes"):
        read_source(folder)
    images.write_bytes(b"PNG")
    with pytest.raises(InputError, match="is no idx file of 3 axes of bytes"):
        read_source(folder)
    images.write_bytes(idx(IMAGES[:10]))
    with pytest.raises(InputError, match="holds 10 images, but 20 labels"):
        read_source(folder)
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="has no labels beside it; it takes train-labels-idx1-ubyte"):
        read_source(folder)


def datumaro(folder: Path, n: int) -> Path:
    """Files as Datumaro 1.13.12 exports them: the head of the images counts pixels, 255 is no label."""
    pixels = np.resize(IMAGES, (n, 28, 28))
    head = struct.pack(">BBBBIII", 0, 0, 8, 3, pixels.size, 28, 28)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.resize(LABELS, n))))
    (folder / "labels.txt").write_text("cat\ndog\n")
    return folder


def test_a_head_that_counts_pixels_for_images_is_read_as_datumaro_means_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_right(read_source(datumaro(tmp_path, 20)))
    monkeypatch.setattr(unpacking, "_TIMES", 0)
    with unpack_limit(20 * 784):  # what the head says would be refused
        is_right(read_source(tmp_path))


@pytest.mark.parametrize("n", [1, 783, 784, 1568])
def test_as_many_images_as_pixels_are_no_surprise(tmp_path: Path, n: int) -> None:
    for kind, array in (("images", np.resize(IMAGES, (n, 28, 28))), ("labels", np.resize(LABELS, n))):
        (tmp_path / f"train-{kind}-idx{array.ndim}-ubyte").write_bytes(idx(array))
    source = read_source(tmp_path, least_classes=1)
    assert source.array is not None
    assert (source.array == np.resize(IMAGES, (n, 28, 28))).all()


def test_images_without_a_label_by_datumaro_get_a_sentence(tmp_path: Path) -> None:
    file = datumaro(tmp_path, 20) / "train-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(idx(np.where(np.arange(20) < 2, 255, LABELS).astype(np.uint8))))
    with pytest.raises(
        InputError, match=r"2 images of train-images-idx3-ubyte\.gz have no label \(255, where Datumaro"
    ):
        read_source(tmp_path)
    (tmp_path / "labels.txt").unlink()
    assert "255" in read_source(tmp_path).class_names


@pytest.mark.parametrize("images", [2**20, 2**32 - 1])
def test_a_head_that_claims_more_than_memory_holds_is_refused(tmp_path: Path, images: int) -> None:
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(struct.pack(">HBBIII", 0, 8, 3, images, 2**32 - 1, 2**32 - 1) + bytes(100))
    with pytest.raises(InputError, match="holds 100 bytes, but its head says"):
        read_idx(file, 3)
