"""Near copies: frames of a burst are, images taken one by one are not."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from cvcoteach.data.twins import group_like, near_twins

DIGITS, LABELS = load_digits(return_X_y=True)
ROWS = (DIGITS.reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8)


def frames(n: int, of_each: int, seed: int = 0) -> np.ndarray:
    """Images (n·of_each, 16, 16, 3): bursts in which the light changes a little."""
    rng = np.random.default_rng(seed)
    large = np.repeat(ROWS[:n].repeat(2, 1).repeat(2, 2), 3, axis=3).repeat(of_each, axis=0)
    light = rng.integers(-8, 9, size=(len(large), 1, 1, 1)) + rng.normal(0, 4, large.shape)
    return np.clip(large + light, 0, 255).astype(np.uint8)


def alone(rows: np.ndarray) -> np.ndarray:
    return np.arange(len(rows))


def test_images_taken_one_by_one_have_none() -> None:
    for rows in (
        ROWS,
        DIGITS,
        np.random.default_rng(0).normal(size=(500, 20)),
        np.random.default_rng(0).normal(size=(3000, 2)),
    ):
        twins = near_twins(rows, None, alone(rows))
        assert not twins.many
        assert twins.share < 0.01


@pytest.mark.parametrize("of_each", [2, 6])
def test_frames_of_bursts_have(of_each: int) -> None:
    rows = frames(200, of_each)
    twins = near_twins(rows, None, alone(rows))
    assert twins.many
    assert twins.share > 0.9
    assert (twins.pairs[:, 0] // of_each == twins.pairs[:, 1] // of_each).mean() > 0.95


def test_rows_left_out_do_not_count_and_exact_copies_are_no_near_ones() -> None:
    rows = frames(200, 2)
    which = np.arange(0, 400, 2)
    assert not near_twins(rows, which, alone(which)).many
    doubled = np.repeat(ROWS[:200], 2, axis=0)
    assert not near_twins(doubled, None, np.arange(400) // 2 * 2).many


def test_few_images_or_all_the_same_have_none() -> None:
    assert not near_twins(ROWS[:2], None, np.arange(2)).many
    assert not near_twins(np.zeros((50, 4, 4, 3), np.uint8), None, np.zeros(50, np.int64)).many


def test_the_column_in_which_near_copies_agree_is_the_group() -> None:
    rows = frames(150, 4)
    twins = near_twins(rows, None, alone(rows))
    rng = np.random.default_rng(0)
    columns = pd.DataFrame(
        {
            "id": np.arange(600),
            "site": rng.integers(3, size=600),
            "camera": "one",
            "patient": [f"p{i // 8}" for i in range(600)],
        }
    )
    assert group_like(columns, twins) == "patient"
    assert group_like(columns.drop(columns="patient"), twins) is None


def test_a_hundred_thousand_images_take_a_second_or_two() -> None:
    rows = np.zeros((100_000, 32, 32, 3), np.uint8)
    started = time.perf_counter()
    near_twins(rows, None, np.arange(100_000))
    assert time.perf_counter() - started < 5
