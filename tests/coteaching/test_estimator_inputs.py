"""What CoTeaching takes for images and labels, and what it refuses in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch.utils.data import Dataset

from cvcoteach import CoTeaching
from cvcoteach._validation import InputError, IntArray
from tests.fakes import clouds
from tests.images import dataset


class Even(Dataset):
    """A torch Dataset that gives other labels than its `targets`, as one with a target_transform does."""

    def __init__(self, images: np.ndarray, labels: IntArray) -> None:
        self.images, self.targets = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[row]), int(self.targets[row]) % 2


@pytest.mark.slow
def test_a_series_of_paths_is_a_list_of_paths_and_labels_are_the_datasets_own(tmp_path: Path) -> None:
    images, true, _ = dataset(24, 0.0)
    paths = [str(tmp_path / f"{i}.png") for i in range(24)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    settings = {"mode": "vanilla", "epochs": 1, "device": "cpu", "threads": 1, "random_state": 0}
    index = np.random.default_rng(0).permutation(24)
    model = CoTeaching(**settings).fit(pd.Series(paths, index=index), true, noise_rate=0.1)
    assert model.classes_.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(model.predict_proba(pd.Series(paths, index=index)), model.predict_proba(paths))

    model = CoTeaching(**settings).fit(Even(images, true), noise_rate=0.1)
    assert model.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), ["a", None, "b"], r"the first is y\[1\]"),
        (pd.Series(["a.png", "b.png"]), ["a", "b", "c"], "y has 3 rows, but X has 2"),
        (iter([1]), [1], "has no length"),
    ],
)
def test_labels_that_do_not_match_are_told_in_one_sentence(X: object, y: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CoTeaching(threads=1).fit(X, y)


@pytest.mark.slow
def test_an_estimator_reads_new_images_with_the_levels_it_was_trained_on() -> None:
    images, true, _ = dataset(24, 0.0)
    deep = images.astype(np.uint16) * 16
    model = CoTeaching(mode="vanilla", epochs=1, device="cpu", threads=1, random_state=0)
    model.fit(deep, true, noise_rate=0.1)
    np.testing.assert_allclose(model.predict_proba(deep[:3]), model.predict_proba(deep)[:3], atol=1e-5)
    # of 6 bits and nearly white, were it read alone
    np.testing.assert_allclose(
        model.predict_proba(deep[:1] // 64), model.predict_proba(np.r_[deep[:1] // 64, deep])[:1], atol=1e-5
    )


SPLITS = np.where(np.arange(300) % 3 == 0, "test", "train")


@pytest.mark.slow
def test_nothing_is_learned_from_what_is_held_out() -> None:
    features, _, labels = clouds(300, 3, 0.1, 0)
    settings = {"epochs": 2, "device": "cpu", "threads": 1, "random_state": 0}
    whole = CoTeaching(**settings).fit(features, labels, splits=SPLITS, groups=np.arange(300) // 2)
    train = SPLITS == "train"
    alone = CoTeaching(**settings).fit(features[train], labels[train], groups=(np.arange(300) // 2)[train])
    np.testing.assert_array_equal(whole.predict_proba(features), alone.predict_proba(features))
    assert whole.selected_.shape == (300,)
    assert not (whole.selected_ | whole.candidate_)[~train].any()
    assert (whole.selected_[train] == alone.selected_).all()
    changed = np.where(train[:, None], features, 1e6)
    again = CoTeaching(**settings).fit(changed, labels, splits=SPLITS, groups=np.arange(300) // 2)
    np.testing.assert_array_equal(again.predict_proba(features), alone.predict_proba(features))


@pytest.mark.slow
def test_splits_go_with_images_datasets_and_a_given_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_one_precision(_: CoTeaching, data: Any, recipe: Any, n_classes: int) -> Any:  # a probe may choose another
        return data.plan(recipe, n_classes, device="cpu", threads=1, precision="float32")

    monkeypatch.setattr(CoTeaching, "_make_plan", of_one_precision)
    images, true, _ = dataset(30, 0.0)
    splits = ["train"] * 24 + ["test"] * 6
    settings = {"mode": "vanilla", "epochs": 1, "device": "cpu", "threads": 1, "random_state": 0}
    of_arrays = CoTeaching(**settings).fit(images, true, noise_rate=0.1, splits=splits)
    alone = CoTeaching(**settings).fit(images[:24], true[:24], noise_rate=0.1)
    np.testing.assert_array_equal(of_arrays.predict_proba(images), alone.predict_proba(images))
    assert CoTeaching(**settings).fit(Even(images, true), noise_rate=0.1, splits=splits).classes_.tolist() == [0, 1]
    chosen = CoTeaching(**{**settings, "mode": "incv"}).fit(images, true, selected=np.arange(30), splits=splits)
    assert chosen.selected_.sum() == 24


def test_splits_that_do_not_fit_get_a_sentence() -> None:
    features, _, labels = clouds(300, 3, 0.1, 0)
    with pytest.raises(InputError, match="splits has 299 rows"):
        CoTeaching().fit(features, labels, splits=SPLITS[:-1])
    with pytest.raises(InputError, match="y is missing"):
        CoTeaching().fit(features, splits=SPLITS)
