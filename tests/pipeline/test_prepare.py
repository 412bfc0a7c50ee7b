"""From a source and settings to a trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvcoteach._progress import Silent
from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from cvcoteach.pipeline.learned import lone_images
from cvcoteach.pipeline.prepare import prepare
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.settings import Machine, Settings
from tests.images import CLASSES, class_folders

MACHINE = Machine("cpu", 1, "float32")


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty images in class folders."""
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    class_folders(tmp_path / "shapes", n=30)
    return tmp_path / "shapes"


def test_a_path_and_the_source_that_it_names_are_the_same_run(shapes: Path) -> None:
    by_path = prepare(shapes, Settings(), MACHINE, RunProgress())
    by_source = prepare(read_source(shapes), Settings(), MACHINE, RunProgress())
    assert by_path.identity == by_source.identity
    assert by_path.source.class_names == CLASSES
    assert {name: by_path.identity[name] for name in ("select", "folds", "seed")} == {
        "select": "posterior",
        "folds": (2, 5, 5),
        "seed": 0,
    }


def test_the_identity_holds_what_the_rounds_do_and_nothing_they_ignore(shapes: Path) -> None:
    def identity(**settings: Any) -> dict[str, Any]:
        return prepare(shapes, Settings(**settings), MACHINE, RunProgress()).identity

    assert identity(remove_ratio=0.5) == identity() == identity(n_rounds=3)
    assert identity(n_rounds=2)["folds"] == (2, 5)
    paper = identity(preset="paper")
    assert (paper["select"], paper["folds"], paper["remove_ratio"]) == ("agreement", (2, 2, 2, 2), "auto")
    assert identity(select="agreement", remove_ratio=0.5)["remove_ratio"] == 0.5


def test_the_identity_holds_the_model_as_text_as_earlier_versions_wrote_it(shapes: Path) -> None:
    settings = Settings(backbone="tests.backbones:colours", finetune=True, weights="none", epochs=3, patience=2)
    machine = replace(MACHINE, trusted=("tests.backbones:colours",))
    recipe = prepare(shapes, settings, machine, RunProgress()).identity["recipe"]
    assert (recipe["model"], recipe["weights"]) == ("backbone:tests.backbones:colours", "none")
    assert (recipe["epochs"], recipe["patience"], recipe["body_rate"]) == (3, 2, 0.1)
    assert prepare(shapes, Settings(preset="paper"), MACHINE, RunProgress()).identity["recipe"]["model"] == "resnet32"


def test_an_unreadable_image_is_left_out_and_rows_are_counted_without_it(shapes: Path) -> None:
    broken = sorted(shapes.rglob("*.png"))[0]
    broken.write_bytes(b"no image")
    prepared = prepare(shapes, Settings(features=None, epochs=1), MACHINE, RunProgress())
    assert list(prepared.unreadable) == [broken.relative_to(shapes).as_posix()]
    assert len(prepared.source) == 29


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (Settings(finetune=True), "finetune is set without a backbone; name the network to fine-tune with --backbone"),
        (Settings(features=Path("a.npy"), backbone="b"), "features come from only one of them"),
        (Settings(model="smal"), "did you mean small"),
    ],
)
def test_settings_that_do_not_fit_are_refused(shapes: Path, settings: Settings, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        prepare(shapes, settings, MACHINE, RunProgress())


def test_settings_of_networks_are_ignored_for_heads_on_features_and_that_is_said(shapes: Path, tmp_path: Path) -> None:
    class Notes(Silent):
        """Keeps what it is told."""

        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, sentence: str) -> None:
            self.notes.append(sentence)

    np.save(tmp_path / "features.npy", np.random.default_rng(0).random((30, 4)))
    watcher = Notes()
    prepare(shapes, Settings(features=tmp_path / "features.npy", epochs=3), MACHINE, RunProgress(watcher))
    assert watcher.notes == [
        "30 images, 3 classes, a folder each in shapes.",
        "ignored for heads on features: epochs.",
    ]
    np.save(tmp_path / "features.npy", np.zeros((29, 4)))
    with pytest.raises(InputError, match=r"has 29 rows, but the source has 30 images; it takes one row per image"):
        prepare(shapes, Settings(features=tmp_path / "features.npy"), MACHINE, RunProgress())


def test_a_class_with_a_single_image_is_named(shapes: Path) -> None:
    source = read_source(shapes)
    few = source.subset(np.flatnonzero((source.labels != 1) | (np.arange(30) == np.argmax(source.labels == 1))))
    (sentence,) = lone_images(few, "agreement")
    assert sentence.startswith("class 'cross' has 1 image: the models that score it never see the class")
    assert lone_images(few, "posterior") == []  # its summary ends with the classes that have too few labels
    assert lone_images(source, "agreement") == []


def test_classes_of_one_image_each_are_refused_before_anything_is_decoded(shapes: Path) -> None:
    source = read_source(shapes)
    lone = source.subset([int(np.argmax(source.labels == k)) for k in range(3)])
    with pytest.raises(InputError, match="each of the 3 images is the only one of its class"):
        prepare(lone, Settings(), MACHINE, RunProgress())
