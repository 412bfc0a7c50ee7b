"""Images that belong to none of the classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.issues.strangers import MARKED, _excess, _precision, strangers


def features(n: int = 600, d: int = 40, n_classes: int = 5, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Return features of Gaussian classes of one shape, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    shape = rng.normal(size=(d, d)) / np.sqrt(d)
    return rng.normal(scale=3, size=(n_classes, d))[labels] + rng.normal(size=(n, d)) @ shape, labels


def test_images_of_another_kind_are_marked_and_hardly_any_others() -> None:
    x, labels = features()
    x = np.concatenate([x, 25 + np.random.default_rng(1).normal(size=(12, x.shape[1]))])
    found = strangers(x, np.r_[labels, np.zeros(12, np.int64)], np.r_[np.ones(600, bool), np.zeros(12, bool)])
    assert (found[600:] > MARKED).all()
    assert (found[:600] > MARKED).sum() <= 1


def test_nothing_is_marked_where_all_images_belong() -> None:
    for seed in range(5):
        x, labels = features(seed=seed)
        assert not (strangers(x, labels, np.ones(len(x), bool)) > MARKED).any()


@pytest.mark.parametrize("n", [2, 10])
def test_few_images_or_equal_ones_are_no_strangers(n: int) -> None:
    labels = np.arange(n) % 2
    assert not strangers(np.zeros((n, 4)), labels, np.ones(n, bool)).any()
    assert not strangers(np.zeros((100, 4)), np.arange(100) % 2, np.ones(100, bool)).any()


def test_copies_whose_distances_differ_by_rounding_alone_are_no_strangers() -> None:
    x, labels = features(n=20)
    rows = np.arange(300) % 20
    x = np.concatenate([x[rows], 25 + np.random.default_rng(1).normal(size=(4, x.shape[1]))])
    found = strangers(x, np.r_[labels[rows], np.zeros(4, np.int64)], np.r_[np.ones(300, bool), np.zeros(4, bool)])
    assert not (found[:300] > MARKED).any()


def test_scores_far_below_the_others_are_no_strangers() -> None:
    score = np.r_[np.full(60, -2.0), np.full(40, -1.0), np.full(5, -1e4)]
    assert not _excess(score, np.ones(105)).any()
    score = np.r_[np.full(60, -2.0), np.full(40, -2.0 + 1e-15), np.full(5, -1.9)]
    assert not _excess(score, np.ones(105)).any()


def test_features_that_are_not_finite_tell_no_strangers() -> None:
    x, labels = features()
    x[3, 2] = np.nan
    assert not strangers(x, labels, np.ones(len(x), bool)).any()


def test_many_features_are_as_good_as_few() -> None:
    x, labels = features(n=300)
    wide = np.concatenate([x, np.zeros((300, 3000))], axis=1)
    wide[:8, :40] += 25
    found = strangers(wide, labels, np.r_[np.zeros(8, bool), np.ones(292, bool)])
    assert (found[:8] > MARKED).all()
    assert (found[8:] > MARKED).mean() < 0.02


def test_covariances_are_shrunk_as_by_scikit_learn() -> None:
    rows = np.random.default_rng(0).standard_normal((60, 20)) * np.arange(1, 21)
    rows -= rows.mean(axis=0)
    expected = np.linalg.pinv(ledoit_wolf(rows)[0], hermitian=True)
    np.testing.assert_allclose(_precision([rows[:25], rows[25:]]), expected, rtol=1e-9, atol=1e-12)
