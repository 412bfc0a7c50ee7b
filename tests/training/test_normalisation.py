"""From bytes to network inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.normalisation import Scaling, normalise, scaling_of


def images(n: int, height: int = 6, width: int = 7, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def test_normalising_subtracts_the_mean_and_divides() -> None:
    raw = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    out = normalise(raw, Scaling((0.5, 0.5, 0.0), (0.5, 0.25, 1.0)))
    assert out.shape == (1, 3, 1, 1)
    torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, 2.0, 0.2]))


@pytest.mark.parametrize("last", [False, True])
def test_batches_lie_in_the_plans_memory_order(last: bool) -> None:
    plan = ComputePlan(channels_last=last)
    out = normalise(torch.from_numpy(images(4)), Scaling((0.5,) * 3, (0.5,) * 3), plan.memory_format)
    assert out.is_contiguous(memory_format=plan.memory_format)


def test_grey_images_become_colour_under_a_mean_of_three() -> None:
    raw = torch.from_numpy(images(2, channels=1))
    out = normalise(raw, Scaling((0.4, 0.5, 0.6), (1.0, 1.0, 1.0)))
    assert out.shape == (2, 3, 6, 7)
    torch.testing.assert_close(out[:, 0] + 0.4, out[:, 2] + 0.6)


def test_scaling_is_that_of_the_images_in_question() -> None:
    pixels = np.zeros((10, 4, 4, 1), np.uint8)
    pixels[::2, :2] = 255
    scaling = scaling_of(pixels, np.array([0, 2, 4]))
    assert scaling == Scaling((0.5,), (0.5,))
    assert scaling_of(pixels, np.array([1])).std[0] > 0  # one colour throughout does not divide by 0
