"""The format of a path is found, or one sentence says what fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import touch


def test_what_does_not_exist_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_source(tmp_path / "nowhere")


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
        ("x.txt", r"Lines such as `path number` become a table with pandas\.read_csv"),
        ("x.jsonl", "lines=True"),
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


def test_a_split_belongs_to_an_npz(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--split is 'train', but .* belongs to an \.npz"):
        read_source(touch(tmp_path, "a/1.jpg", "b/2.jpg"), split="train")


def test_a_broken_name_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist|cannot be read"):
        read_source(tmp_path / "a\0b")
