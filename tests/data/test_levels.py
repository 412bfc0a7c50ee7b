"""Levels: black and white by the range of a source, the same rule for files, arrays and datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvcoteach.data import images
from cvcoteach.data.images import load_images
from cvcoteach.data.items import load_any
from cvcoteach.data.levels import ORDINARY, Levels, Range, levels_of, range_of, to_bytes
from cvcoteach.data.sources import unlabelled
from tests.image_files import source_of

RAMP = np.linspace(0, 1, 64).reshape(8, 8)


class Items:
    """A dataset, as torch's are: a length, and items by number."""

    def __init__(self, images: list[Any]) -> None:
        """Each item is a tuple of an image and a label."""
        self.images = images

    def __len__(self) -> int:
        """How many there are."""
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        """One of them."""
        return self.images[row], row % 2


@pytest.mark.parametrize(
    ("dtype", "low", "high", "expected"),
    [
        (np.uint8, 0, 200, None),
        (np.uint8, 0, 32, None),
        (np.uint8, 0, 0, None),
        (np.uint8, 0, 16, Range(0, 31)),
        (np.uint8, 0, 1, Range(0, 1)),
        (np.uint16, 0, 60, Range(0, 255)),
        (np.uint16, 0, 900, Range(0, 1023)),
        (np.uint16, 100, 4095, Range(0, 4095)),
        (np.uint16, 0, 16384, Range(0, 65535)),
        (np.int16, -1000, 3000, Range(-1024, 4095)),
        (np.int64, 0, 255, Range(0, 255)),
        (np.float32, 0, 0.2, Range(0, 1)),
        (np.float64, 0, 255, Range(0, 255)),
        (np.float32, -1, 1, Range(-1, 1)),
        (np.float32, 0, 1e10, Range(0, 1e10)),
    ],
)
def test_the_smallest_usual_range_that_holds_all_is_taken(
    dtype: type, low: float, high: float, expected: Range | None
) -> None:
    levels = levels_of(range_of(np.array([low, high], dtype)))
    ranges = [found for _, found in levels.ranges]
    assert ranges == ([] if expected is None else [expected])
    assert Levels.from_json(levels.as_json()) == levels
    assert levels.hold(range_of(np.array([low, high], dtype)))
    assert bool(levels.note) == (expected is not None)


def test_what_lies_outside_the_levels_of_a_model_is_clipped() -> None:
    levels = levels_of({"integers": Range(0, 4000)})
    assert to_bytes(np.array([0, 4095, 9000, -3]), levels).tolist() == [0, 255, 255, 0]
    assert not levels.hold({"integers": Range(0, 9000)})
    assert to_bytes(np.array([0, 255], np.uint8), ORDINARY).tolist() == [0, 255]


@pytest.mark.parametrize("full", [16, 255, 4095, 65535])
def test_files_arrays_and_datasets_are_read_alike(tmp_path: Path, full: int) -> None:
    """The same 16-bit images, by every door."""
    pictures = [(RAMP * full * share).astype(np.uint16) for share in (1, 0.5)]
    (tmp_path / "in").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "in" / f"{i}.png")
    files = load_images(source_of(tmp_path / "in"), 8, cache_dir=tmp_path / "cache")
    array = np.stack(pictures)
    in_memory = load_images(unlabelled(tmp_path, tmp_path, ["0", "1"], array), 8)
    np.testing.assert_allclose(files.pixels.astype(int), in_memory.pixels, atol=1)
    assert files.levels == in_memory.levels
    assert files.notes == in_memory.notes
    assert files.pixels.max() >= 128
    for X, kind in (
        (array, "images"),
        (Items(pictures), "dataset"),
        (Items([Image.fromarray(picture) for picture in pictures]), "dataset"),
    ):
        loaded = load_any(X, kind, size=8)
        np.testing.assert_allclose(loaded.pixels.astype(int), files.pixels, atol=1)
        assert loaded.levels == files.levels


@pytest.mark.parametrize("scale", [1, 255])
def test_floats_of_a_usual_range_are_read_alike(tmp_path: Path, scale: int) -> None:
    array = np.stack([RAMP, RAMP / 2]).astype(np.float32) * scale
    expected = (np.stack([RAMP, RAMP / 2]) * 255).round()
    for X, kind in ((array, "images"), (Items(list(array)), "dataset")):
        loaded = load_any(X, kind, size=8)
        np.testing.assert_allclose(loaded.pixels[..., 0], expected, atol=1)


def test_one_bright_image_that_was_not_looked_at_sets_the_range_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_PROBED", 2)
    root = tmp_path / "in"
    root.mkdir()
    for i, full in enumerate((900, 900, 40000, 900)):
        Image.fromarray((RAMP * full).astype(np.uint16)).save(root / f"{i}.png")
    loaded = load_images(source_of(root), 8, cache_dir=tmp_path / "cache")
    assert loaded.levels.of("integers") == Range(0, 65535)
    assert loaded.pixels.max(axis=(1, 2, 3)).tolist() == [4, 4, 156, 4]
    again = load_images(source_of(root), 8, cache_dir=tmp_path / "cache")
    assert (again.content_key, again.levels) == (loaded.content_key, loaded.levels)


def test_a_range_that_has_changed_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for i in range(3):
        Image.fromarray((RAMP * 900).astype(np.uint16)).save(root / f"{i}.png")
    before = load_images(source_of(root), 8, cache_dir=tmp_path / "cache").pixels[0].copy()
    Image.fromarray((RAMP * 40000).astype(np.uint16)).save(root / "2.png")
    after = load_images(source_of(root), 8, cache_dir=tmp_path / "cache").pixels
    assert before.max() == 224
    assert after[0].max() == 4


def test_few_grey_levels_are_stretched_and_photographs_are_not(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for i in range(3):
        Image.fromarray((RAMP * 1.99).astype(np.uint8)).save(root / f"{i}.png")
    assert load_images(source_of(root), 8, cache_dir=tmp_path / "cache").pixels.max() == 255
    Image.fromarray((RAMP * 200).astype(np.uint8)).save(root / "3.png")
    loaded = load_images(source_of(root), 8, cache_dir=tmp_path / "cache")
    assert loaded.pixels.max(axis=(1, 2, 3)).tolist() == [1, 1, 1, 200]
    assert loaded.levels == ORDINARY


def test_images_that_are_all_the_same_get_a_note(tmp_path: Path) -> None:
    source = unlabelled(tmp_path, tmp_path, ["0", "1", "2"], np.zeros((3, 8, 8), np.uint16))
    assert load_images(source, 8).notes[-1] == (
        "all of 3 images looked at are the same, of one colour (0); nothing can be learned from them."
    )
