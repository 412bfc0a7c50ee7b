"""A run on a source that was read already, and on paths as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvcoteach.data.sources import read_source
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.settings import Machine, Settings
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
    bare = find_issues(tmp_path / "photos", tmp_path / "bare", settings, page=False)
    assert not (bare.folder / "issues.html").exists()
    assert (bare.folder / "issues.csv").read_bytes() == (text.folder / "issues.csv").read_bytes()
    assert find_issues(tmp_path / "photos", tmp_path / "bare", settings, page=False).was_done
    read = find_issues(replace(source, location=Path("my photos")), tmp_path / "read", settings)
    assert (read.folder / "issues.csv").read_bytes() == (text.folder / "issues.csv").read_bytes()
    assert "my photos" in (read.folder / "issues.html").read_text()
    assert (read.issues().label_quality == text.issues().label_quality).all()


@pytest.mark.slow
def test_a_dataset_of_hugging_face_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    pictures, _, given = images.dataset(60, 0.1)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(images.CLASSES)),
            "take": datasets.Value("int64"),
        }
    )
    content = {"image": [Image.fromarray(each) for each in pictures], "label": given, "take": np.arange(60) // 3}
    dataset = datasets.Dataset.from_dict(content, features=features)
    machine = Machine(device="cpu", threads=1, precision="float32", cache_dir=tmp_path / "cache")
    run = find_issues(dataset, settings=Settings(n_rounds=1, epochs=2), machine=machine, group_column="take")
    assert run.folder == Path("dataset-issues")
    assert run.paths == tuple(f"dataset#{row}" for row in range(60))
    assert [run.class_names[label] for label in run.labels] == [images.CLASSES[label] for label in given]
    assert (tmp_path / "cache" / "unpacked").is_dir()
    parts = datasets.DatasetDict({"test": dataset.select(range(20)), "train": dataset.select(range(20, 60))})
    both = find_issues(parts, tmp_path / "both", Settings(n_rounds=1, epochs=2), machine)
    assert both.held_out.tolist() == [False] * 40 + [True] * 20
    assert both.paths[40] == "dataset#test/0"
