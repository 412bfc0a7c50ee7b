"""Tables: columns found, paths resolved, labels checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import touch, write


def test_a_csv_names_its_images_relative_to_itself(pets: Path) -> None:
    absolute = pets / "c.png"
    table = write(pets / "t.csv", f"path,label\nsub/d.png,dog\na.png,cat\n{absolute},dog\n")
    source = read_source(table)
    assert source.paths == ("sub/d.png", "a.png", str(absolute))
    assert source.files == (str(pets / "sub/d.png"), str(pets / "a.png"), str(absolute))
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    assert (source.root, source.location) == (pets, table)


@pytest.mark.parametrize(
    "header",
    ["filename,class", "Image_Path,TARGET", "file,something", "whatever,category", "whatever,given_label"],
)
def test_obvious_columns_are_found(pets: Path, header: str) -> None:
    source = read_source(write(pets / "t.csv", f"{header}\na.png,x\nb.png,y\n"))
    assert source.paths == ("a.png", "b.png")
    assert source.class_names == ("x", "y")


def test_the_path_column_is_the_one_whose_files_exist(pets: Path) -> None:
    table = write(pets / "t.csv", "image,where,note,label\n17,a.png,p,x\n18,b.png,q,y\n")
    assert read_source(table).paths == ("a.png", "b.png")


def test_of_two_usual_names_the_one_whose_files_exist_is_taken(pets: Path) -> None:
    table = write(pets / "t.csv", "filename,filepath,label\nd.png,sub/d.png,x\nx.png,a.png,y\n")
    assert read_source(table).paths == ("sub/d.png", "a.png")


def test_the_label_of_now_is_taken_not_the_one_that_was_given(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "filepath,given_label,label\na.png,x,y\nb.png,y,x\n"))
    assert [source.class_names[k] for k in source.labels] == ["y", "x"]


def test_columns_can_be_named(pets: Path) -> None:
    table = write(pets / "t.csv", "path,second,label,worse\na.png,c.png,x,p\nb.png,sub/d.png,y,q\n")
    source = read_source(table, path_column="second", label_column="worse")
    assert source.paths == ("c.png", "sub/d.png")
    assert source.class_names == ("p", "q")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,u,v\n1,x,p\n2,y,q\n", "has the columns id, u, v; say with --path-column"),
        ("path,u,v\na.png,x,p\nb.png,y,q\n", "has the columns path, u, v; say with --label-column"),
        ("path,label,class\na.png,x,p\nb.png,y,q\n", "say with --label-column"),
        ("path\na.png\n", "t.csv has no column but path; it takes one of labels as well"),
        ("path,patient_id\na.png,x\nb.png,y\n", "has the columns path, patient_id; say with --label-column"),
        (
            ",".join(f"pixel{i}" for i in range(784)) + "\n" + "0," * 783 + "0\n",
            "pixel18, pixel19 and 764 more; say with --path-column",
        ),
        (",".join("0" for i in range(784)), r"two columns of the same name: 0, (0, )*0 and 764 more\."),
        ("", "is empty"),
        ("path,label\n", "has columns, but no rows"),
        ("path,label\na.png,x\nb.png,x\n", r"holds one class only \(x\)"),
        (
            "path,label\na.png,x\nb.png,\nc.png, \n",
            "2 of 3 labels in the column 'label' of t.csv are missing, .* row 2",
        ),
        ("path,label\na.png,x\nb.png,NaN\n", "1 of 2 labels in .* is missing, the first in row 2"),
        ("path,label\na.png,x\n,y\n", "1 of 2 paths in the column 'path' of t.csv is missing, the first in row 2"),
        ("path,label\na.png,x\nb.png,y,z\n", "cannot be read as a table"),
        (
            "path,label\na.png,x\n1.png,y\n2.png,y\n",
            "2 of 3 paths in the column 'path' of t.csv point nowhere, .* row 2",
        ),
        (
            "path,label\na.png,x\nb.png,y\na.png,y\n",
            "1 row of t.csv gives an earlier path another label, .* row 3: a.png",
        ),
    ],
)
def test_a_table_that_does_not_fit_gets_a_sentence(pets: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(write(pets / "t.csv", text))


def test_an_unknown_column_names_the_near_one(pets: Path) -> None:
    table = write(pets / "t.csv", "path,label\na.png,x\nb.png,y\n")
    with pytest.raises(InputError, match=r"no column 'lable' \(--label-column\); did you mean label\?"):
        read_source(table, label_column="lable")


def test_a_few_missing_files_are_left_to_the_decoder(pets: Path) -> None:
    assert len(read_source(write(pets / "t.csv", "path,label\na.png,x\nb.png,y\ngone.png,y\n"))) == 3


def test_a_path_that_comes_twice_is_noted(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na.png,x\nb.png,y\na.png,x\n"))
    assert len(source) == 3
    assert source.notes[0].startswith("1 row of t.csv repeats an earlier path")


# -- paths --


def test_backslashes_are_slashes_where_only_that_names_files(pets: Path) -> None:
    touch(pets, "sub/e.png")
    source = read_source(write(pets / "t.csv", "path,label\nsub\\d.png,x\nsub\\e.png,y\n"))
    assert source.paths == ("sub\\d.png", "sub\\e.png")
    assert source.files == (str(pets / "sub/d.png"), str(pets / "sub/e.png"))
    assert source.notes == ("backslashes were read as slashes in the column 'path' of t.csv.",)


def test_a_missing_ending_is_found(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na,x\nb,y\n"))
    assert source.files == (str(pets / "a.png"), str(pets / "b.png"))
    assert source.notes == ("the ending .png was added to the paths in the column 'path' of t.csv.",)


def test_a_pattern_makes_files_of_ids(pets: Path) -> None:
    (pets / "tables").mkdir()
    table = write(pets / "tables" / "t.csv", "id,label\na,x\nb,y\n")
    source = read_source(table, path_column="id", path_pattern="../{}.png")
    assert source.paths == ("a", "b")
    assert [Path(file).resolve() for file in source.files or ()] == [pets / "a.png", pets / "b.png"]
    with pytest.raises(InputError, match=r"--path-pattern is 'x'; it takes \{\}"):
        read_source(table, path_column="id", path_pattern="x")


@pytest.mark.parametrize("start", ["https://example.org/", "s3://bucket/"])
def test_addresses_on_the_web_are_named_as_such(pets: Path, start: str) -> None:
    table = write(pets / "t.csv", f"path,label\n{start}a.png,x\n{start}b.png,y\n")
    with pytest.raises(
        InputError, match=r"are addresses on the web, the first in row 1: .*; download the images first"
    ):
        read_source(table)


def test_images_that_lie_beside_the_tables_folder_are_found_for_the_message(pets: Path) -> None:
    (pets / "tables").mkdir()
    table = write(pets / "tables" / "t.csv", "path,label\na.png,x\nb.png,y\n")
    with pytest.raises(InputError, match=rf"they are found from {pets}: --path-pattern '{pets}/\{{\}}'"):
        read_source(table)


# -- labels --


def test_one_column_per_class_is_read(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,cat,dog,bird\na.png,1,0,0\nb.png,0,0,1\nc.png,0.0,1.0,0\n"))
    assert source.class_names == ("bird", "cat", "dog")
    assert source.labels.tolist() == [1, 0, 2]
    assert source.description == "3 images, 3 classes, columns path and, one-hot, cat, dog, bird of t.csv"


def test_several_labels_per_image_are_not_one_hot(pets: Path) -> None:
    with pytest.raises(InputError, match=r"the columns cat to dog of t\.csv give several labels to 1 of 2 images"):
        read_source(write(pets / "t.csv", "path,cat,dog\na.png,1,1\nb.png,0,1\n"))
    with pytest.raises(
        InputError, match=r"cat to dog of t\.csv give no label to 1 of 3 images, the first in row 2; one"
    ):
        read_source(write(pets / "t.csv", "path,cat,dog\na.png,1,0\nb.png,0,0\nc.png,0,1\n"))


def test_a_column_of_ids_is_not_taken_for_labels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.png" for i in range(20)))
    table = write(tmp_path / "t.csv", "id,file\n" + "".join(f"{i},{i}.png\n" for i in range(20)))
    with pytest.raises(InputError, match=r"each of the 20 labels of t.csv is a different one, as in a column of ids"):
        read_source(table)


def test_a_table_says_what_was_understood(pets: Path) -> None:
    source = read_source(write(pets / "photos.csv", "file,kind\na.png,x\nb.png,y\nc.png,y\n"))
    assert source.description == "3 images, 2 classes, columns file and kind of photos.csv"


@pytest.mark.parametrize("header", ["path,split,kind", "path,part,kind"])
def test_a_column_of_splits_is_no_label_and_keeps_them_apart(pets: Path, header: str) -> None:
    source = read_source(write(pets / "t.csv", f"{header}\na.png,train,cat\nb.png,Train,dog\nc.png,test,cat\n"))
    assert source.class_names == ("cat", "dog")
    assert source.splits is not None
    assert source.splits.tolist() == ["train", "Train", "test"]
    column = header.split(",")[1]
    assert source.description.endswith(f"columns path and kind of t.csv, splits in the column {column}")


def test_numbered_folds_are_judged_together_unless_they_are_named_as_splits(pets: Path) -> None:
    table = write(pets / "t.csv", "path,fold,kind\na.png,1,cat\nb.png,1,dog\nc.png,2,cat\n")
    together = read_source(table)
    assert together.splits is None
    assert together.notes == (
        "the column 'fold' of t.csv names parts of a dataset; images of all parts are judged together.",
    )
    apart = read_source(table, split_column="fold")
    assert apart.splits is not None
    assert apart.splits.tolist() == ["1", "1", "2"]


def test_parts_beyond_train_and_test_are_kept_apart_where_the_column_is_named(pets: Path) -> None:
    table = write(pets / "t.csv", "path,subset,kind\na.png,train,cat\nb.png,train,dog\nc.png,extra,cat\n")
    notes = read_source(table).notes
    assert any("judged together (--split-column subset keeps them apart)" in note for note in notes)


def test_numbered_parts_are_described_in_order_of_their_numbers(pets: Path) -> None:
    rows = [(name, fold) for fold in (10, 4, 0, 2) for name in (f"{fold}-a.png", f"{fold}-b.png")]
    touch(pets, *[name for name, _ in rows])
    text = "".join(f"{name},{fold},{'xy'[i % 2]}\n" for i, (name, fold) in enumerate(rows))
    source = read_source(write(pets / "t.csv", f"path,fold,kind\n{text}"), split_column="fold")
    assert source.description.startswith("8 images (2 in 0, 2 in 2, 2 in 4, 2 in 10), 2 classes, ")


def test_groups_of_a_table_are_numbered_and_stay_with_their_images(pets: Path) -> None:
    table = write(pets / "t.csv", "path,label,patient\na.png,x,7\nb.png,y,7\nc.png,x,3\n")
    source = read_source(table, group_column="patient")
    assert source.groups is not None
    assert source.groups.tolist() == [0, 0, 1]
    assert source.subset([2, 0]).groups.tolist() == [1, 0]
    assert source.class_names == ("x", "y")
    assert read_source(table, label_column="label").groups is None
    with pytest.raises(
        InputError, match=r"1 of 2 groups in the column 'patient' of t\.csv is missing, the first in row 2"
    ):
        read_source(write(pets / "t.csv", "path,label,patient\na.png,x,7\nb.png,y,\n"), group_column="patient")


@pytest.mark.parametrize("header", ["path,split,fold", "path,subset,partition"])
def test_a_table_of_paths_and_splits_alone_gets_a_sentence(pets: Path, header: str) -> None:
    with pytest.raises(
        InputError, match=rf"t\.csv has no column but {header.replace(',', ', ')}; it takes one of labels"
    ):
        read_source(write(pets / "t.csv", f"{header}\na.png,train,1\nb.png,test,2\n"))
