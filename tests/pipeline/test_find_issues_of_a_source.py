"""A run on a source that was read already, and on paths as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cvcoteach.data.sources import read_source
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.settings import Settings
from tests import images


@pytest.mark.slow
def test_paths_as_text_and_a_source_give_the_same_run(tmp_path: Path) -> None:
    images.class_folders(tmp_path / "photos", n=60, wrong=0.1)
    source = read_source(tmp_path / "photos")
    vectors = np.eye(3)[source.labels] + np.random.default_rng(0).normal(size=(60, 3))
    np.save(tmp_path / "features.npy", vectors.astype(np.float32))
    settings = Settings(n_rounds=1, features=tmp_path / "features.npy")
    text = find_issues(str(tmp_path / "photos"), str(tmp_path / "text"), settings)
    assert text.folder == tmp_path / "text"
    read = find_issues(replace(source, location=Path("my photos")), tmp_path / "read", settings)
    assert (read.folder / "issues.csv").read_bytes() == (text.folder / "issues.csv").read_bytes()
    assert "my photos" in (read.folder / "issues.html").read_text()
    assert (read.issues().label_quality == text.issues().label_quality).all()
