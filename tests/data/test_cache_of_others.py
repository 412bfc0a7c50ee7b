"""The cache folder of somebody else, or under a clock that is set: nothing else changes, and nothing in use goes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from cvcoteach.data import cache, images
from cvcoteach.data.images import load_images
from tests.data.test_cache import arrays, home, noise_images, settled

__all__ = ["home", "settled"]


def test_a_clock_that_is_set_meanwhile_does_not_forget_what_is_in_use(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, now = noise_images(tmp_path / "in", 4), time.time
    monkeypatch.setattr(cache.time, "time", lambda: now() + 10**9)
    assert load_images(source, 8, cache_dir=home).readable.all()
    assert len(arrays(home)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="links take a right there")
@pytest.mark.parametrize("linked", ["building", "records.npy", "log"])
def test_a_link_among_what_a_killed_build_left_is_not_written_through(
    tmp_path: Path, home: Path, settled: None, monkeypatch: pytest.MonkeyPatch, linked: str
) -> None:
    monkeypatch.setattr(images, "_CHUNK_BYTES", 5 * 8 * 8 * 3)
    source = noise_images(tmp_path / "in", 20)

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images(source, 8, cache_dir=home, progress=interrupt)
    (building,) = home.rglob("building")
    elsewhere = tmp_path / "elsewhere"
    if linked == "building":
        building.rename(elsewhere)
        building.symlink_to(elsewhere)
    else:
        elsewhere.mkdir()
        (building / linked).unlink(missing_ok=True)
        (elsewhere / linked).write_bytes(b"mine")
        (building / linked).symlink_to(elsewhere / linked)
    before = {file.name: file.read_bytes() for file in elsewhere.iterdir()}
    assert load_images(source, 8, cache_dir=home).readable.all()
    assert {file.name: file.read_bytes() for file in elsewhere.iterdir()} == before
