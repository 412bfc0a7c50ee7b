"""What FiftyOne exports by itself is read as what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, read_source

CLASSES = ("bar", "cross", "ring")


@pytest.fixture
def with_gaps(noisy: Any) -> Any:
    """The sixty images, five of them without a label."""
    for sample in noisy.dataset[:5]:
        sample["ground_truth"] = None
        sample.save()
    return noisy


def given(source: Source) -> dict[str, str]:
    """Name of each file -> its label."""
    assert source.files is not None
    assert all(Path(file).is_file() for file in source.files)
    names = [source.class_names[label] for label in source.labels]
    return {Path(file).name: name for file, name in zip(source.files, names, strict=True)}


def expected(noisy: Any, first: int = 0) -> dict[str, str]:
    return {f"{i:05d}.png": CLASSES[label] for i, label in enumerate(noisy.given) if i >= first}


def test_images_without_a_label_are_no_class_of_a_directory_tree(with_gaps: Any, tmp_path: Path) -> None:
    kind = fo.types.ImageClassificationDirectoryTree
    with_gaps.dataset.export(str(tmp_path / "out"), dataset_type=kind, label_field="ground_truth")
    source = read_source(tmp_path / "out")
    assert given(source) == expected(with_gaps, first=5)
    assert source.notes == ("5 images in _unlabeled have no label and were left out.",)


def test_a_csv_dataset_has_its_files_in_data_beside_the_table(noisy: Any, tmp_path: Path) -> None:
    fields = ["id", "filepath", "ground_truth.confidence", "ground_truth.label"]
    noisy.dataset.export(str(tmp_path / "out"), dataset_type=fo.types.CSVDataset, fields=fields)
    source = read_source(tmp_path / "out" / "labels.csv")
    assert given(source) == expected(noisy)
    assert source.notes == ("the folder data was added to the paths in the column 'filepath' of labels.csv.",)
    with pytest.raises(
        InputError, match=r"holds its labels in labels\.csv, beside the folder data: name .*labels\.csv"
    ):
        read_source(tmp_path / "out")


def test_labels_json_leaves_out_what_has_no_label(with_gaps: Any, tmp_path: Path) -> None:
    kind = fo.types.FiftyOneImageClassificationDataset
    for place, options in (("plain", {}), ("sure", {"include_confidence": True})):
        with_gaps.dataset.export(str(tmp_path / place), dataset_type=kind, label_field="ground_truth", **options)
        source = read_source(tmp_path / place)
        assert given(source) == expected(with_gaps, first=5)
        assert source.notes == ("5 images of labels.json without a label were left out.",)
