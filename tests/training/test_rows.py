"""Features as heads read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvcoteach._validation import InputError
from cvcoteach.training import rows
from cvcoteach.training.rows import Rows
from tests.features import clusters

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (np.zeros(5), r"features has shape \(5,\); it takes one row of numbers per image, shape \(n, d\)\."),
        (np.zeros((0, 3)), r"features has shape \(0, 3\)"),
        (np.array([["a"]]), "features holds <U1; it takes numbers"),
        (np.array([[0.0, 1.0], [2.0, np.nan]]), r"features\[1, 1\] is nan; it takes finite"),
        (np.array([[np.inf, 1.0]]), r"features\[0, 0\] is inf"),
        (np.array([[1.0, 1e300]]), r"features\[0, 1\] is 1e\+300; it takes finite float32 numbers"),
    ],
)
def test_features_that_do_not_fit_are_refused(features, sentence):
    with pytest.raises(InputError, match=sentence):
        Rows(features, CPU)


def test_a_nan_far_down_is_found_where_it_is(monkeypatch):
    monkeypatch.setattr(rows, "_CHUNK", 10)
    X, _ = clusters(95)
    X[91, 3] = np.nan
    with pytest.raises(InputError, match=r"features\[91, 3\] is nan"):
        Rows(X, CPU)


def test_rows_are_standardised_and_bounded_in_the_fixed_order():
    X, _ = clusters(200)
    X[7] *= 1000
    prepared = Rows(X, CPU)
    index = np.array([7, 3, 199])
    at = prepared.at(prepared.positions(index)).numpy()
    z = (X - X.mean(axis=0, dtype=np.float64)) / X.std(axis=0, dtype=np.float64)
    bounded = z * np.sqrt(2 / (1 + (z**2).mean(axis=1, keepdims=True)))
    np.testing.assert_allclose(at, bounded[index], rtol=1e-4, atol=1e-5)
    assert (np.linalg.norm(at, axis=1) <= np.sqrt(2 * X.shape[1]) + 1e-4).all()


def test_a_constant_column_is_zero():
    X, _ = clusters(50)
    X[:, 2] = 3
    prepared = Rows(X, CPU)
    assert (prepared.at(torch.arange(50))[:, 2] == 0).all()


def test_an_index_without_a_row_is_refused():
    with pytest.raises(
        InputError, match=r"features has 50 rows, but image -1 is asked for; it takes one row per image"
    ):
        Rows(clusters(50)[0], CPU).check(np.array([3, -1]))


def test_features_too_large_for_memory_are_read_again_for_each_batch(monkeypatch):
    X, _ = clusters(100)
    whole = Rows(X.copy(), CPU)
    monkeypatch.setattr(rows, "_RESIDENT", 0)
    source = X.copy()
    streamed = Rows(source, CPU)
    positions = torch.arange(10)
    np.testing.assert_array_equal(whole.at(positions), streamed.at(positions))
    before = whole.at(positions).clone()
    source += 1
    assert not torch.equal(streamed.at(positions), before), "the change is seen"
    assert whole.resident is not None
    assert streamed.resident is None
