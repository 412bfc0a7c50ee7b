"""Folders of Parquet files, as datasets 5 and the hub write them: splits by name, and each file's own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images
from cvcoteach.data.sources import Source, read_source, read_unlabelled
from tests.data.sources.files import touch, write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


def named(source: Source) -> list[str]:
    return [source.class_names[label] for label in source.labels]


def table(file: Path, numbers: list[int], names: list[str], first: int = 0) -> Path:
    """Write embedded images of the gray 10 · number, with labels as numbers of these names."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    pictures = [Image.fromarray(np.full((8, 8, 3), 10 * (first + i), np.uint8)) for i in range(len(numbers))]
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict({"image": pictures, "label": numbers}, features=features).to_parquet(file)
    return file


def test_shards_of_the_hub_are_read_by_split_each_with_its_own_classes(tmp_path: Path) -> None:
    data = tmp_path / "pets" / "data"
    table(data / "train-00000-of-00002.parquet", [0, 1, -1], ["zebra", "cat"])
    table(data / "train-00001-of-00002.parquet", [0, 1], ["cat", "dog"], first=3)
    table(data / "test-00000-of-00001.parquet", [1, 0], ["dog", "zebra"], first=5)
    write(tmp_path / "pets" / "README.md", "---\n---\n")
    source = read_source(tmp_path / "pets")
    assert named(source) == ["zebra", "cat", "cat", "dog", "zebra", "dog"]
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 4 + ["test"] * 2
    assert source.location == tmp_path / "pets"
    assert source.paths == (
        "pets#train/0",
        "pets#train/1",
        "pets#train/3",
        "pets#train/4",
        "pets#test/0",
        "pets#test/1",
    )
    assert source.description == "6 images (4 in train, 2 in test), 3 classes, columns image and label of pets"
    assert load_images(source, 8).pixels[:, 0, 0, 0].tolist() == [0, 10, 30, 40, 50, 60]
    train = read_source(tmp_path / "pets", split="train")
    assert named(train) == ["zebra", "cat", "cat", "dog"]
    assert len(read_unlabelled(tmp_path / "pets")) == 7


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (("train.parquet", "valid.parquet"), ["train", "validation"]),
        (("default/train/0000.parquet", "default/test/0000.parquet"), ["train", "test"]),
        (("plain-00000-of-00001.parquet", "other-00000-of-00001.parquet"), ["other", "plain"]),
        (("latest.parquet", "device.parquet"), None),
        (("a.parquet", "b.parquet"), None),
    ],
)
def test_names_of_files_and_folders_tell_splits(
    tmp_path: Path, files: tuple[str, ...], splits: list[str] | None
) -> None:
    touch(tmp_path, *[f"images/{i}.png" for i in range(4)])
    for number, name in enumerate(files):
        file = tmp_path / "t" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [str(tmp_path / "images" / f"{2 * number + i}.png") for i in range(2)]
        pd.DataFrame({"path": rows, "label": ["cat", "dog"]}).to_parquet(file)
    source = read_source(tmp_path / "t")
    assert named(source) == ["cat", "dog"] * 2
    found = None if source.splits is None else list(dict.fromkeys(source.splits.tolist()))
    assert found == splits


def test_paths_are_relative_to_the_files(tmp_path: Path) -> None:
    touch(tmp_path, "t/data/images/a.png", "t/data/images/b.png")
    for name in "ab":
        frame = pd.DataFrame({"path": [f"images/{name}.png"], "label": [name]})
        frame.to_parquet(tmp_path / "t" / f"data/{name}.parquet")
    with pytest.raises(InputError, match="images beside them"):
        read_source(tmp_path / "t", format="parquet-files")
    for name in "ab":
        (tmp_path / "t/data/images" / f"{name}.png").rename(tmp_path / f"{name}.png")
        frame = pd.DataFrame({"path": [f"../../{name}.png"], "label": [name]})
        frame.to_parquet(tmp_path / "t" / f"data/{name}.parquet")
    source = read_source(tmp_path / "t")
    assert source.files is not None
    assert [Path(file).resolve() for file in source.files] == [tmp_path / "a.png", tmp_path / "b.png"]


def saved(file: Path, features: dict[str, Any] | None, **columns: list[Any]) -> None:
    content = pa.table(columns)
    meta = None if features is None else {"huggingface": json.dumps({"info": {"features": features}})}
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content.replace_schema_metadata(meta), file)


def test_files_that_do_not_go_together_get_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    path, label = (
        [str(tmp_path / "a.png"), str(tmp_path / "b.png")],
        {"label": {"names": ["x", "y"], "_type": "ClassLabel"}},
    )
    saved(tmp_path / "t/a.parquet", label, path=path, label=[0, 1])
    saved(tmp_path / "t/b.parquet", label, path=path, kind=[0, 1])
    with pytest.raises(InputError, match=r"b\.parquet has the columns path, kind, but a\.parquet has path, label"):
        read_source(tmp_path / "t")
    saved(tmp_path / "t/b.parquet", None, path=path, label=[0, 1])
    with pytest.raises(InputError, match=r"b\.parquet names no classes of the column 'label', but other files of t do"):
        read_source(tmp_path / "t")
    saved(tmp_path / "t/b.parquet", label, path=path, label=[0, 2])
    with pytest.raises(InputError, match=r"'label' of b\.parquet are from 0 to 2, but the file names 2 classes"):
        read_source(tmp_path / "t")


def test_class_folders_with_a_parquet_beside_them_stay_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "t/cat/1.png", "t/dog/2.png")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "t" / "metadata.parquet")
    assert read_source(tmp_path / "t").class_names == ("cat", "dog")


def test_one_file_of_several_says_so(tmp_path: Path) -> None:
    file = table(tmp_path / "t/train-00000-of-00002.parquet", [0, 1], ["cat", "dog"])
    table(tmp_path / "t/train-00001-of-00002.parquet", [0, 1], ["cat", "dog"])
    note = "train-00000-of-00002.parquet is one of 2 files: name the folder to read all of them."
    assert note in read_source(file).notes


def test_shards_of_one_name_in_folders_of_splits_are_splits(tmp_path: Path) -> None:
    for part in ("train", "test"):
        table(tmp_path / "pets" / part / "data-00000-of-00001.parquet", [0, 1, 0], ["cat", "dog"])
    source = read_source(tmp_path / "pets")
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 3 + ["test"] * 3
