"""Folders of class folders, and folders that look like them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import touch


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
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "a/.DS_Store", "a/notes.txt", "b/raw.heic", ".git/x.jpg", "__MACOSX/a.jpg")
    source = read_source(tmp_path)
    assert source.paths == ("a/1.jpg", "b/2.jpg")
    assert source.notes == ("2 files are not images by their name and were left out: .heic, .txt.",)


def test_a_class_folder_without_images_is_noted_and_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/readme")
    source = read_source(tmp_path)
    assert source.class_names == ("a", "b")
    assert source.notes[0] == "c holds no images and is no class."


def test_images_beside_class_folders_are_noted(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "a/1.jpg", "b/2.jpg", "3.jpg", "LICENSE"))
    assert source.notes == (f"1 images lie beside the class folders in {tmp_path} and were left out.",)


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
        (["train/cat/1.jpg", "val/cat/2.jpg"], "train and val, which look like parts of a dataset.*/train"),
    ],
)
def test_a_folder_that_does_not_fit_gets_a_sentence(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(touch(tmp_path, *names))


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    assert read_source(touch(tmp_path, "train/1.jpg", "test/2.jpg")).class_names == ("test", "train")
