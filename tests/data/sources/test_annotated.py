"""Several annotators per image: a row each, or a column each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import touch, write

ROWS = "path,label,who\na.png,cat,ann\nb.png,dog,ann\na.png,cat,bob\nb.png,cat,bob\nb.png,dog,cy\nc.png,dog,ann\n"
COLUMNS = "path,ann,bob,cy\na.png,cat,cat,\nb.png,dog,cat,dog\nc.png,dog,,\nsub/d.png,,,\n"


def given(source: Source) -> dict[str, str]:
    return {path: source.class_names[label] for path, label in zip(source.paths, source.labels.tolist(), strict=True)}


def by_whom(source: Source) -> set[tuple[str, str, str]]:
    made = source.annotations
    assert made is not None
    rows = zip(made.image.tolist(), made.annotator.tolist(), made.label.tolist(), strict=True)
    return {(source.paths[i], made.annotators[a], source.class_names[k]) for i, a, k in rows}


def test_rows_and_columns_say_the_same(pets: Path) -> None:
    rows = read_source(write(pets / "rows.csv", ROWS), annotator_column="who")
    columns = read_source(write(pets / "columns.csv", COLUMNS), annotator_columns="ann,bob,cy")
    assert given(rows) == given(columns) == {"a.png": "cat", "b.png": "dog", "c.png": "dog"}
    assert by_whom(rows) == by_whom(columns)
    assert len(by_whom(rows)) == 6
    expected = "3 images, 2 classes, 6 labels by 3 annotators, columns path and label of rows.csv"
    assert rows.description == expected
    assert "1 row of columns.csv without any label was left out." in columns.notes


def test_a_tie_is_the_label_that_was_given_first(pets: Path) -> None:
    table = write(pets / "t.csv", "path,label,who\na.png,dog,x\na.png,cat,y\nb.png,cat,x\nb.png,cat,y\n")
    assert given(read_source(table, annotator_column="who"))["a.png"] == "dog"


def test_groups_and_splits_stay_with_their_images(pets: Path) -> None:
    rows = ["a.png,cat,x,train,1", "a.png,cat,y,train,1", "b.png,dog,x,train,7", "c.png,cat,x,test,1"]
    rows.append("c.png,cat,y,test,1")
    table = write(pets / "t.csv", "path,label,who,part,clip\n" + "\n".join(rows) + "\n")
    source = read_source(table, annotator_column="who", group_column="clip", label_column="label")
    assert source.splits is not None
    assert source.splits.tolist() == ["train", "train", "test"]
    assert source.groups is not None
    assert source.groups.tolist() == [0, 1, 0]
    assert source.description == (
        "3 images (2 in train, 1 in test), 2 classes, 5 labels by 2 annotators, columns path and label of t.csv, "
        "splits in the column part"
    )
    alone = read_source(table, annotator_column="who", split="train", label_column="label")
    assert given(alone) == {"a.png": "cat", "b.png": "dog"}
    assert len(by_whom(alone)) == 3


def test_an_annotator_of_one_image_gets_a_note(pets: Path) -> None:
    source = read_source(write(pets / "rows.csv", ROWS), annotator_column="who")
    assert any(note.startswith("1 annotator of rows.csv labelled one image only (cy)") for note in source.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a.png,cat,x\na.png,cat,\nb.png,dog,x\n",
            r"1 of 3 annotators in the column 'who' of t\.csv is missing, .* 2",
        ),
        (
            "a.png,cat,x\na.png,,y\nb.png,dog,x\n",
            r"1 of 3 labels in the column 'label' of t\.csv is missing, .* row 2",
        ),
        (
            "a.png,cat,x\nb.png,dog,x\na.png,dog,x\n",
            r"row 3 of t\.csv gives a\.png another label by 'x' than an earlier",
        ),
        ("a.png,cat,x\nb.png,dog,x\nc.png,dog,y\n", r"no image of t\.csv has labels of two annotators"),
    ],
)
def test_rows_that_do_not_fit_get_a_sentence(pets: Path, text: str, message: str) -> None:
    table = write(pets / "t.csv", f"path,label,who\n{text}")
    with pytest.raises(InputError, match=message):
        read_source(table, annotator_column="who")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("ann", "it takes two columns or more: a,b,c"),
        ("ann,bob,dan", r"columns\.csv has no column 'dan' \(--annotator-columns\)"),
        ("ann,bob,empty", r"the column 'empty' of columns\.csv holds no label"),
    ],
)
def test_columns_that_do_not_fit_get_a_sentence(pets: Path, columns: str, message: str) -> None:
    text = "\n".join(f"{line},{'empty' if i == 0 else ''}" for i, line in enumerate(COLUMNS.splitlines()))
    table = write(pets / "columns.csv", text)
    with pytest.raises(InputError, match=message):
        read_source(table, annotator_columns=columns)


def test_labels_that_differ_are_refused_with_the_way_out(pets: Path) -> None:
    table = write(pets / "t.csv", ROWS)
    with pytest.raises(InputError, match=r"it takes one label per image \(--annotator-column names who gave each\)"):
        read_source(table, label_column="label")


def test_annotators_belong_to_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--annotator-column is 'who', but .* is not a table"):
        read_source(touch(tmp_path, "a/1.png", "b/2.png"), annotator_column="who")


NAMES = ["zebra", "cat", "dog"]


def of_lists(folder: Path, kind: str, **content: list[Any]) -> Path:
    """Write four images with lists of labels, as `datasets` saves them."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = {"image": datasets.Image(), "votes": datasets.List(datasets.ClassLabel(names=NAMES))}
    features |= {name: datasets.List(datasets.Value("string")) for name in content if name == "who"}
    pictures = [Image.fromarray(np.full((8, 8), 10 * i, np.uint8)) for i in range(4)]
    made = datasets.Dataset.from_dict({"image": pictures, **content}, features=datasets.Features(features))
    if kind == "saved":
        made.save_to_disk(folder / "t")
        return folder / "t"
    if kind == "split":
        datasets.DatasetDict({"train": made, "test": made}).save_to_disk(folder / "t")
        return folder / "t"
    made.to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


