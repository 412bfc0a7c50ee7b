"""What a caller has in hand: arrays, tensors, paths, datasets - or one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from cvcoteach._validation import InputError
from cvcoteach.data.items import kind_of, labels_of_dataset, load_any, pixels_of

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


class Stream(IterableDataset[Any]):
    """A dataset without numbers."""

    def __iter__(self) -> Iterator[Any]:
        """Nothing in it."""
        return iter(())


class Pictures:
    """Items of any kind."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


class Transformed:
    """As torchvision's `ImageFolder`: `targets`, and items whose labels may be others."""

    def __init__(self, change: Any = None, target_transform: Any = None) -> None:
        """change: of the labels, unseen in `target_transform`."""
        self.targets = [0, 1, 2, 3]
        self.target_transform = target_transform
        self.change = change or target_transform or int

    def __len__(self) -> int:
        """Four."""
        return 4

    def __getitem__(self, row: int) -> tuple[np.ndarray, Any]:
        """One of them."""
        return PIXELS[row], self.change(self.targets[row])


def test_the_kind_of_everything_is_known() -> None:
    paths = ["a.png", "b.png"]
    assert kind_of(paths) == kind_of(np.array(paths)) == kind_of(tuple(map(Path, paths))) == "paths"
    assert kind_of(pd.Series(paths, index=[7, 3])) == kind_of(pd.Index(paths)) == "paths"
    assert kind_of(PIXELS) == kind_of(torch.from_numpy(PIXELS)) == "images"
    assert kind_of(np.zeros((3, 2))) == kind_of([[1, 2], [3, 4]]) == kind_of(pd.DataFrame({"a": [1]})) == "features"
    assert kind_of(Transformed()) == kind_of(list(PIXELS)) == kind_of([Image.new("L", (4, 4))]) == "dataset"
    assert kind_of(TensorDataset(torch.zeros(3, 1, 4, 4))) == "dataset"


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (Stream(), "X is a Stream, which has no length"),
        (iter([1]), "which has no length"),
        (DataLoader(TensorDataset(torch.zeros(3, 1, 4, 4))), r"X is a DataLoader; hand over its dataset: X\.dataset"),
        ({"image": PIXELS}, "X is a dict of image; hand over its images"),
    ],
)
def test_what_has_no_rows_gets_a_sentence(X: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind_of(X)


def test_a_hugging_face_dataset_gets_a_sentence() -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(InputError, match=r"Hugging Face dataset; hand over its columns"):
        kind_of(datasets.Dataset.from_dict({"label": [0, 1]}))


def test_labels_are_those_that_the_dataset_gives() -> None:
    assert labels_of_dataset(Transformed()).tolist() == [0, 1, 2, 3]
    assert labels_of_dataset(Transformed(target_transform=lambda label: label % 2)).tolist() == [0, 1, 0, 1]
    assert labels_of_dataset(Transformed(change=lambda label: label % 2)).tolist() == [0, 1, 0, 1]
    assert labels_of_dataset(Transformed(change=torch.tensor)).tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"the label of item 0 has shape \(2,\)"):
        labels_of_dataset(Transformed(change=lambda label: torch.zeros(2)))
    with pytest.raises(InputError, match="items of the dataset hold no label"):
        labels_of_dataset(TensorDataset(torch.zeros(3, 1, 4, 4)))


@pytest.mark.parametrize(
    "X",
    [
        PIXELS,
        PIXELS.tolist(),
        PIXELS.astype(np.int64),
        PIXELS / 255,
        torch.from_numpy(PIXELS),
        list(PIXELS),
        [Image.fromarray(picture) for picture in PIXELS],
        [torch.from_numpy(picture).permute(2, 0, 1) for picture in PIXELS],
        TensorDataset(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.arange(4)),
    ],
)
def test_images_of_every_kind_become_the_same_pixels(X: Any) -> None:
    np.testing.assert_allclose(pixels_of(X).astype(int), PIXELS, atol=1)


def test_a_series_of_paths_is_read_as_a_list_of_them(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i}.png") for i in range(4)]
    for file, picture in zip(files, PIXELS, strict=True):
        Image.fromarray(picture).save(file)
    series = pd.Series(files, index=[3, 1, 2, 0])
    np.testing.assert_array_equal(load_any(series, "paths").pixels, load_any(files, "paths").pixels)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 5)), r"images has shape \(4, 5\); it takes images \(n, H, W\)"),
        (np.zeros((4, 3, 8, 9), np.uint8), "channels last"),
        ([[[1, 2], [3]], [[1, 2], [3, 4]]], "images has rows of different lengths"),
        (3, "X is a int, which has no length"),
    ],
)
def test_images_of_another_shape_get_a_sentence(X: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pixels_of(X, "images")


@pytest.mark.parametrize(
    ("X", "kind"),
    [
        (np.zeros((4, 8, 8)), "images"),
        (np.zeros((4, 8, 8, 3)), "images"),
        (np.zeros((4, 8)), "features"),
        ([[1.0, 2.0]], "features"),
        (["a.png", "b.png"], "paths"),
        ([Path("a.png")], "paths"),
        (np.array(["a.png"]), "paths"),
        (TensorDataset(torch.zeros(2, 1)), "dataset"),
    ],
)
def test_kinds_are_told_apart(X: Any, kind: str) -> None:
    assert kind_of(X) == kind


def test_arrays_become_square_uint8_of_their_own_size_or_the_wanted_one() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 12, 12), np.uint8)
    own = load_any(grey, "images").pixels
    assert own.shape == (3, 12, 12, 1)
    np.testing.assert_array_equal(own[..., 0], grey)
    assert load_any(grey, "images", own_size=16).pixels.shape == (3, 16, 16, 1)
    assert load_any(grey, "images", size=10, channels=3, own_size=16).pixels.shape == (3, 10, 10, 3)


def test_floats_of_a_dataset_are_rounded_to_bytes() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    (found,) = load_any(Pictures([(image, 1)]), "dataset").pixels
    np.testing.assert_array_equal(found, (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def test_pictures_of_several_sizes_are_squashed_to_the_first() -> None:
    found = load_any(Pictures([Image.new("L", (9, 9)), Image.new("RGB", (20, 14), "red")]), "dataset").pixels
    assert found.shape == (2, 9, 9, 3)


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "X is an empty dataset; it takes one image per label"),
        ([np.full((8, 8), np.nan)], r"X\[0\] has values from nan to nan; it takes finite numbers"),
        ([np.zeros((8, 8), complex)], r"X\[0\] holds complex128; it takes numbers"),
        ([np.zeros((2, 8, 8), np.uint8)], r"X\[0\] has shape \(2, 8, 8\)"),
    ],
)
def test_datasets_of_something_else_are_refused(items: list[Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_any(Pictures(items), "dataset")


def test_labels_of_a_dataset_are_its_second_values() -> None:
    assert labels_of_dataset(Pictures([(0, torch.tensor(2)), (0, "ant")])).tolist() == ["2", "ant"]
    with pytest.raises(InputError, match="y is missing, and the items of the dataset hold no label"):
        labels_of_dataset(Pictures([np.zeros(3)]))
