"""The preset auto in a run: what it chooses stays chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvcoteach._progress import Progress
from cvcoteach._validation import InputError
from cvcoteach.data.brightness import brightness_levels
from cvcoteach.data.sources import read_source
from cvcoteach.pipeline import automatic
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import Machine, Settings
from cvcoteach.training.auto_preset import BACKBONES, choose
from cvcoteach.training.backbones import Backbone
from tests.backbones import Colours, backbone_of
from tests.images import CLASSES

MACHINE = Machine("cpu", 1, "float32")


class Notes:
    """Keeps what the preset says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        if sentence.startswith("preset auto"):
            self.notes.append(sentence)

    def progress(self, update: Progress) -> None:
        pass


def loaded(name: str, size: int | None = None) -> Backbone:
    return replace(backbone_of(Colours(), size or 8), name=name)


def unreachable(name: str, size: int | None = None) -> Backbone:
    raise InputError("no weights could be fetched.")


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights can be had."""
    monkeypatch.setattr(automatic, "choose", partial(choose, load=loaded))
    monkeypatch.setattr(automatic, "load_backbone", loaded)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sixty images of 40 pixels with many levels, each class of another colour."""
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(60):
        pixels = rng.integers(0, 120, (40, 40, 3))
        pixels[..., i % 3] += 100
        file = tmp_path / "photos" / CLASSES[i % 3] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / "photos"


def test_photographs_are_judged_by_features_and_one_line_says_so(photos: Path, reachable: None) -> None:
    notes = Notes()
    identity = RunFolder.read(find_issues(photos, machine=MACHINE, watcher=notes).folder).record["identity"]
    assert (identity["backbone"], identity["image_size"]) == (BACKBONES["cpu"], 8)
    (line,) = notes.notes
    assert line.startswith("preset auto takes heads on features of torchvision:mobilenet_v3_large at 8 pixels, since")
    assert line.endswith("; that takes about 1 s.")


@pytest.mark.slow
def test_a_run_goes_on_with_what_it_began_with_until_it_starts_over(
    photos: Path, reachable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find_issues(photos, machine=MACHINE)
    monkeypatch.setattr(automatic, "choose", partial(choose, load=unreachable))
    assert find_issues(photos, machine=MACHINE).was_done
    (photos / CLASSES[0] / "0.png").rename(photos / CLASSES[1] / "0.png")
    after, notes = find_issues(photos, machine=MACHINE, watcher=(notes := Notes())), notes
    assert after.summary["since"]["run"].endswith(first.folder.name)
    assert notes.notes == ["preset auto goes on with features of torchvision:mobilenet_v3_large, as it began."]
    fresh = find_issues(photos, machine=MACHINE, again="fresh", watcher=(notes := Notes()))
    assert "recipe" in RunFolder.read(fresh.folder).record["identity"]
    assert "a small network from scratch, since no weights could be fetched; pip install" in notes.notes[0]


@pytest.mark.slow
def test_a_record_that_the_preset_cannot_have_written_runs_no_code(photos: Path, reachable: None) -> None:
    run = RunFolder.read(find_issues(photos, machine=MACHINE).folder)
    run.save(chosen={"backbone": "tests.backbones:counted", "finetune": False, "image_size": 8})
    assert find_issues(photos, machine=MACHINE).was_done


@pytest.mark.parametrize("settings", [{"epochs": 3}, {"model": "small"}, {"flip": False}, {"features": "a.npy"}])
def test_where_the_network_or_its_training_is_set_nothing_is_left_to_choose(settings: dict[str, object]) -> None:
    assert Settings().is_open
    assert Settings(image_size=64, head="mlp", seed=3).is_open
    assert not Settings(**settings).is_open
    assert not Settings(preset="fast").is_open


def test_drawings_are_told_from_photographs(photos: Path) -> None:
    assert brightness_levels(read_source(photos)) > 100
    for file in photos.rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(file)) > 128).astype(np.uint8) * 255).convert("1").save(file)
    assert brightness_levels(read_source(photos)) == 2
    for file in photos.rglob("*.png"):
        file.write_bytes(b"no image")
    assert brightness_levels(read_source(photos)) == 256


def test_the_time_of_a_second_view_leaves_out_what_is_held_out(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, int]] = []
    monkeypatch.setattr(automatic, "TorchTrainer", lambda *args, **options: None)
    monkeypatch.setattr(automatic, "seconds_to_train", lambda trainer, folds, n: asked.append((folds, n)))
    data = read_source(photos)
    held = replace(data, splits=np.where(np.arange(len(data)) % 4 == 0, "test", "train"))
    automatic._seconds_from_scratch(held, Settings(), Machine())
    assert [n for _, n in asked] == [int((held.splits == "train").sum())]
