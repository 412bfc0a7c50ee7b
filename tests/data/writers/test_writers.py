"""A source under other labels, written in its own format and read back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices, Source, read_source
from cvcoteach.data.writers import Copy, check_destination, names_in_copy, write_copy
from tests.images import class_folders, dataset

CHANGED = {0: 2, 5: 1, 7: 1}  # added to the number of the class
DROPPED = (3, 11)


def copy_of(source: Source, choices: Choices | None = None) -> Copy:
    """A copy with three labels changed and two images left out."""
    labels, kept = source.labels.copy(), np.ones(len(source), bool)
    for row, label in CHANGED.items():
        labels[row] = (labels[row] + label) % 3
    kept[list(DROPPED)] = False
    return Copy(source, choices or Choices(), labels, kept)


def written(copy: Copy, destination: Path, **choices: str) -> Source:
    """The copy as it is read back."""
    check_destination(copy, destination)
    write_copy(copy, destination, lambda done, to_do: None)
    return read_source(destination, **choices)


def labels_of(source: Source) -> list[str]:
    return [source.class_names[label] for label in source.labels]


def expected(copy: Copy) -> list[str]:
    return [copy.source.class_names[label] for label in copy.labels[copy.kept]]


@pytest.fixture
def folder(tmp_path: Path) -> Source:
    """A folder of class folders."""
    class_folders(tmp_path / "shapes", n=30)
    return read_source(tmp_path / "shapes")


def table_of(folder: Source) -> pd.DataFrame:
    """Paths, labels, and a column of the user's own that looks like a formula."""
    return pd.DataFrame({"path": folder.paths, "label": labels_of(folder), "note": '=1+1, "quoted"'})


def test_a_folder_moves_images_between_class_folders_and_leaves_the_source_alone(
    folder: Source, tmp_path: Path
) -> None:
    before = {file: file.read_bytes() for file in folder.location.rglob("*.png")}
    copy = copy_of(folder)
    names = names_in_copy(copy)
    read = written(copy, tmp_path / "new" / "fixed")
    assert sorted(read.paths) == sorted(name for name, kept in zip(names, copy.kept, strict=True) if kept)
    given = dict(zip(read.paths, labels_of(read), strict=True))
    assert [given[name] for name, kept in zip(names, copy.kept, strict=True) if kept] == expected(copy)
    for row in range(len(folder)):
        if copy.kept[row]:
            assert (read.location / names[row]).read_bytes() == Path(folder.files[row]).read_bytes()
    assert {file: file.read_bytes() for file in folder.location.rglob("*.png")} == before
    assert not list((tmp_path / "new").glob(".*"))


def test_two_images_of_one_name_both_arrive(folder: Source, tmp_path: Path) -> None:
    clash = folder.location / folder.class_names[2] / Path(folder.paths[0]).name
    clash.write_bytes(Path(folder.files[-1]).read_bytes())
    source = read_source(folder.location)
    read = written(copy_of(source), tmp_path / "fixed")
    assert len(read) == len(source) - len(DROPPED)
    assert f"{clash.stem}-{folder.class_names[0]}.png" in {Path(path).name for path in read.paths}


def test_a_copy_lies_outside_of_its_source_and_on_nothing_else(folder: Source, tmp_path: Path) -> None:
    copy = copy_of(folder)
    for place in (folder.location / "fixed", tmp_path):
        with pytest.raises(InputError, match=r"lies in .* or around it|already exists"):
            check_destination(copy, place)
    (tmp_path / "taken").mkdir()
    check_destination(copy, tmp_path / "taken")  # empty
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="already exists; name another place"):
        check_destination(copy, tmp_path / "taken")


