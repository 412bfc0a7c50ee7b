"""Which rows the models are fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from cvcoteach.noise_model import sampling
from cvcoteach.noise_model.sampling import fitted_rows


def rows_of(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (n,) and distinct probabilities (n, k)."""
    rng = np.random.default_rng(seed)
    return rng.integers(k, size=n), rng.dirichlet(np.ones(k), n).astype(np.float32)


def test_a_small_set_is_taken_whole() -> None:
    labels, probs = rows_of(900, 7)
    rows, weight, half = fitted_rows(labels, probs)
    np.testing.assert_array_equal(np.sort(rows), np.arange(900))
    np.testing.assert_array_equal(weight, 1)
    assert set(half) == {0, 1}
    assert abs(half.mean() - 0.5) < 0.1


def test_a_large_set_is_judged_by_a_sample_that_keeps_rare_classes() -> None:
    labels = np.random.default_rng(0).choice(4, size=50_000, p=[0.9, 0.08, 0.019, 0.001])
    rows, weight, _ = fitted_rows(labels, rows_of(50_000, 4)[1])
    counts = np.bincount(labels[rows])
    assert 19_000 < len(rows) <= 20_000
    assert len(np.unique(rows)) == len(rows)
    np.testing.assert_array_equal(counts[1:], np.bincount(labels)[1:])
    np.testing.assert_allclose(np.bincount(labels[rows], weight), np.bincount(labels))


def test_the_order_of_the_rows_does_not_matter() -> None:
    labels, probs = rows_of(30_000, 5)
    order = np.random.default_rng(1).permutation(30_000)
    rows, weight, half = fitted_rows(labels, probs)
    other = fitted_rows(labels[order], probs[order])
    place = np.argsort(rows), np.argsort(order[other[0]])
    np.testing.assert_array_equal(rows[place[0]], order[other[0]][place[1]])
    np.testing.assert_array_equal(weight[place[0]], other[1][place[1]])
    np.testing.assert_array_equal(half[place[0]], other[2][place[1]])


def test_a_row_less_changes_the_sample_by_a_row() -> None:
    labels, probs = rows_of(30_000, 5)
    kept = np.delete(np.arange(30_000), 12_345)
    rows, _, _ = fitted_rows(labels, probs)
    fewer, _, _ = fitted_rows(labels[kept], probs[kept])
    assert len(np.setxor1d(rows, kept[fewer])) <= 10


def test_of_very_many_rows_some_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_N_DRAWN", 1000)
    labels, probs = rows_of(5000, 4)
    rows, weight, _ = fitted_rows(labels, probs)
    assert len(rows) == 1000
    assert weight.sum() == 5000


def test_rows_that_are_all_alike_are_halved_by_turns() -> None:
    labels = np.arange(200) % 4
    _, _, half = fitted_rows(labels, np.full((200, 4), 0.25))
    assert half.mean() == 0.5