VOTES = [[0, 0, 1], [1, 1], [-1, None], [2, 1, 2]]


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_a_list_of_labels_per_image_is_a_label_of_each_annotator(tmp_path: Path, kind: str, cache: None) -> None:
    table = of_lists(tmp_path, kind, votes=VOTES)
    source = read_source(table, annotator_columns="votes")
    assert [source.class_names[label] for label in source.labels] == ["zebra", "cat", "dog"]
    assert source.annotations is not None
    assert source.annotations.annotators == ("1", "2", "3")
    assert source.annotations.per_image().tolist() == [3, 2, 3]
    assert source.description == (
        f"3 images, 3 classes, 8 labels by 3 annotators, columns image and, a list per image, votes of {table.name}"
    )
    assert any(note == f"1 row of {table.name} without any label was left out." for note in source.notes)
    assert [path.rpartition("#")[2] for path in source.paths] == ["0", "1", "3"]


def test_a_list_of_annotators_says_who_gave_the_labels_beside_it(tmp_path: Path, cache: None) -> None:
    who = [["ann", "bob", "cy"], ["cy", "ann"], ["bob", "ann"], ["bob", "cy", "ann"]]
    source = read_source(of_lists(tmp_path, "parquet", votes=VOTES, who=who), annotator_column="who")
    path = "t.parquet#"
    assert by_whom(source) == {
        (f"{path}0", "ann", "zebra"), (f"{path}0", "bob", "zebra"), (f"{path}0", "cy", "cat"),
        (f"{path}1", "cy", "cat"), (f"{path}1", "ann", "cat"),
        (f"{path}3", "bob", "dog"), (f"{path}3", "cy", "cat"), (f"{path}3", "ann", "dog"),
    }  # fmt: skip


def test_annotators_of_several_splits_are_the_same_people(tmp_path: Path, cache: None) -> None:
    source = read_source(of_lists(tmp_path, "split", votes=VOTES), annotator_columns="votes")
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 3 + ["test"] * 3
    assert source.annotations is not None
    assert source.annotations.annotators == ("1", "2", "3")
    assert source.annotations.per_image().tolist() == [3, 2, 3] * 2
    assert source.description.startswith(
        "6 images (3 in train, 3 in test), 3 classes, 16 labels by 3 annotators, columns "
    )


def test_lists_of_several_files_are_read_by_the_names_of_each(tmp_path: Path, cache: None) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    of_lists(folder, "parquet", votes=VOTES).rename(folder / "a.parquet")
    table = pq.read_table(folder / "a.parquet")
    names = {b"huggingface": table.schema.metadata[b"huggingface"].replace(b'["zebra", "cat"', b'["cat", "zebra"')}
    pq.write_table(table.replace_schema_metadata(names), folder / "b.parquet")
    source = read_source(folder, annotator_columns="votes")
    named = [source.class_names[label] for label in source.labels]
    assert named == ["zebra", "cat", "dog", "cat", "zebra", "dog"]


def test_lists_that_do_not_fit_get_a_sentence(tmp_path: Path, cache: None) -> None:
    who = [["ann", "bob", "cy"], ["cy"], ["bob", "ann"], ["bob", "cy", "ann"]]
    table = of_lists(tmp_path, "parquet", votes=VOTES, who=who)
    with pytest.raises(InputError, match=r"row 2 of t\.parquet has 2 labels, but 1 annotator; it takes one annotator"):
        read_source(table, annotator_column="who")
    with pytest.raises(InputError, match="not text or whole numbers; --annotator-columns votes reads one label"):
        read_source(table, label_column="votes")
    with pytest.raises(InputError, match=r"'who' of t\.parquet holds lists of annotators; say with --label-column"):
        read_source(table, annotator_column="who", label_column="image")
