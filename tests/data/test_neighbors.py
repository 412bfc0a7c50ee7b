"""Pairs of points near each other: those of a comparison of all with all, or hardly fewer."""

from __future__ import annotations

import numpy as np
import pytest

from cvcoteach.data import neighbors as module
from cvcoteach.data.neighbors import distances, neighbors, principal_axes


def pairs(one: np.ndarray, other: np.ndarray) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for pair in zip(one.tolist(), other.tolist(), strict=True)}


def all_with_all(points: np.ndarray, reach: float) -> set[tuple[int, int]]:
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    return pairs(*np.nonzero(np.triu(apart < reach, 1)))


def scattered(n: int, n_near: int, d: int = 8) -> np.ndarray:
    """Points (n, d), of which the last ones lie near the first."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((n, d)).astype(np.float32)
    points[n - n_near :] = points[:n_near] + 0.05 * rng.standard_normal((n_near, d))
    return points


def test_few_points_are_all_compared_each_pair_once() -> None:
    points = scattered(700, 100)
    one, other = neighbors(points, 0.9)
    assert pairs(one, other) == all_with_all(points, 0.9)
    assert len(pairs(one, other)) == len(one)


@pytest.mark.parametrize("d", [3, 8, 24])
@pytest.mark.parametrize("many", [1000, 1 << 16])
def test_of_many_points_hardly_a_pair_is_missed(monkeypatch: pytest.MonkeyPatch, d: int, many: int) -> None:
    monkeypatch.setattr(module, "_WIDTH", 256)
    monkeypatch.setattr(module, "_MANY", many)
    points = scattered(3000, 500, d)
    reach = 0.1 if d == 3 else 0.5
    one, other = neighbors(points, reach)
    found, there = pairs(one, other), all_with_all(points, reach)
    assert len(there) > 300
    assert len(found) == len(one)
    assert found <= there
    assert len(found) >= 0.99 * len(there)


def test_near_points_in_a_crowd_are_compared_with_few_and_those_beside_it_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WIDTH", 256)
    rng = np.random.default_rng(1)
    crowd = 0.02 * rng.standard_normal((2000, 8)).astype(np.float32) + 20
    beside = scattered(1000, 300)
    points = np.concatenate([crowd, beside])
    n_compared = []
    within = module._within

    def counted(values: np.ndarray, *args: object) -> tuple[np.ndarray, np.ndarray]:
        n_compared.append(values.size)
        return within(values, *args)

    monkeypatch.setattr(module, "_within", counted)
    one, other = neighbors(points, 0.5)
    there = {(a + 2000, b + 2000) for a, b in all_with_all(beside, 0.5)}
    found = pairs(one, other)
    assert len(found & there) >= 0.99 * len(there)
    assert len(np.union1d(one, other)) >= 2000 + len({i for pair in there for i in pair}) * 0.99
    assert sum(n_compared) < len(points) ** 2


def test_the_same_points_have_the_same_pairs_and_a_crowd_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WIDTH", 256)
    points = np.concatenate([np.zeros((2000, 4), np.float32), scattered(2000, 10, 4)])
    one, other = neighbors(points, 0.01)
    again, other_again = neighbors(points.copy(), 0.01)
    assert (one == again).all()
    assert (other == other_again).all()
    assert len(one) < 2000 * 2 * 256


def test_no_points_and_points_without_dimensions_have_no_neighbors() -> None:
    assert len(neighbors(np.empty((0, 3), np.float32), 1.0)[0]) == 0
    assert len(neighbors(np.empty((5, 0), np.float32), 0.0)[0]) == 0


@pytest.mark.parametrize("shape", [(40, 100), (300, 20)])
def test_principal_axes_are_those_of_a_singular_value_decomposition(shape: tuple[int, int]) -> None:
    points = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    centered = points - points.mean(axis=0)
    _, spreads, rows = np.linalg.svd(centered.astype(np.float64), full_matrices=False)
    axes, held = principal_axes(points, 5)
    assert axes.dtype == np.float32
    assert np.allclose(np.abs((axes * rows[:5].T).sum(axis=0)), 1, atol=1e-3)
    assert np.allclose(held, np.sqrt((spreads[:5] ** 2).cumsum() / (spreads**2).sum()), atol=1e-4)
    assert principal_axes(np.ones(shape, np.float32), 5)[0].shape == (shape[1], 0)


def test_distances_are_those_of_the_pairs() -> None:
    points = np.array([[0, 0], [3, 4], [0, 1]], np.float16)
    assert distances(points, np.array([0, 2]), np.array([1, 0])).tolist() == [5, 1]
