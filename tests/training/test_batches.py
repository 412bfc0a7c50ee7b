"""Batches of images and of features on the device."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from cvcoteach._validation import InputError
from cvcoteach.training.augmentation import draw_motion, move
from cvcoteach.training.batches import DeviceImages, FeatureBatches, ImageBatches, check_pixels
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.normalisation import Scaling, normalise
from cvcoteach.training.recipe import Recipe


def images(n: int, height: int = 6, width: int = 7, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def test_a_memory_map_gives_the_batches_that_an_array_gives(tmp_path: Path) -> None:
    array = images(20)
    np.save(tmp_path / "pixels.npy", array)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    rows = [np.array([3, 1, 19]), np.array([0, 0]), np.array([7])]
    motion = draw_motion(6, 2, True, seed=3)
    resident = list(DeviceImages(array, ComputePlan()).batches(rows, motion))
    fetched = list(DeviceImages(mapped, ComputePlan(resident=False)).batches(rows, motion))
    assert [len(batch) for batch in fetched] == [3, 2, 1]
    assert all(torch.equal(a, b) for a, b in zip(resident, fetched, strict=True))
    assert all(
        torch.equal(a, b)
        for a, b in zip(DeviceImages(mapped, ComputePlan()).batches(rows, motion), fetched, strict=True)
    )


def test_batches_given_up_half_way_leave_no_thread_behind() -> None:
    def reading() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]

    batches = DeviceImages(images(100), ComputePlan(resident=False)).batches([np.array([i]) for i in range(100)])
    next(batches)
    assert reading() == ["prefetch"]
    batches.close()
    assert reading() == []


def test_what_fails_while_reading_ahead_is_raised_where_batches_are_used() -> None:
    batches = DeviceImages(images(5), ComputePlan(resident=False)).batches([np.array([0]), np.array([5])])
    next(batches)
    with pytest.raises(IndexError):
        next(batches)


def test_pixels_of_another_kind_are_refused() -> None:
    for wrong in (np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)):
        with pytest.raises(InputError, match=r"it takes uint8 \(n, H, W, C\) with C 1 or 3"):
            check_pixels(wrong)


ROWS = [np.array([3, 1, 19]), np.array([0, 0]), np.array([7])]


def test_images_are_predicted_as_they_are_and_trained_on_shifted_and_mirrored() -> None:
    array, scaling = images(20, height=16, width=16), Scaling((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    source = ImageBatches(DeviceImages(array, ComputePlan()), scaling)
    pixels = torch.from_numpy(array)
    for batch, rows in zip(source.for_prediction(ROWS), ROWS, strict=True):
        assert torch.equal(batch, normalise(pixels[rows], scaling))
    recipe, motion, start = Recipe(shift=2, flip=True), draw_motion(6, 2, True, seed=5), 0
    for batch, rows in zip(source.for_training(ROWS, recipe, 5), ROWS, strict=True):
        moved = move(pixels, torch.from_numpy(rows), motion.part(start, start + len(rows)))
        assert torch.equal(batch, normalise(moved, scaling))
        start += len(rows)


@pytest.mark.parametrize(("height", "width"), [(16, 12), (256, 8), (8, 257)])
def test_what_a_captured_step_makes_are_the_same_images(height: int, width: int) -> None:
    array = images(25, height=height, width=width)
    some = DeviceImages(array, ComputePlan(), np.arange(24, 4, -1))
    source, recipe = ImageBatches(some, Scaling((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))), Recipe(shift=2, flip=True)
    fixed = source.fixed(recipe)
    assert fixed is not None
    drawn = fixed.drawn(ROWS, 5)
    (worked_out,) = fixed.worked_out(drawn[None])
    at = 0
    for batch, rows in zip(source.for_training(ROWS, recipe, 5), ROWS, strict=True):
        part = slice(at, at + len(rows))
        assert torch.equal(fixed.made(drawn[0, part], worked_out[part]), batch)
        at += len(rows)


def test_rows_count_within_the_subset() -> None:
    array = images(20)
    some = DeviceImages(array, ComputePlan(), np.array([4, 2, 9]))
    assert len(some) == 3
    (batch,) = some.batches([np.array([2, 0])])
    assert torch.equal(batch, torch.from_numpy(array[[9, 4]]))


@pytest.mark.parametrize("resident", [True, False])
def test_features_come_through_to_the_bit_in_training_too(resident: bool) -> None:
    features = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    features[3, 0] = -0.0
    source = FeatureBatches(features, ComputePlan(resident=resident))
    assert len(source) == 20
    for stream in (source.for_prediction(ROWS), source.for_training(ROWS, Recipe(shift=3, flip=True), 5)):
        for batch, rows in zip(stream, ROWS, strict=True):
            assert batch.numpy().tobytes() == features[rows].tobytes()


def test_features_are_hidden_at_random_from_heads_that_learn_and_from_none_that_predict() -> None:
    X = np.ones((40, 50), np.float32)
    source, rows = FeatureBatches(X, ComputePlan()), [np.arange(20), np.arange(20, 40)]
    recipe = Recipe(hidden=0.4)
    batches = torch.cat(list(source.for_training(rows, recipe, seed=1)))
    assert batches.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert float((batches == 0).float().mean()) == pytest.approx(0.4, abs=0.05)
    again = torch.cat(list(source.for_training(rows, recipe, seed=1)))
    assert torch.equal(batches, again)
    assert not torch.equal(batches, torch.cat(list(source.for_training(rows, recipe, seed=2))))
    for unchanged in (source.for_training(rows, Recipe(), seed=1), source.for_prediction(rows)):
        assert torch.equal(torch.cat(list(unchanged)), torch.from_numpy(X))
