"""Arrays of images and labels in an .npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import has_labels, read_source, read_unlabelled
from cvcoteach.data.unpacking import unpack_limit
from tests.data.sources.files import pets as pets
from tests.data.sources.files import save


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.bool_])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 3), (3, 4, 5, 4)])
def test_an_npz_holds_images_and_labels(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    images = np.ones(shape, dtype)
    source = read_source(save(tmp_path, images=images, labels=np.array([4, 2, 4])))
    assert source.array is not None
    assert source.array.dtype == dtype
    np.testing.assert_array_equal(source.array, images)
    assert source.files is None
    assert source.paths == ("x.npz#0", "x.npz#1", "x.npz#2")
    assert source.class_names == ("2", "4")
    assert source.labels.tolist() == [1, 0, 1]


def test_labels_of_an_npz_may_be_text(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    assert read_source(save(tmp_path, images=images, labels=np.array(["b", "a"]))).class_names == ("a", "b")
    assert read_source(save(tmp_path, images=images, labels=np.array([b"b", b"a"]))).labels.tolist() == [1, 0]


FITS = np.zeros((2, 4, 4), np.uint8)
TWO = np.array([0, 1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": FITS}, "has no array images and no array labels; it holds x"),
        ({"images": FITS}, "has no array labels; it holds images"),
        ({"images": FITS, "labels": np.array([0, 1, 1])}, r"labels in x.npz has shape \(3,\); 2 images need \(2,\)"),
        ({"images": FITS, "labels": np.array([[0, 2], [1, 0]])}, r"shape \(2, 2\)"),
        ({"images": FITS[0], "labels": TWO}, r"images in x.npz has shape \(4, 4\)"),
        ({"images": np.zeros((2, 3, 9, 9), np.uint8), "labels": TWO}, r"channels last: images.transpose\(0, 2, 3, 1\)"),
        ({"images": FITS.astype(complex), "labels": TWO}, "images in x.npz holds complex128; it takes numbers"),
        ({"images": FITS + np.inf, "labels": TWO}, "values from inf to inf; it takes finite numbers"),
        ({"images": FITS + np.nan, "labels": TWO}, "values from nan"),
        ({"images": FITS, "labels": np.array([0, np.nan])}, "1 of 2 labels in x.npz is missing, the first in row 2"),
        ({"images": FITS, "labels": np.array(["a", ""])}, "1 of 2 labels in x.npz is missing"),
        ({"images": FITS, "labels": np.array([1j, 2])}, "labels in x.npz holds complex128"),
        ({"images": FITS, "labels": np.array(["a", None], object)}, "arrays of Python objects"),
        ({"images": FITS[:0], "labels": TWO[:0]}, "it takes"),
        ({"images": FITS, "labels": np.array([3, 3])}, r"holds one class only \(3\)"),
    ],
)
def test_an_npz_that_does_not_fit_gets_a_sentence(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(save(tmp_path, **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"text"])
def test_a_broken_npz_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz cannot be read as \.npz|Python objects"):
        read_source(tmp_path / "x.npz")


def test_one_array_alone_is_no_npz(tmp_path: Path) -> None:
    with open(tmp_path / "x.npz", "wb") as file:
        np.save(file, FITS)
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        read_source(tmp_path / "x.npz")


def test_labels_of_one_column_and_one_hot_labels_are_labels(tmp_path: Path) -> None:
    for labels in (np.array([[1], [0]]), np.array([[0, 1], [1, 0]])):
        assert read_source(save(tmp_path, images=FITS, labels=labels)).labels.tolist() == [1, 0]


def test_all_splits_are_read_unless_one_is_chosen(tmp_path: Path) -> None:
    one, two = FITS, np.ones((3, 4, 4), np.uint8)
    for names in (
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ):
        arrays = dict(zip(names, (one, TWO[:, None], two, np.array([0, 1, 1])), strict=True))
        source = read_source(save(tmp_path, **arrays))
        assert source.splits is not None
        assert source.splits.tolist() == ["train", "train", "test", "test", "test"]
        assert source.paths == ("x.npz#train/0", "x.npz#train/1", "x.npz#test/0", "x.npz#test/1", "x.npz#test/2")
        assert source.array is not None
        assert source.array.shape == (5, 4, 4)
        assert source.labels[2:].tolist() == [0, 1, 1]
        test = read_source(save(tmp_path, **arrays), split="test")
        assert (len(test), test.notes) == (3, ())
        with pytest.raises(InputError, match=r"--split is 'dev', but x\.npz holds the splits train, test"):
            read_source(save(tmp_path, **arrays), split="dev")


def test_images_without_labels_are_read_where_none_are_asked_for(tmp_path: Path) -> None:
    file = save(tmp_path, images=FITS)
    assert not has_labels(file)
    assert read_unlabelled(file).paths == ("x.npz#0", "x.npz#1")
    assert has_labels(save(tmp_path, images=FITS, labels=TWO))


def test_an_npz_says_what_was_understood(tmp_path: Path) -> None:
    source = read_source(save(tmp_path, images=FITS, labels=TWO))
    assert source.description == "2 images, 2 classes, arrays images (2, 4, 4, uint8) and labels of x.npz"


def test_an_array_that_unpacks_to_far_more_than_images_do_is_refused(tmp_path: Path) -> None:
    images = np.zeros((100, 64, 64), np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", images=images, labels=np.arange(100) % 2)
    assert len(read_source(tmp_path / "bomb.npz")) == 100
    with unpack_limit(2**16):
        with pytest.raises(
            InputError, match=r"images in bomb.npz would unpack .* unpacked, with numpy.savez, or raise"
        ):
            read_source(tmp_path / "bomb.npz")
        np.savez(tmp_path / "whole.npz", images=images, labels=np.arange(100) % 2)
        assert len(read_source(tmp_path / "whole.npz")) == 100
    assert len(read_source(tmp_path / "bomb.npz")) == 100


IMAGES = np.zeros((4, 4, 4), np.uint8)


@pytest.mark.parametrize("name", ["class_names", "label_names", "target_names", "classes"])
@pytest.mark.parametrize(
    "labels",
    [
        np.array([2, 0, 1, 0]),
        np.array([2.0, 0.0, 1.0, 0.0]),
        np.array([[2], [0], [1], [0]], np.uint8),
        np.eye(4, dtype=np.uint8)[[2, 0, 1, 0]],
        np.array(["cat", "zebra", "dog", "zebra "]),
        np.array([b"cat", b"zebra", b"dog", b"zebra"]),
    ],
)
def test_names_that_an_npz_lists_are_the_classes(tmp_path: Path, name: str, labels: np.ndarray) -> None:
    names = np.array(["zebra", "dog", "cat", "nobody"])
    for listed in (names, np.char.encode(names), names[:, None]):
        source = read_source(save(tmp_path, images=IMAGES, labels=labels, **{name: listed}))
        assert [source.class_names[label] for label in source.labels] == ["cat", "zebra", "dog", "zebra"]


def test_labels_themselves_may_be_listed(tmp_path: Path) -> None:
    for labels, listed in (
        (np.array([7, 3, 7, 7]), np.array([3, 7])),
        (np.array([7, 3, 7, 7]), np.array(["3", "7"])),
        (np.array(["7", "3", "7", "7"]), np.array([3.0, 7.0]).astype(int)),
    ):
        source = read_source(save(tmp_path, images=IMAGES, labels=labels, classes=listed))
        assert [source.class_names[label] for label in source.labels] == ["7", "3", "7", "7"]


def test_splits_share_the_names_that_are_listed(tmp_path: Path) -> None:
    parts = {"x_train": IMAGES, "y_train": np.array([1, 0, 1, 0]), "x_test": IMAGES, "y_test": np.array([1, 1, 1, 1])}
    source = read_source(save(tmp_path, **parts, class_names=np.array(["dog", "cat"])))
    assert [source.class_names[label] for label in source.labels] == ["cat", "dog", "cat", "dog", *["cat"] * 4]


PETS = np.array(["cat", "dog"])


@pytest.mark.parametrize(
    ("labels", "listed", "message"),
    [
        (
            [0, 1, 2, 0],
            PETS,
            "labels in x.npz are from 0 to 2, but class_names in x.npz names 2 classes; it takes a name",
        ),
        ([1, 2, 1, 2], PETS, "are from 1 to 2, but .* names 2 classes; it takes a name for each number from 0 on"),
        ([-1, 0, 1, 0], PETS, "are from -1 to 1, but"),
        ([0.5, 0, 1, 0], PETS, "are from 0 to 1, but"),
        ([0, 1, 0, 1], PETS[:0], "names 0 classes"),
        (
            np.eye(3, dtype=int)[[0, 1, 2, 0]],
            PETS,
            "are one-hot, of 3 columns, but .* names 2 classes; it takes a name for",
        ),
        (
            ["cat", "dog", "eel", "cat"],
            PETS,
            "labels in x.npz hold eel, but class_names in x.npz lists cat, dog; it takes",
        ),
        ([3, 7, 9, 3], np.array([3, 7]), "hold 9, but class_names in x.npz lists 3, 7"),
        (
            [0, 1, 0, 1],
            np.array(["cat", "cat", "dog"]),
            "class_names in x.npz lists cat 2 times; it takes each class once",
        ),
    ],
)
def test_names_that_contradict_the_labels_get_a_sentence(
    tmp_path: Path, labels: object, listed: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_source(save(tmp_path, images=IMAGES, labels=np.array(labels), class_names=listed))


@pytest.mark.parametrize(
    "listed",
    [
        np.array(["cat", "cat", "dog", "dog"]),
        np.array("cat"),
        np.array([["cat", "dog"]] * 2),
        np.array(["cat", 1], object),
    ],
)
def test_what_is_no_list_of_classes_is_left_with_a_note(tmp_path: Path, listed: np.ndarray) -> None:
    source = read_source(save(tmp_path, images=IMAGES, labels=np.array([0, 1, 0, 1]), class_names=listed))
    assert source.class_names == ("0", "1")
    assert source.notes == ("class_names in x.npz is no list of class names, as text or numbers, and was not read.",)
