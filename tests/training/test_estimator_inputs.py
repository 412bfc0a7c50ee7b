"""What a user passes an estimator as X."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from cvcoteach._validation import InputError
from cvcoteach.training.estimator_inputs import images_of, kind_of, labels_of_dataset


class Pictures(torch.utils.data.Dataset):
    """Images with labels, of any kind."""

    def __init__(self, items: list) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> object:
        return self.items[row]


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
def test_kinds_are_told_apart(X: object, kind: str) -> None:
    assert kind_of(X) == kind


def test_arrays_become_square_uint8_of_their_own_size_or_the_wanted_one() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 12, 12), np.uint8)
    own = images_of(grey, "images")
    assert own.shape == (3, 12, 12, 1)
    np.testing.assert_array_equal(own[..., 0], grey)
    assert images_of(grey, "images", own_size=16).shape == (3, 16, 16, 1)
    assert images_of(grey, "images", 10, 3, own_size=16).shape == (3, 10, 10, 3)


def test_floats_of_a_dataset_are_rounded_to_bytes() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    (found,) = images_of(Pictures([(image, 1)]), "dataset")
    np.testing.assert_array_equal(found, (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def test_pictures_of_several_sizes_are_squashed_to_the_first() -> None:
    found = images_of(Pictures([Image.new("L", (9, 9)), Image.new("RGB", (20, 14), "red")]), "dataset")
    assert found.shape == (2, 9, 9, 3)


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        ([], "X is an empty dataset; it takes one image per label"),
        ([np.full((8, 8), 2.0)], r"X\[0\] has values from 2 to 2"),
        ([np.zeros((8, 8), np.int32)], r"X\[0\] holds int32"),
        ([np.zeros((2, 8, 8), np.uint8)], r"X\[0\] has shape \(2, 8, 8\)"),
    ],
)
def test_datasets_of_something_else_are_refused(items: list, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        images_of(Pictures(items), "dataset")


def test_labels_of_a_dataset_are_its_second_values() -> None:
    assert labels_of_dataset(Pictures([(0, torch.tensor(2)), (0, "ant")])).tolist() == ["2", "ant"]
    with pytest.raises(InputError, match="y is missing, and the items of the dataset hold no label"):
        labels_of_dataset(Pictures([np.zeros(3)]))