def test_a_missing_file_leaves_nothing_behind(folder: Source, tmp_path: Path) -> None:
    Path(folder.files[-1]).unlink()
    with pytest.raises(InputError, match=r"is missing; .*fixed was not written"):
        write_copy(copy_of(folder), tmp_path / "fixed", lambda done, to_do: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shapes"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_text_table_keeps_every_character_that_does_not_change(folder: Source, tmp_path: Path, suffix: str) -> None:
    file = folder.location / f"labels{suffix}"
    text = table_of(folder).to_csv(index=False, sep="\t" if suffix == ".tsv" else ";", lineterminator="\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    copy = copy_of(read_source(file))
    read = written(copy, folder.location / f"fixed{suffix}")
    assert labels_of(read) == expected(copy)
    lines = (folder.location / f"fixed{suffix}").read_bytes().splitlines(keepends=True)
    original = file.read_bytes().splitlines(keepends=True)
    assert lines[0] == original[0]
    same = [line for row, line in enumerate(original[1:]) if row not in CHANGED and row not in DROPPED]
    assert [line for line in lines[1:] if line in original] == same
    assert all(line.endswith(b"\r\n") for line in lines)


def test_a_table_elsewhere_leads_to_the_same_files(folder: Source, tmp_path: Path) -> None:
    table_of(folder).to_csv(folder.location / "labels.csv", index=False)
    table_of(folder).to_parquet(folder.location / "labels.parquet")
    (tmp_path / "elsewhere").mkdir()
    for name in ("labels.csv", "labels.parquet"):
        copy = copy_of(read_source(folder.location / name))
        read = written(copy, tmp_path / "elsewhere" / name)
        assert labels_of(read) == expected(copy)
        files = [file for file, kept in zip(copy.source.files, copy.kept, strict=True) if kept]
        assert [Path(file).resolve() for file in read.files] == [Path(file).resolve() for file in files]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_copy_under_another_name_finds_the_folder_that_has_the_name_of_the_source(
    folder: Source, tmp_path: Path, suffix: str
) -> None:
    frame, file = table_of(folder), tmp_path / f"shapes{suffix}"  # beside the folder shapes, as MedMNIST's save writes
    if suffix == ".csv":
        frame.to_csv(file, index=False, header=False)
    elif suffix == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_parquet(file)
    choices = Choices(label_column="2" if suffix == ".csv" else "label")
    copy = copy_of(read_source(file, label_column=choices.label_column), choices)
    read = written(copy, tmp_path / f"fixed{suffix}", label_column=str(choices.label_column))
    assert labels_of(read) == expected(copy)
    assert read.files == tuple(name for name, kept in zip(copy.source.files or (), copy.kept, strict=True) if kept)


def test_a_pattern_and_a_table_without_a_header_are_kept(folder: Source, tmp_path: Path) -> None:
    file = folder.location / "labels.csv"
    table_of(folder).drop(columns="note").to_csv(file, index=False, header=False)
    copy = copy_of(read_source(file))
    assert labels_of(written(copy, folder.location / "fixed.csv")) == expected(copy)
    stems = [path.removesuffix(".png") for path in folder.paths]
    table_of(folder).assign(path=stems).to_csv(file, index=False)
    choices = Choices("path", "label", "{}.png")
    copy = copy_of(read_source(file, path_column="path", label_column="label", path_pattern="{}.png"), choices)
    read = written(copy, tmp_path / "fixed2.csv", path_pattern=f"{folder.location}/{{}}.png", label_column="label")
    assert labels_of(read) == expected(copy)
    assert read.paths[0] == stems[0]


@pytest.mark.parametrize("kind", ["text", "dictionary", "named numbers"])
def test_parquet_keeps_schema_and_metadata(folder: Source, kind: str) -> None:
    names = labels_of(folder)
    label = {
        "text": pa.array(names),
        "dictionary": pa.array(names).dictionary_encode(),
        "named numbers": pa.array(folder.labels, pa.int32()),
    }[kind]
    schema = pa.schema([("path", pa.string()), ("label", label.type), ("id", pa.int16())])
    if kind == "named numbers":
        features = {"label": {"_type": "ClassLabel", "names": list(folder.class_names)}}
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = folder.location / "labels.parquet"
    table = pa.table([list(folder.paths), label, list(range(len(folder)))], schema=schema)
    pq.write_table(table, file, row_group_size=8, compression="zstd")
    copy = copy_of(read_source(file, label_column="label"), Choices(label_column="label"))
    read = written(copy, folder.location / "fixed.parquet", label_column="label")
    assert labels_of(read) == expected(copy)
    assert pq.read_schema(folder.location / "fixed.parquet").equals(schema, check_metadata=True)
    ids = pq.read_table(folder.location / "fixed.parquet")["id"].to_pylist()
    assert ids == [row for row in range(len(folder)) if row not in DROPPED]


def test_rows_without_a_label_stay_as_they_are(folder: Source) -> None:
    features = {"label": {"_type": "ClassLabel", "names": list(folder.class_names)}}
    schema = pa.schema([("path", pa.string()), ("label", pa.int32())]).with_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    labels = folder.labels.copy()
    labels[[2, 9]] = -1
    file = folder.location / "labels.parquet"
    pq.write_table(pa.table([list(folder.paths), labels.astype(np.int32)], schema=schema), file)
    copy = copy_of(read_source(file))
    assert len(copy.source) == len(folder) - 2
    assert labels_of(written(copy, folder.location / "fixed.parquet")) == expected(copy)
    there = pq.read_table(folder.location / "fixed.parquet")
    assert there["label"].to_pylist().count(-1) == 2
    assert there["path"].to_pylist()[2] == folder.paths[2]


def test_one_hot_columns_stay_one_hot(folder: Source) -> None:
    hot = pd.DataFrame(np.eye(3, dtype=int)[folder.labels], columns=list(folder.class_names))
    hot.insert(0, "path", folder.paths)
    hot.to_csv(folder.location / "labels.csv", index=False)
    hot.to_parquet(folder.location / "labels.parquet")
    for name in ("labels.csv", "labels.parquet"):
        copy = copy_of(read_source(folder.location / name))
        fixed = folder.location / f"fixed-{name}"
        assert labels_of(written(copy, fixed)) == expected(copy)
        values = (pd.read_csv if name.endswith("csv") else pd.read_parquet)(fixed).iloc[:, 1:]
        assert (values.sum(axis=1) == 1).all()


def test_an_npz_keeps_its_other_arrays(tmp_path: Path) -> None:
    images, true, given = dataset(40, 0.1)
    other = {"x_test": images[:7], "y_test": true[:7], "x_train": images, "y_train": given.astype(np.uint8)}
    np.savez_compressed(tmp_path / "parts.npz", **other)
    copy = copy_of(read_source(tmp_path / "parts.npz", split="train"), Choices(split="train"))
    read = written(copy, tmp_path / "fixed.npz", split="train")
    assert labels_of(read) == expected(copy)
    np.testing.assert_array_equal(read.array, images[copy.kept])
    with np.load(tmp_path / "fixed.npz") as content:
        np.testing.assert_array_equal(content["x_test"], images[:7])
        assert content["y_train"].dtype == np.uint8
    ids = np.arange(40)
    for name, labels in (
        ("one", given[:, None]),
        ("hot", np.eye(3)[given]),
        ("text", np.array(["a", "b", "c"])[given]),
    ):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels, ids=ids, mean=np.zeros(3))
        copy = copy_of(read_source(tmp_path / f"{name}.npz"))
        assert labels_of(written(copy, tmp_path / f"{name}-fixed.npz")) == expected(copy)
        with np.load(tmp_path / f"{name}-fixed.npz") as content:
            assert content["labels"].shape[1:] == labels.shape[1:]
            assert content["ids"].tolist() == ids[copy.kept].tolist()
            assert content["mean"].shape == (3,)


@pytest.mark.parametrize("kind", ["numbers", "hot", "text"])
def test_an_npz_keeps_the_names_that_it_lists(tmp_path: Path, kind: str) -> None:
    images, _, given = dataset(40, 0.1)
    names = np.array(["zebra", "cat", "dog", *[f"nobody {i}" for i in range(37)]])  # as many as images
    labels = {"numbers": given, "hot": np.eye(40)[given], "text": names[given]}[kind]
    np.savez(tmp_path / "x.npz", images=images, labels=labels, class_names=names)
    copy = copy_of(read_source(tmp_path / "x.npz"))
    assert set(copy.source.class_names) == {"zebra", "cat", "dog"}
    assert labels_of(written(copy, tmp_path / "fixed.npz")) == expected(copy)
    with np.load(tmp_path / "fixed.npz") as content:
        assert content["class_names"].tolist() == names.tolist()
        assert content["labels"].shape[1:] == labels.shape[1:]


def test_an_npz_with_python_objects_beside_is_not_copied(tmp_path: Path) -> None:
    images, _, given = dataset(40, 0.1)
    np.savez(tmp_path / "x.npz", images=images, labels=given, more=np.array(["a", None], object))
    copy = copy_of(read_source(tmp_path / "x.npz"))
    with pytest.raises(InputError, match="holds arrays of Python objects"):
        written(copy, tmp_path / "fixed.npz")


def test_an_npz_of_splits_keeps_them(tmp_path: Path) -> None:
    images, _, given = dataset(60, 0.1)
    parts = {"train_images": images[:40], "train_labels": given[:40, None], "train_ids": np.arange(40)}
    parts |= {"test_images": images[40:], "test_labels": given[40:, None], "test_ids": np.arange(20)}
    np.savez(tmp_path / "parts.npz", **parts)
    copy = copy_of(read_source(tmp_path / "parts.npz"))
    read = written(copy, tmp_path / "fixed.npz")
    assert labels_of(read) == expected(copy)
    assert read.splits is not None
    assert copy.source.splits is not None
    assert read.splits.tolist() == copy.source.splits[copy.kept].tolist()
    np.testing.assert_array_equal(read.array, images[copy.kept])
    with np.load(tmp_path / "fixed.npz") as content:
        assert content["test_ids"].tolist() == np.arange(20)[copy.kept[40:]].tolist()
        assert content["train_labels"].shape == (int(copy.kept[:40].sum()), 1)


def test_a_source_that_changed_meanwhile_is_not_written(folder: Source, tmp_path: Path) -> None:
    file = folder.location / "labels.csv"
    table_of(folder).to_csv(file, index=False)
    copy = copy_of(read_source(file))
    table_of(folder).iloc[::-1].to_csv(file, index=False)
    with pytest.raises(InputError, match="has changed since"):
        write_copy(copy, tmp_path / "fixed.csv", lambda done, to_do: None)
    assert not (tmp_path / "fixed.csv").exists()
    with pytest.raises(InputError, match=r"a copy of a \.csv; let its name end so"):
        check_destination(copy, tmp_path / "fixed.txt")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the system has no links")
def test_a_copy_holds_nothing_that_a_link_of_the_source_names_elsewhere_but_images(
    folder: Source, tmp_path: Path
) -> None:
    """A dataset of somebody else's could name a file of the user's, who would pass it on with the copy."""
    linked = Path(folder.files[0])
    elsewhere = tmp_path / "elsewhere" / "blob"
    elsewhere.parent.mkdir()
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    write_copy(copy_of(folder), tmp_path / "images", lambda done, to_do: None)
    assert any(file.read_bytes() == elsewhere.read_bytes() for file in (tmp_path / "images").rglob("*.png"))
    elsewhere.write_text("for the owner's eyes")
    with pytest.raises(InputError, match=r"is a link to .*blob, which lies outside of .* and is no image"):
        write_copy(copy_of(folder), tmp_path / "secrets", lambda done, to_do: None)
    assert not (tmp_path / "secrets").exists()
