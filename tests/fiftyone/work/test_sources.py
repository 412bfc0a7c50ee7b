"""Folders and tables of images become datasets with sensible names, and are found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fiftyone as fo
import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.work.sources import dataset_of_source
from tests import images


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Delete the datasets that a test makes."""
    before = set(fo.list_datasets())
    yield
    for name in set(fo.list_datasets()) - before:
        fo.delete_dataset(name)


def test_a_folder_is_named_after_itself_and_found_again(tmp_path: Path) -> None:
    images.class_folders(tmp_path / "shapes", n=12)
    made = dataset_of_source(tmp_path / "shapes")
    assert (made.name, made.persistent, len(made)) == ("shapes", True, 12)
    assert set(made.distinct("ground_truth.label")) == set(images.CLASSES)
    made.delete_samples(made.first())
    assert len(dataset_of_source(tmp_path / "shapes")) == 11  # as it was left, not made anew


def test_another_folder_of_the_same_name_takes_a_number(tmp_path: Path) -> None:
    for place in ("a", "b"):
        images.class_folders(tmp_path / place / "shapes", n=12)
    names = [dataset_of_source(tmp_path / place / "shapes").name for place in ("a", "b", "a", "b")]
    assert names == ["shapes", "shapes-2", "shapes", "shapes-2"]


def test_stray_files_are_passed_over_and_noted(tmp_path: Path) -> None:
    images.class_folders(tmp_path / "shapes", n=12)
    for stray in ("Thumbs.db", "notes.txt", "bar/.DS_Store", "ring/readme.md"):
        (tmp_path / "shapes" / stray).write_text("no image")
    made = dataset_of_source(tmp_path / "shapes")
    assert len(made) == 12
    assert any(".md" in note for note in made.info["notes"])


def test_a_table_is_named_after_its_file(tmp_path: Path) -> None:
    images.class_folders(tmp_path, n=12)
    paths = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    table = pd.DataFrame({"path": paths, "label": [path.split("/")[0] for path in paths]})
    table.to_csv(tmp_path / "shapes.csv", index=False)
    made = dataset_of_source(tmp_path / "shapes.csv")
    assert made.name == "shapes"
    assert sorted(made.values("filepath")) == [str(tmp_path / path) for path in paths]


def test_what_is_no_source_leaves_no_dataset_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    before = fo.list_datasets()
    with pytest.raises(InputError):
        dataset_of_source(tmp_path / "empty")
    assert fo.list_datasets() == before
