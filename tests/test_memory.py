"""Large arrays lie in files without a name; where there is no room for one, in memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from cvcoteach import _memory
from cvcoteach._memory import scratch


def lies_in_a_file(array: np.ndarray) -> bool:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return isinstance(array.base, memoryview | mmap.mmap)


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_memory, "_LARGE", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.usefixtures("small_is_large")
def test_a_large_array_is_written_and_read_like_any_other_and_leaves_no_file(tmp_path: Path) -> None:
    array = scratch((100, 5), np.float32)
    array[:] = np.arange(500).reshape(100, 5)
    assert lies_in_a_file(array)
    assert array.sum() == 499 * 250
    assert not list(tmp_path.iterdir())
    assert not lies_in_a_file(scratch((10, 5), np.float32))


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="takes a system that reserves room in files")
def test_on_a_full_disk_it_lies_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    array = scratch((100, 5), np.float32)
    assert array.shape == (100, 5)
    assert not lies_in_a_file(array)
