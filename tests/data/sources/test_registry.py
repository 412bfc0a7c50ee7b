"""The format of a path is found, or one sentence says what fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import FORMATS, read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import touch


def test_what_does_not_exist_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"does not exist; .* A dataset of Hugging Face's hub is hf://nobody/pets"):
        read_source("nobody/pets")


def test_a_file_of_another_kind_gets_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "x.zip")
    with pytest.raises(InputError, match=r"x\.zip is of a kind that cannot be read"):
        read_source(tmp_path / "x.zip")


def test_columns_belong_to_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--label-column is 'label', but .* is not a table"):
        read_source(touch(tmp_path, "a/1.jpg", "b/2.jpg"), label_column="label")


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("x.txt", r"x\.txt is empty; it takes a path and a label in each line"),
        ("x.jsonl", r"x\.jsonl is empty; it takes an object per image in each line"),
        ("x.json", r"x\.json is no JSON"),
        ("x.tar", r"x\.tar cannot be read as tar"),
        ("x.xlsx", r"Save the sheet as \.csv"),
        ("x.zip", "Unpack it"),
        ("x.npy", r"numpy\.savez"),
        ("x.h5", "Write the images as files"),
        ("x.png", "of a kind that cannot be read with labels, one image"),
    ],
)
def test_a_usual_file_of_another_kind_is_refused_with_the_way_out(tmp_path: Path, name: str, way: str) -> None:
    with pytest.raises(InputError, match=way):
        read_source(touch(tmp_path, name) / name)


def test_a_split_belongs_to_a_source_of_several(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--split is 'train', but .* has no parts; that belongs to a"):
        read_source(touch(tmp_path, "labels.json", "a/1.jpg") / "labels.json", split="train", format="fiftyone")
    with pytest.raises(InputError, match=r"--split is 'train', but labels\.json is one part; name the folder of them"):
        read_source(tmp_path / "labels.json", split="train", format="coco")
    with pytest.raises(InputError, match=r"--split is 'train', but .* holds the folders a, b"):
        read_source(touch(tmp_path / "classes", "a/1.jpg", "b/2.jpg"), split="train")


def test_a_broken_name_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist|cannot be read"):
        read_source(tmp_path / "a\0b")


def test_what_looks_like_two_formats_says_which(tmp_path: Path) -> None:
    for name in ("data_batch_1", "train-images-idx3-ubyte"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"{tmp_path} looks like mnist and cifar; --format says which of them it is"):
        read_source(tmp_path)
    with pytest.raises(InputError, match="data_batch_1 cannot be read as a batch of CIFAR"):
        read_source(tmp_path, format="cifar")
    with pytest.raises(InputError, match="--format is 'cifer'; did you mean cifar"):
        read_source(tmp_path, format="cifer")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.zip is a file; --format folder takes a folder of class folders"):
        read_source(touch(tmp_path, "a.zip") / "a.zip", format="folder")


def test_each_format_has_a_name_of_its_own_and_its_lines_in_the_documentation() -> None:
    names = [each.name for each in FORMATS]
    assert len(set(names)) == len(names)
    assert all(names)
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    assert [name for name in names if f"`{name}`" not in page] == []
