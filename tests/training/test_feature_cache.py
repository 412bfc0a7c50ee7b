"""Features in the cache folder that two processes publish at the same time."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from cvcoteach.training.feature_cache import FeatureFile

KEYS = [f"{i:032x}" for i in range(20)]
FEATURES = np.arange(600, dtype=np.float16).reshape(100, 6)


def _publish(home: Path, barrier: Barrier) -> None:
    for key in KEYS:
        barrier.wait(30)
        FeatureFile(home, key).publish(FEATURES.shape)


def _made(home: Path, key: str) -> FeatureFile:
    file = FeatureFile(home, key)
    with file.begin(FEATURES.shape) as building:
        building.add(FEATURES)
    return file


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_two_processes_that_publish_the_same_features_at_once_both_succeed(tmp_path: Path) -> None:
    files = [_made(tmp_path, key) for key in KEYS]
    processes = multiprocessing.get_context("fork")
    barrier = processes.Barrier(2)
    both = [processes.Process(target=_publish, args=(tmp_path, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    for file in files:
        found = file.open()
        assert found is not None
        np.testing.assert_array_equal(found, FEATURES)


def test_rows_that_nobody_published_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cvcoteach.training.feature_cache._OTHERS_TAKE", 0.0)
    with pytest.raises(FileNotFoundError):
        FeatureFile(tmp_path, KEYS[0]).publish(FEATURES.shape)


def test_what_a_killed_call_was_writing_goes_and_that_of_others_stays(tmp_path: Path) -> None:
    left = [tmp_path / f".{name}.abcd1234.partial" for name in ("one.images", "one.done.json", "one.json")]
    other = tmp_path / ".two.json.abcd1234.partial"
    for file in (*left, other):
        file.touch()
    with FeatureFile(tmp_path, "one").begin((4, 2)):
        pass
    assert other.exists()
    assert not any(file.exists() for file in left)


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the system has no links")
@pytest.mark.parametrize("resumed", [False, True])
def test_rows_are_not_written_through_a_link(tmp_path: Path, resumed: bool) -> None:
    elsewhere = tmp_path / "mine.bin"
    elsewhere.write_bytes(b"mine")
    if resumed:
        with FeatureFile(tmp_path, KEYS[0]).begin(FEATURES.shape) as building:
            building.add(FEATURES[:50])
        (tmp_path / f"{KEYS[0]}.building").replace(elsewhere)
    before = elsewhere.read_bytes()
    (tmp_path / f"{KEYS[0]}.building").symlink_to(elsewhere)
    _made(tmp_path, KEYS[0]).publish(FEATURES.shape)
    assert elsewhere.read_bytes() == before
    found = FeatureFile(tmp_path, KEYS[0]).open()
    assert found is not None
    np.testing.assert_array_equal(found, FEATURES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("ending", ["npy", "json", "building", "done.json"])
def test_a_pipe_in_the_cache_is_not_waited_for(tmp_path: Path, ending: str) -> None:
    _made(tmp_path, KEYS[0]).publish(FEATURES.shape)
    place = tmp_path / f"{KEYS[0]}.{ending}"
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    file = FeatureFile(tmp_path, KEYS[0])
    if ending in ("npy", "json"):
        assert file.open() is None
    _made(tmp_path, KEYS[0]).publish(FEATURES.shape)
    found = FeatureFile(tmp_path, KEYS[0]).open()
    assert found is not None
