"""Folders of class folders, and folders that look like them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import touch, write


def test_class_folders_become_labels_in_lexicographic_order(tmp_path: Path) -> None:
    touch(tmp_path, "dog/2.jpg", "cat/10.png", "cat/1.PNG", "ant/deep/er/x.webp", "ant/y.gif")
    source = read_source(tmp_path)
    assert source.class_names == ("ant", "cat", "dog")
    assert source.paths == ("ant/y.gif", "ant/deep/er/x.webp", "cat/1.PNG", "cat/10.png", "dog/2.jpg")
    assert source.labels.tolist() == [0, 0, 1, 1, 2]
    assert source.labels.dtype == np.int64
    assert source.files == tuple(str(tmp_path / path) for path in source.paths)
    assert (source.root, source.location, len(source)) == (tmp_path, tmp_path, 5)
    assert source.array is None
    assert source.notes == ()


def test_hidden_files_are_ignored_and_other_files_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "a/.DS_Store", "a/notes.txt", "b/raw.cr3", ".git/x.jpg", "__MACOSX/a.jpg")
    source = read_source(tmp_path)
    assert source.paths == ("a/1.jpg", "b/2.jpg")
    assert source.notes == ("2 files are not images by their name and were left out: .cr3, .txt.",)


def test_a_class_folder_without_images_is_noted_and_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/readme")
    source = read_source(tmp_path)
    assert source.class_names == ("a", "b")
    assert source.notes[0] == "c holds no images and is no class."


def test_images_beside_class_folders_are_noted(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "a/1.jpg", "b/2.jpg", "3.jpg", "LICENSE"))
    assert source.notes == (f"1 image lies beside the class folders in {tmp_path} and was left out.",)


def test_a_link_back_up_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert read_source(tmp_path).paths == ("a/1.jpg", "b/2.jpg")


def test_linked_class_folders_and_images_count(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/deer/1.jpg", "elsewhere/2.jpg", "data/cat/3.jpg")
    (tmp_path / "data" / "deer").symlink_to(tmp_path / "elsewhere" / "deer")
    (tmp_path / "data" / "cat" / "4.jpg").symlink_to(tmp_path / "elsewhere" / "2.jpg")
    assert read_source(tmp_path / "data").paths == ("cat/3.jpg", "cat/4.jpg", "deer/1.jpg")


def test_names_that_are_no_utf8_survive(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    odd = os.path.join(os.fsencode(tmp_path), b"b", b"\xff\xe9.jpg")
    try:
        os.close(os.open(odd, os.O_CREAT))
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    files = read_source(tmp_path).files
    assert files is not None
    assert os.fsencode(files[2]) == odd


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no class folders with images"),
        (["readme.md"], "holds no class folders with images"),
        (["1.jpg", "2.jpg"], "holds 2 images, but no class folders"),
        (["a/readme"], r"holds 1 folder, but no images in them \(files of other kinds: no suffix\)"),
        (["a/1.jpg", "a/2.jpg"], r"holds one class only \(a\)"),
        (["train/cat/1.jpg", "val/dog/2.jpg"], "train and val, which look like parts of a dataset.*/train"),
    ],
)
def test_a_folder_that_does_not_fit_gets_a_sentence(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(touch(tmp_path, *names))


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    assert read_source(touch(tmp_path, "train/1.jpg", "test/2.jpg")).class_names == ("test", "train")


# -- what is not a folder of classes --


@pytest.mark.parametrize(
    "names",
    [
        ("train/a/1.png", "train/b/2.png", "test/a/3.png", "empty_XYZ/readme"),
        ("Train/a/1.png", "Test/a/3.png", "Meta/x.png"),
        ("seg_train/a/1.png", "seg_test/a/3.png", "seg_pred/4.png"),
        ("train2017/a/1.png", "val2017/a/2.png", "annotations/x.json"),
    ],
)
def test_parts_of_a_dataset_are_not_taken_for_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=rf"look(s)? like parts? of a dataset, not classes; name .*{names[0][:5]}"):
        read_source(touch(tmp_path, *names))


def test_a_class_called_train_among_others_stays_a_class(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "bus/1.png", "train/steam/2.png", "train/diesel/3.png", "car/4.png"))
    assert source.class_names == ("bus", "car", "train")


def test_flat_folders_named_like_parts_get_a_note(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "train/1.png", "test/2.png"))
    assert source.notes == ("the classes are called test, train: these are parts of a dataset elsewhere.",)


def test_classes_that_hold_the_same_folders_get_a_note(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "fold1/cat/1.png", "fold1/dog/2.png", "fold2/cat/3.png", "fold2/dog/4.png"))
    assert source.class_names == ("fold1", "fold2")
    assert source.notes[0].startswith("the class folders fold1, fold2 hold the same folders (cat, dog)")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("data/1.png", "labels.json"), r"labels\.json is no JSON"),
        (("1.png", "metadata.jsonl"), r"labels are in metadata\.jsonl, so name that: .*/metadata\.jsonl"),
        (("images/1.png", "metadata.jsonl"), r"labels in metadata\.jsonl, beside the folder images: name .*/metadata"),
        (("1.png", "metadata.csv"), r"name that: .*/metadata\.csv"),
        (("train.parquet",), r"train\.parquet cannot be read as Parquet"),
        (("label=cat/0.parquet", "label=dog/0.parquet"), "holds 2 folders of Parquet files, and no images; join them"),
        (("train/1.png", "train/metadata.csv", "test/2.png", "test/metadata.csv"), "parts of .*/train/metadata.csv"),
        (("valid/1.png", "valid/_annotations.coco.json", "test/2.png"), "test, valid, .*/valid/_annotations.coco.json"),
        (
            ("pneumoniamnist/train0_0.png", "a.csv", "pneumoniamnist.csv"),
            "in one folder, .* name it: .*/pneumoniamnist.csv",
        ),
        (("data/1.png", "metadata.json", "samples.json"), "is a FiftyOneDataset, which FiftyOne alone reads"),
        (("photos/cat/1.png", "photos/dog/2.png"), r"one class only \(photos\).*name .*/photos"),
    ],
)
def test_another_layout_is_refused_with_the_way_out(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(touch(tmp_path, *names))


def test_lists_of_images_beside_their_one_folder_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.png", "images/2.png")
    for name, text in (
        ("readme.txt", "Photos of pets.\n"),
        ("train.txt", "1.png 0\n2.png 1\n"),
        ("a.txt", "1.png 0\n"),
    ):
        write(tmp_path / name, text)
    with pytest.raises(InputError, match=r"in one folder, images, with a\.txt, train\.txt beside it; .*/train\.txt$"):
        read_source(tmp_path)
    assert read_source(tmp_path / "train.txt").class_names == ("0", "1")


@pytest.mark.parametrize(
    ("names", "inside"),
    [
        (("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte"), "MNIST"),
        (("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"), "cifar-10-batches-py"),
        (("data/FashionMNIST/raw/train-images-idx3-ubyte",), "data/FashionMNIST"),
    ],
)
def test_the_folder_above_what_torchvision_downloads_names_what_can_be_read(
    tmp_path: Path, names: tuple[str, ...], inside: str
) -> None:
    with pytest.raises(InputError, match=rf"no images in them; {inside} can be read, so name that: .*/{inside}$"):
        read_source(touch(tmp_path, *names))


def test_a_split_is_known_by_another_word_for_it(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/2.png", "validation/cat/3.png", "validation/dog/4.png")
    for word in ("validation", "Val", "dev"):
        assert read_source(tmp_path, split=word).paths == ("validation/cat/3.png", "validation/dog/4.png")
    with pytest.raises(InputError, match=r"--split is 'test', but .* holds the folders train, validation"):
        read_source(tmp_path, split="test")
    touch(tmp_path, "val/cat/5.png", "val/dog/6.png")
    assert read_source(tmp_path, split="val").paths == ("val/cat/5.png", "val/dog/6.png")
    with pytest.raises(InputError, match=r"--split is 'dev', but .* holds the folders train, val, validation"):
        read_source(tmp_path, split="dev")


def test_partitions_with_images_are_classes_without_their_key(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "label=cat/1.png", "label=dog/2.png"))
    assert source.class_names == ("cat", "dog")
    assert source.paths == ("label=cat/1.png", "label=dog/2.png")


def test_class_folders_that_differ_by_the_composition_of_an_accent_are_one_class(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "caf\u00e9/1.png", "cafe\u0301/2.png", "tea/3.png"))
    assert source.class_names == ("caf\u00e9", "tea")
    assert sorted(source.labels.tolist()) == [0, 0, 1]
    assert "read as one class" in source.notes[0]


def test_a_folder_that_cannot_be_read_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"the folder .*/b cannot be read \(Permission denied\)"):
        read_source(tmp_path)


def test_names_that_are_not_utf8_are_printable_in_the_results(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    os.makedirs(os.fsencode(tmp_path) + b"/caf\xe9")
    try:
        os.close(os.open(os.fsencode(tmp_path) + b"/caf\xe9/\xff.jpg", os.O_CREAT))
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    source = read_source(tmp_path)
    assert source.class_names == ("a", "b", r"caf\xe9")
    assert source.paths[2] == r"caf\xe9/\xff.jpg"
    assert source.files is not None
    assert os.path.exists(source.files[2])
    assert source.subset([2]).files == source.files[2:]


def test_a_folder_says_what_was_understood(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "a/1.png", "b/2.png", "b/3.png"))
    assert source.description == f"3 images, 2 classes, a folder each in {tmp_path.name}"


def test_images_without_a_label_are_no_class(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "cat/1.png", "dog/2.png", "no_label/3.png", "_unlabeled/4.png"))
    assert source.class_names == ("cat", "dog")
    assert source.paths == ("cat/1.png", "dog/2.png")
    assert source.notes == (
        "1 image in _unlabeled has no label and was left out.",
        "1 image in no_label has no label and was left out.",
    )


def test_a_folder_with_a_metadata_csv_says_that_this_is_the_table(tmp_path: Path) -> None:
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,label\n1.png,cat\n2.png,dog\n")
    with pytest.raises(InputError, match=f"name that: {table}"):
        read_source(touch(tmp_path, "1.png", "2.png", "a_first.csv"))
    with pytest.raises(InputError, match=rf"holds its labels in metadata\.csv, beside the folder images: name {table}"):
        read_source(touch(tmp_path, "images/1.png"))
    notes = read_source(touch(tmp_path, "photos/1.png")).notes
    assert any(f"To take those of the table, name it: {table}" in note for note in notes)


def test_folders_of_one_image_each_are_refused_without_a_word_of_columns(tmp_path: Path) -> None:
    touch(tmp_path, *[f"c{i}/1.jpg" for i in range(20)])
    with pytest.raises(InputError, match=r"of the 20 labels of .* is a different one; a class needs several images\.$"):
        read_source(tmp_path)
