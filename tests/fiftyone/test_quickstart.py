"""The quickstart on a folder of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import images

SCRIPT = Path(__file__).parents[2] / "examples" / "fiftyone_quickstart.py"


def test_it_is_short() -> None:
    assert len(SCRIPT.read_text().splitlines()) < 80


@pytest.mark.slow
def test_a_folder_comes_back_with_its_labels_corrected(tmp_path: Path) -> None:
    wrong = images.class_folders(tmp_path / "photos", n=150, wrong=0.1)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "photos"), "--no-app", "--export", str(tmp_path / "out")]
    said = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True).stdout
    assert "The most doubtful" in said
    before = {str(path.relative_to(tmp_path / "photos")) for path in (tmp_path / "photos").rglob("*.png")}
    after = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")}
    assert len(after) == len(before) == 150
    moved = before - after
    assert f"{len(moved)} corrections are on record." in said
    assert len(moved & wrong) >= 12  # of 15
    assert len(moved) <= 18
