"""What is said about the splits that models learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvcoteach.data.sources import Source
from cvcoteach.pipeline.learned import split_notes


def of_splits(**sizes: int) -> Source:
    """Return images of two classes in splits of such sizes."""
    names = np.repeat([name.removeprefix("_") for name in sizes], list(sizes.values()))
    labels = np.arange(len(names)) % 2
    paths = tuple([f"{i}.png" for i in range(len(names))])
    return Source(Path("t.csv"), Path(), paths, labels, ("a", "b"), splits=names)


@pytest.mark.parametrize("n_folds", [5, 10])
def test_folds_that_were_named_as_splits_get_a_note_on_how_little_is_learned_from(n_folds: int) -> None:
    notes = split_notes(of_splits(**{f"_{fold}": 204 for fold in range(n_folds)}))
    last, all_of_them = n_folds - 1, f"{204 * n_folds:,}"
    assert notes == [
        f"no split is called train: models learn from {last} alone, 204 of {all_of_them} images, and judge the others; "
        "if these are folds, or other parts of one kind, leave out --split-column (in Python splits=), so that all "
        "images are learned from."
    ]


def test_a_large_split_of_another_name_is_learned_from_without_a_word_of_folds() -> None:
    assert split_notes(of_splits(photos=900, test=100)) == [
        "no split is called train: models learn from photos alone, 900 of 1,000 images, and judge the others."
    ]


def test_a_train_much_smaller_than_the_rest_gets_a_note_and_one_of_usual_size_none() -> None:
    assert split_notes(of_splits(train=80, test=20)) == []
    (note,) = split_notes(of_splits(train=10, test=90))
    assert note.startswith("90 images are judged by models that learn from 10 of train; splits= or --split-column may")
