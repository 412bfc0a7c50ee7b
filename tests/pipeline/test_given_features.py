"""Features from the user's own file: which row belongs to which image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from cvcoteach._csv import write_csv
from cvcoteach._progress import Progress
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, read_source
from cvcoteach.pipeline.given_features import GivenFeatures, given_features
from cvcoteach.pipeline.listing import list_images
from cvcoteach.pipeline.progress import RunProgress
from tests.images import class_folders


class Notes:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def note(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def progress(self, update: Progress) -> None:
        """Ignore it."""


def matched(file: Path, source: Source, notes: Notes | None = None) -> GivenFeatures:
    return given_features(file, source, RunProgress(notes))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images in class folders, and one file that is none."""
    class_folders(tmp_path / "photos", n=12, wrong=0)
    (tmp_path / "photos" / "bar" / "000b.png").write_text("no image")
    return tmp_path / "photos"


def rows_for(paths: list[str]) -> np.ndarray:
    """A row that says which image it is of: its number, twice."""
    return np.array([[int(Path(path).stem), -1.0] for path in paths], np.float32)


def belong(found: GivenFeatures) -> bool:
    """Whether each image has its own row."""
    return bool((found.features == rows_for(list(found.source.paths))).all()) and len(found.source) > 0


def test_the_list_says_which_row_belongs_to_which_image(photos: Path) -> None:
    listing = list_images(photos)
    assert list(listing.unreadable) == ["bar/000b.png"]
    assert list(listing.table) == ["path", "label", "file"]
    assert all(Path(file).is_file() for file in listing.table.file)
    assert (listing.table.path.str.split("/").str[0] == listing.table.label).all()
    file = photos.parent / "x.npy"
    np.save(file, rows_for(listing.table.path.tolist()))
    found = matched(file, read_source(photos))
    assert list(found.source.paths) == listing.table.path.tolist()
    assert list(found.unreadable) == ["bar/000b.png"]
    assert belong(found)


def test_with_a_row_for_every_file_none_is_opened(photos: Path) -> None:
    source = read_source(photos)
    np.save(photos.parent / "x.npy", np.zeros((13, 2)))
    assert matched(photos.parent / "x.npy", source).source is source


def test_rows_with_paths_are_matched_in_any_order(photos: Path) -> None:
    paths = list_images(photos).table.path.tolist()[::-1]
    file = photos.parent / "x.npz"
    for names in (paths, [str(photos / path) for path in paths], [f"./{path}" for path in paths]):
        np.savez(file, features=rows_for(paths), paths=names)
        found = matched(file, read_source(photos))
        assert len(found.source) == 12
        assert belong(found)
        assert list(found.unreadable) == ["bar/000b.png"]
    np.savez(file, embeddings=rows_for(paths), paths=np.array(paths).astype("S"))  # another name, bytes
    assert belong(matched(file, read_source(photos)))


def test_an_image_that_was_moved_keeps_its_row(photos: Path) -> None:
    paths = list_images(photos).table.path.tolist()
    np.savez(photos.parent / "x.npz", features=rows_for(paths), paths=paths)
    (photos / "cross" / "001.png").rename(photos / "ring" / "001.png")
    (photos / "bar" / "000.png").unlink()
    notes = Notes()
    found = matched(photos.parent / "x.npz", read_source(photos), notes)
    assert "ring/001.png" in found.source.paths
    assert belong(found)
    assert any("1 row of" in sentence and "ignored" in sentence for sentence in notes.sentences)


def test_two_of_one_name_are_not_taken_for_each_other(photos: Path) -> None:
    paths = list_images(photos).table.path.tolist()
    twice = [*paths, "elsewhere/001.png"]
    np.savez(photos.parent / "x.npz", features=rows_for(twice), paths=twice)
    (photos / "cross" / "001.png").rename(photos / "ring" / "001.png")
    with pytest.raises(InputError, match="1 of 13 images has no row"):
        matched(photos.parent / "x.npz", read_source(photos))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"features": np.zeros((12, 2)), "paths": np.zeros(12)}, "rows of features need text"),
        ({"features": np.zeros((12, 2)), "paths": np.array(["a"] * 11)}, "rows of features need text"),
        ({"features": np.zeros((2, 2)), "paths": np.array(["a", "./a"])}, "'a' twice"),
        ({"features": np.zeros((2, 2)), "paths": np.array(["a", "b"])}, "none of the 2 paths"),
        ({"features": np.zeros(12)}, "has shape"),
        ({"x": np.zeros((12, 2)), "y": np.zeros((12, 2))}, "has no array 'features'"),
        ({"features": np.zeros((7, 2))}, "7 rows, but the source has 12 images"),
        ({"features": np.zeros((14, 2))}, "cvcoteach list SOURCE"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(photos: Path, arrays: dict[str, np.ndarray], sentence: str) -> None:
    np.savez(photos.parent / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=sentence):
        matched(photos.parent / "x.npz", read_source(photos))


def test_a_missing_file_and_pickled_objects_are_refused(photos: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        matched(photos / "absent.npz", read_source(photos))
    np.savez(photos.parent / "x.npz", features=np.zeros((12, 2)), paths=np.array(["a", None]))
    with pytest.raises(InputError, match="could run code"):
        matched(photos.parent / "x.npz", read_source(photos))


def test_a_name_that_looks_like_a_formula_is_found_by_its_name_in_the_list(tmp_path: Path) -> None:
    class_folders(tmp_path / "photos", n=12, wrong=0)
    (tmp_path / "photos" / "bar").rename(tmp_path / "photos" / "=1+1")
    file = tmp_path / "order.csv"
    table = list_images(tmp_path / "photos").table
    write_csv(file, table)
    written = pd.read_csv(file).path.tolist()
    assert written[0].startswith("'=1+1/")
    np.savez(tmp_path / "x.npz", features=rows_for(written), paths=written)
    found = matched(tmp_path / "x.npz", read_source(tmp_path / "photos"))
    assert_array_equal(found.features, rows_for(table.path.tolist()))
