"""Sources: what a user names becomes paths and labels, or one sentence that says why not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source


def touch(root: Path, *names: str) -> Path:
    """Empty files, folders and all: sources never open an image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(file: Path, text: str) -> Path:
    file.write_text(text, "utf-8")
    return file


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder with four files that a table can name."""
    return touch(tmp_path, "a.png", "b.png", "c.png", "sub/d.png")


# -- a folder of class folders --


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
    assert source.notes == ("2 files are no images by their name and were left out: .heic, .txt.",)


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
        (["a/readme"], r"holds 1 folders, but no images in them \(files of other kinds: no suffix\)"),
        (["a/1.jpg", "a/2.jpg"], r"holds one class only \(a\)"),
        (["train/cat/1.jpg", "val/cat/2.jpg"], "train and val, which look like parts of a dataset.*/train"),
    ],
)
def test_a_folder_that_does_not_fit_gets_a_sentence(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(touch(tmp_path, *names))


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    assert read_source(touch(tmp_path, "train/1.jpg", "test/2.jpg")).class_names == ("test", "train")


def test_what_does_not_exist_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_source(tmp_path / "nowhere")


def test_a_file_of_another_kind_gets_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "x.zip")
    with pytest.raises(InputError, match=r"x\.zip is of no kind that can be read"):
        read_source(tmp_path / "x.zip")


def test_columns_belong_to_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--label-column is 'label', but .* is no table"):
        read_source(touch(tmp_path, "a/1.jpg", "b/2.jpg"), label_column="label")


# -- tables --


def test_a_csv_names_its_images_relative_to_itself(pets: Path) -> None:
    absolute = pets / "c.png"
    table = write(pets / "t.csv", f"path,label\nsub/d.png,dog\na.png,cat\n{absolute},dog\n")
    source = read_source(table)
    assert source.paths == ("sub/d.png", "a.png", str(absolute))
    assert source.files == (str(pets / "sub/d.png"), str(pets / "a.png"), str(absolute))
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    assert (source.root, source.location) == (pets, table)


def test_whole_numbers_are_ordered_by_value(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na.png,10\nb.png,9\nc.png,-1\n"))
    assert source.class_names == ("-1", "9", "10")
    assert source.labels.tolist() == [2, 1, 0]


def test_whole_numbers_that_became_floats_are_whole_numbers(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na.png,10.0\nb.png,9.0\nc.png,9\n"))
    assert source.class_names == ("9", "10")
    assert source.labels.tolist() == [1, 0, 0]


def test_numbers_among_names_are_names(pets: Path) -> None:
    source = read_source(write(pets / "t.csv", "path,label\na.png,10\nb.png,9\nc.png,none\n"))
    assert source.class_names == ("10", "9", "none")


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
        ("path\na.png\n", "say with --label-column"),
        ("", "is empty"),
        ("path,label\n", "has columns, but no rows"),
        ("path,label\na.png,x\nb.png,x\n", r"holds one class only \(x\)"),
        (
            "path,label\na.png,x\nb.png,\nc.png, \n",
            "2 of 3 labels in the column 'label' of t.csv are missing, .* row 2",
        ),
        ("path,label\na.png,x\nb.png,NaN\n", "1 of 2 labels in .* are missing, the first in row 2"),
        ("path,label\na.png,x\n,y\n", "1 of 2 paths in the column 'path' of t.csv are missing, the first in row 2"),
        ("path,label\na.png,x\nb.png,y,z\n", "cannot be read as a table"),
        (
            "path,label\na.png,x\n1.png,y\n2.png,y\n",
            "2 of 3 paths in the column 'path' of t.csv point nowhere, .* row 2",
        ),
        (
            "path,label\na.png,x\nb.png,y\na.png,y\n",
            "1 rows of t.csv give an earlier path another label, .* row 3: a.png",
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
    assert source.notes[0].startswith("1 rows of t.csv repeat an earlier path")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_seen(pets: Path, separator: str) -> None:
    text = "path,label\na.png,x\nb.png,y\n".replace(",", separator)
    assert read_source(write(pets / "t.csv", text)).paths == ("a.png", "b.png")
    assert read_source(write(pets / "t.tsv", text.replace(separator, "\t"))).class_names == ("x", "y")


def test_a_byte_order_mark_is_no_part_of_a_name(pets: Path) -> None:
    (pets / "t.csv").write_bytes("\ufeffpath,label\na.png,é\nb.png,y\n".encode())
    assert read_source(pets / "t.csv").class_names == ("y", "é")


def test_text_that_is_no_utf8_gets_a_sentence(pets: Path) -> None:
    (pets / "t.csv").write_bytes("path,label\na.png,é\nb.png,y\n".encode("latin-1"))
    with pytest.raises(InputError, match="is no UTF-8 text"):
        read_source(pets / "t.csv")


@pytest.mark.parametrize(
    ("labels", "class_names"),
    [
        (["y", "x"], ("x", "y")),
        ([10, 9], ("9", "10")),
        ([10.0, 9.0], ("9", "10")),
        ([True, False], ("False", "True")),
        (pd.Categorical(["y", "x"], categories=["y", "x", "unused"]), ("x", "y")),
    ],
)
def test_parquet_takes_every_kind_of_label(pets: Path, labels: object, class_names: tuple[str, ...]) -> None:
    table = pd.DataFrame({"path": ["a.png", "b.png"], "label": labels}, index=[7, 3])
    table.to_parquet(pets / "t.parquet")
    source = read_source(pets / "t.parquet")
    assert source.class_names == class_names
    assert source.labels.tolist() == [1, 0]


def test_missing_labels_in_parquet_get_a_sentence(pets: Path) -> None:
    pd.DataFrame({"path": ["a.png", "b.png"], "label": [1.0, np.nan]}).to_parquet(pets / "t.parquet")
    with pytest.raises(InputError, match=r"1 of 2 labels .* row 2"):
        read_source(pets / "t.parquet")
    pd.DataFrame({"path": ["a.png", "b.png"], "label": [None, "x"]}).to_parquet(pets / "t.parquet")
    with pytest.raises(InputError, match=r"1 of 2 labels .* row 1"):
        read_source(pets / "t.parquet")


def test_images_inside_parquet_get_a_sentence(pets: Path) -> None:
    pd.DataFrame({"image": [{"bytes": b"", "path": "a"}] * 2, "label": ["x", "y"]}).to_parquet(pets / "t.parquet")
    with pytest.raises(InputError, match="--path-column"):
        read_source(pets / "t.parquet")
    with pytest.raises(InputError, match=r"'image' of t.parquet holds struct"):
        read_source(pets / "t.parquet", path_column="image")


def test_a_broken_parquet_gets_a_sentence(pets: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_source(write(pets / "t.parquet", "PAR1"))


# -- arrays --


def save(folder: Path, **arrays: object) -> Path:
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.bool_])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 3), (3, 4, 5, 4)])
def test_an_npz_holds_images_and_labels(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    images = np.ones(shape, dtype)
    source = read_source(save(tmp_path, images=images, labels=np.array([4, 2, 4])))
    assert source.array is not None
    assert source.array.dtype == dtype
    np.testing.assert_array_equal(source.array, images)
    assert source.files is None
    assert source.paths == ("x.npz#0", "x.npz#1", "x.npz#2")
    assert source.class_names == ("2", "4")
    assert source.labels.tolist() == [1, 0, 1]


def test_labels_of_an_npz_may_be_text(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    assert read_source(save(tmp_path, images=images, labels=np.array(["b", "a"]))).class_names == ("a", "b")
    assert read_source(save(tmp_path, images=images, labels=np.array([b"b", b"a"]))).labels.tolist() == [1, 0]


FITS = np.zeros((2, 4, 4), np.uint8)
TWO = np.array([0, 1])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": FITS}, "has no array images and no array labels; it holds x"),
        ({"images": FITS}, "has no array labels; it holds images"),
        ({"images": FITS, "labels": np.array([0, 1, 1])}, r"labels in x.npz has shape \(3,\); 2 images need \(2,\)"),
        ({"images": FITS, "labels": TWO[:, None]}, r"shape \(2, 1\)"),
        ({"images": FITS[0], "labels": TWO}, r"images in x.npz has shape \(4, 4\)"),
        ({"images": np.zeros((2, 3, 9, 9), np.uint8), "labels": TWO}, r"channels last: images.transpose\(0, 2, 3, 1\)"),
        ({"images": FITS.astype(np.int64), "labels": TWO}, "holds int64; it takes uint8"),
        ({"images": FITS + 255.0, "labels": TWO}, "values from 255 to 255; floats lie in"),
        ({"images": FITS + np.nan, "labels": TWO}, "values from nan"),
        ({"images": FITS, "labels": np.array([0, np.nan])}, "1 of 2 labels in x.npz are missing, the first in row 2"),
        ({"images": FITS, "labels": np.array(["a", ""])}, "1 of 2 labels in x.npz are missing"),
        ({"images": FITS, "labels": np.array([1j, 2])}, "labels in x.npz holds complex128"),
        ({"images": FITS, "labels": np.array(["a", None], object)}, "arrays of Python objects"),
        ({"images": FITS[:0], "labels": TWO[:0]}, "it takes"),
        ({"images": FITS, "labels": np.array([3, 3])}, r"holds one class only \(3\)"),
    ],
)
def test_an_npz_that_does_not_fit_gets_a_sentence(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_source(save(tmp_path, **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"text"])
def test_a_broken_npz_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz cannot be read as \.npz|Python objects"):
        read_source(tmp_path / "x.npz")


def test_one_array_alone_is_no_npz(tmp_path: Path) -> None:
    with open(tmp_path / "x.npz", "wb") as file:
        np.save(file, FITS)
    with pytest.raises(InputError, match=r"cannot be read as \.npz"):
        read_source(tmp_path / "x.npz")


# -- parts --


def test_a_subset_keeps_the_numbers_of_the_classes(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg"))
    for which in (np.array([False, False, True]), [2]):
        part = source.subset(which)
        assert part.paths == ("c/3.jpg",)
        assert part.labels.tolist() == [2]
        assert part.class_names == ("a", "b", "c")
        assert part.files == (str(tmp_path / "c/3.jpg"),)


def test_a_subset_of_an_npz_takes_its_images_along(tmp_path: Path) -> None:
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    part = read_source(save(tmp_path, images=images, labels=TWO)).subset([1])
    assert part.paths == ("x.npz#1",)
    assert part.array is not None
    np.testing.assert_array_equal(part.array, images[1:])
