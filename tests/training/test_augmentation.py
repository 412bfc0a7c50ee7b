"""Random shifts and mirror images."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from cvcoteach.training.augmentation import Motion, draw_motion, move


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
