"""The quickstart on a folder of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fiftyone as fo
import pytest

from tests import images

SCRIPT = Path(__file__).parents[2] / "examples" / "fiftyone_quickstart.py"


def test_it_is_short() -> None:
    assert len(SCRIPT.read_text().splitlines()) < 80


@pytest.mark.slow
def test_a_folder_comes_back_with_its_labels_corrected(tmp_path: Path) -> None:
    wrong = images.class_folders(tmp_path / "photos", n=150, wrong=0.1)
    for stray in ("Thumbs.db", "notes.txt", "bar/.DS_Store", "ring/readme.md"):
        (tmp_path / "photos" / stray).write_text("no image")
    ran = quickstart(tmp_path / "photos", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout
    assert "to review. The first:" in said
    before = {str(path.relative_to(tmp_path / "photos")) for path in (tmp_path / "photos").rglob("*.png")}
    after = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")}
    assert len(after) == len(before) == 150
    moved = before - after
    assert f"{len(moved)} corrections are on record." in said
    assert len(moved & wrong) >= 12  # of 15
    assert len(moved) <= 18

    # the corrections are still there the next time, and nothing is left to do
    said = quickstart(tmp_path / "photos", tmp_path / "again").stdout
    assert "0 to review." in said
    assert f"{len(moved)} corrections are on record." in said
    assert {str(path.relative_to(tmp_path / "again")) for path in (tmp_path / "again").rglob("*.png")} == after
    fo.delete_dataset(dataset_name(tmp_path / "photos"))


@pytest.mark.slow
def test_a_place_that_is_taken_is_told_before_anything_is_done(tmp_path: Path) -> None:
    images.class_folders(tmp_path / "photos", n=30, wrong=0.1)
    said = quickstart(tmp_path / "photos", tmp_path / "photos")
    assert said.returncode != 0
    assert "is not empty; name another folder." in said.stderr
    assert not fo.dataset_exists(dataset_name(tmp_path / "photos"))


def quickstart(folder: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(folder), "--no-app", "--export", str(to)]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True)


def dataset_name(folder: Path) -> str:
    """The name of a dataset that no other test has made before."""
    return folder.name
