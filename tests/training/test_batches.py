"""Behaviours of batches: gathering, shifting, mirroring, scaling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cvcoteach._validation import InputError
from cvcoteach.training.batches import (
    Motion,
    Pixels,
    Scaling,
    as_pixels,
    draw_motion,
    move,
    normalise,
    scaling_of,
)
from cvcoteach.training.devices import Plan


def images(n: int, height: int = 6, width: int = 7, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def moved_slowly(image: torch.Tensor, down: int, right: int, mirrored: bool) -> torch.Tensor:
    """One image, by padding, cutting out and mirroring."""
    height, width, _ = image.shape
    most = max(abs(down), abs(right))
    padded = functional.pad(image.permute(2, 0, 1).float(), (most,) * 4, mode="reflect") if most else None
    if padded is not None:
        top, left = most - down, most - right
        image = padded[:, top : top + height, left : left + width].permute(1, 2, 0).to(torch.uint8)
    return image.flip(1) if mirrored else image


@settings(max_examples=30, deadline=None)
@given(shift=st.integers(0, 5), flip=st.booleans(), seed=st.integers(0, 1000))
def test_moving_a_batch_is_padding_cutting_and_mirroring_each_image(shift: int, flip: bool, seed: int) -> None:
    pixels = torch.from_numpy(images(9))
    rows = torch.tensor([3, 0, 8, 8, 1])
    motion = draw_motion(len(rows), shift, flip, seed)
    batch = move(pixels, rows, motion)
    for i, row in enumerate(rows.tolist()):
        expected = moved_slowly(pixels[row], int(motion.down[i]), int(motion.right[i]), bool(motion.mirrored[i]))
        assert torch.equal(batch[i], expected)


def test_motion_covers_every_shift_and_both_sides_and_only_those() -> None:
    motion = draw_motion(2000, 2, True, seed=0)
    for values in (motion.down, motion.right):
        assert sorted(set(values.tolist())) == [-2, -1, 0, 1, 2]
    assert 0.45 < motion.mirrored.float().mean() < 0.55
    still = draw_motion(2000, 0, False, seed=0)
    assert not any(values.any() for values in still)


def test_motion_is_the_seeds_and_leaves_torchs_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = draw_motion(20, 3, True, 1), draw_motion(20, 3, True, 1), draw_motion(20, 3, True, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.down, other.down)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shift_beyond_the_image_is_cut_to_it() -> None:
    pixels = torch.arange(3, dtype=torch.uint8).view(1, 1, 3, 1)
    far = Motion(torch.tensor([9]), torch.tensor([-9]), torch.tensor([False]))
    assert move(pixels, torch.tensor([0]), far).flatten().tolist() == [2, 1, 0]  # all of it lies in the reflection


def test_normalising_takes_off_the_mean_and_divides() -> None:
    raw = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    out = normalise(raw, Scaling((0.5, 0.5, 0.0), (0.5, 0.25, 1.0)), Plan())
    assert out.shape == (1, 3, 1, 1)
    torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, 2.0, 0.2]))


@pytest.mark.parametrize("last", [False, True])
def test_batches_lie_in_the_plans_memory_order(last: bool) -> None:
    plan = Plan(channels_last=last)
    out = normalise(torch.from_numpy(images(4)), Scaling((0.5,) * 3, (0.5,) * 3), plan)
    assert out.is_contiguous(memory_format=plan.memory_format)


def test_grey_images_become_colour_under_a_mean_of_three() -> None:
    raw = torch.from_numpy(images(2, channels=1))
    out = normalise(raw, Scaling((0.4, 0.5, 0.6), (1.0, 1.0, 1.0)), Plan())
    assert out.shape == (2, 3, 6, 7)
    torch.testing.assert_close(out[:, 0] + 0.4, out[:, 2] + 0.6)


def test_scaling_is_that_of_the_images_asked_for() -> None:
    pixels = np.zeros((10, 4, 4, 1), np.uint8)
    pixels[::2, :2] = 255
    scaling = scaling_of(pixels, np.array([0, 2, 4]))
    assert scaling == Scaling((0.5,), (0.5,))
    assert scaling_of(pixels, np.array([1])).std[0] > 0  # one colour throughout does not divide by 0


def test_a_memory_map_gives_the_batches_that_an_array_gives(tmp_path: Path) -> None:
    array = images(20)
    np.save(tmp_path / "pixels.npy", array)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    rows = [np.array([3, 1, 19]), np.array([0, 0]), np.array([7])]
    motion = draw_motion(6, 2, True, seed=3)
    resident = list(Pixels(array, Plan()).batches(rows, motion))
    fetched = list(Pixels(mapped, Plan(resident=False)).batches(rows, motion))
    assert [len(batch) for batch in fetched] == [3, 2, 1]
    assert all(torch.equal(a, b) for a, b in zip(resident, fetched, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(Pixels(mapped, Plan()).batches(rows, motion), fetched, strict=True))


def test_batches_given_up_half_way_leave_no_thread_behind() -> None:
    import threading

    before = threading.active_count()
    batches = Pixels(images(100), Plan(resident=False)).batches([np.array([i]) for i in range(100)])
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before


def test_what_fails_while_reading_ahead_is_raised_where_batches_are_used() -> None:
    batches = Pixels(images(5), Plan(resident=False)).batches([np.array([0]), np.array([5])])
    next(batches)
    with pytest.raises(IndexError):
        next(batches)


def test_pixels_of_another_kind_are_refused() -> None:
    for wrong in (np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 4), np.uint8)):
        with pytest.raises(InputError, match=r"it takes uint8 \(n, H, W, C\) with C 1 or 3"):
            as_pixels(wrong)
