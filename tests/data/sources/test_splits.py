"""All splits of a source are read, and each image knows which one it is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices, read_source, read_unlabelled
from tests.data.sources.files import pets as pets
from tests.data.sources.files import save, touch, write

IMAGES = np.zeros((3, 4, 4), np.uint8)


def test_split_folders_are_read_together(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "test/dog/1.png", "train/cat/1.png", "train/dog/2.png", "train/dog/deep/3.png", "val/cat/4.png"
    )
    source = read_source(root)
    assert source.splits is not None
    by_path = dict(zip(source.paths, source.splits.tolist(), strict=True))
    assert by_path == {
        "train/cat/1.png": "train",
        "train/dog/2.png": "train",
        "train/dog/deep/3.png": "train",
        "test/dog/1.png": "test",
        "val/cat/4.png": "val",
    }
    assert [source.class_names[label] for label in source.labels] == ["cat", "dog", "dog", "cat", "dog"]
    assert source.description.startswith("5 images (3 in train, 1 in val, 1 in test), 2 classes, a folder each in ")
    assert source.files is not None
    assert all(Path(file).is_file() for file in source.files)


def test_one_split_of_a_folder_keeps_its_names(tmp_path: Path) -> None:
    root = touch(tmp_path, "test/dog/1.png", "test/cat/2.png", "train/cat/1.png", "train/dog/2.png")
    source = read_source(root, split="TEST")
    assert source.paths == ("test/cat/2.png", "test/dog/1.png")
    assert source.splits is None
    assert source.location == source.root == root
    assert len(read_unlabelled(root, Choices(split="test"))) == 2
    with pytest.raises(InputError, match=r"--split is 'dev', but .* holds the folders test, train"):
        read_source(root, split="dev")


def test_a_split_folder_without_classes_is_left_out_with_a_note(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/3.png"))
    assert (source.splits, source.paths) == (None, ("train/cat/1.png", "train/dog/2.png"))
    assert "test holds no class folders: left out." in source.notes


def test_classes_that_only_test_has_are_classes(tmp_path: Path) -> None:
    arrays = {"train_images": IMAGES, "train_labels": np.array([3, 5, 3])}
    source = read_source(save(tmp_path, **arrays, test_images=IMAGES[:2], test_labels=np.array([5, 4])))
    assert source.class_names == ("3", "4", "5")
    assert [source.class_names[label] for label in source.labels] == ["3", "5", "3", "5", "4"]


def test_splits_of_other_sizes_are_refused(tmp_path: Path) -> None:
    labels = np.array([0, 1, 0])
    with pytest.raises(InputError, match=r"different sizes \(train 4 × 4, test 5 × 4\); --split reads one"):
        read_source(save(tmp_path, x_train=IMAGES, y_train=labels, x_test=np.zeros((3, 5, 4), np.uint8), y_test=labels))


def test_a_group_is_the_same_in_each_split(tmp_path: Path) -> None:
    labels = np.array([0, 1, 0])
    file = save(
        tmp_path,
        train_images=IMAGES,
        train_labels=labels,
        train_patients=np.array(["a", "b", "b"]),
        test_images=IMAGES,
        test_labels=labels,
        test_patients=np.array(["b", "c", "a"]),
    )
    assert (read_source(file, group_column="patients").groups == [0, 1, 1, 1, 2, 0]).all()


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_column_of_splits_can_be_named_and_one_of_them_read(pets: Path, name: str) -> None:
    rows = [("a.png", "A", "x"), ("b.png", "A", "y"), ("c.png", "B", "x"), ("sub/d.png", "B", "y")]
    text = "path,part,label\n" + "".join(f"{','.join(row)}\n" for row in rows)
    if name.endswith("jsonl"):
        text = "".join(f'{{"path": "{p}", "part": "{s}", "label": "{k}"}}\n' for p, s, k in rows)
    table = write(pets / name, text)
    source = read_source(table, split_column="part", label_column="label")
    assert source.splits is not None
    assert source.splits.tolist() == ["A", "A", "B", "B"]
    one = read_source(table, split_column="part", label_column="label", split="b")
    assert (one.paths, one.splits) == (("c.png", "sub/d.png"), None)
    with pytest.raises(InputError, match=rf"--split is 'C', but {name}, column 'part', holds the splits A, B"):
        read_source(table, split_column="part", label_column="label", split="C")
    with pytest.raises(InputError, match=rf"{name} has no column 'prat' \(--split-column\); did you mean path, part"):
        read_source(table, split_column="prat")


def test_a_split_of_a_table_and_of_arrays_is_known_by_another_word_for_it(pets: Path) -> None:
    table = write(pets / "t.csv", "path,label,split\na.png,x,train\nb.png,y,train\nc.png,x,valid\nsub/d.png,y,valid\n")
    assert read_source(table, split="val").paths == ("c.png", "sub/d.png")
    images, labels = np.zeros((4, 6, 6), np.uint8), np.arange(4)
    part = {"val_images": images, "val_labels": labels, "val_patients": labels}
    file = save(pets, train_images=images, train_labels=labels, train_patients=labels, **part)
    source = read_source(file, split="validation", group_column="patients")
    assert (len(source), source.group_names) == (4, ("0", "1", "2", "3"))


def test_what_does_not_fit_a_column_of_splits_gets_a_sentence(pets: Path) -> None:
    table = write(pets / "t.csv", "path,label,split\na.png,x,train\nb.png,y,\nc.png,x,test\n")
    with pytest.raises(
        InputError, match=r"1 of 3 splits in the column 'split' of t\.csv is missing, the first in row 2"
    ):
        read_source(table)
    plain = write(pets / "p.csv", "path,label\na.png,x\nb.png,y\n")
    with pytest.raises(
        InputError, match=r"no column of p\.csv says of which split an image is; --split-column names it"
    ):
        read_source(plain, split="test")
