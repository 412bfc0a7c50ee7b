"""Exact copies, by what the rows hold."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from cvcoteach.data import copies
from cvcoteach.data.copies import contradictions, first_copies


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3,), (8,), (5, 5, 3)])
def test_the_first_row_of_equal_content_is_named(dtype: type, shape: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).integers(200, size=(50, *shape)).astype(dtype)
    rows[[7, 30]] = rows[3]
    rows[40] = rows[9]
    expected = np.arange(50)
    expected[[7, 30, 40]] = 3, 3, 9
    assert first_copies(rows).tolist() == expected.tolist()
    which = np.array([5, 7, 9, 30, 40])
    assert first_copies(rows, which).tolist() == [0, 1, 2, 1, 2]


def test_16_bits_that_differ_in_the_low_byte_are_no_copies() -> None:
    rows = np.zeros((20, 4, 4), np.uint16)
    rows[:, 0, 0] = np.arange(20)
    assert first_copies(rows).tolist() == list(range(20))


def test_equal_hashes_of_different_rows_are_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_hashes", lambda rows, of: np.zeros(len(of), np.uint64))
    assert first_copies(np.arange(12).reshape(4, 3)).tolist() == [0, 1, 2, 3]


def test_copies_with_different_labels_contradict_each_other() -> None:
    first, labels = np.array([0, 1, 0, 3, 1, 0]), np.array([2, 1, 2, 0, 1, 0])
    assert contradictions(labels, first).tolist() == [True, False, True, False, False, True]


def test_a_hundred_thousand_images_take_a_second_or_two(tmp_path: Path) -> None:
    pixels = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (100_000, 32, 32, 3))
    pixels[:] = np.random.default_rng(0).integers(256, size=(1, 32, 32, 3), dtype=np.uint8)
    pixels[:, 0, 0].view(np.uint8)[:, :3] = np.arange(100_000).astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    pixels[90_000:] = pixels[:10_000]
    started = time.perf_counter()
    assert (first_copies(pixels)[90_000:] == np.arange(10_000)).all()
    assert time.perf_counter() - started < 5
