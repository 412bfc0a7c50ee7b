"""The preset auto."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.auto_preset import BACKBONES, ENOUGH_TO_FINETUNE, choose, seconds_to_extract
from cvcoteach.training.backbones import Backbone


def loaded(name: str, size: int | None = None) -> Backbone:
    return Backbone(name, nn.AvgPool2d(2).eval(), "", size or 8, (0.0,) * 3, (1.0,) * 3, "bilinear", True)


def unreachable(name: str, size: int | None = None) -> Backbone:
    raise InputError(f"the weights of {name} could not be fetched; bring a.pth.")


@pytest.mark.parametrize(
    ("n", "side", "device", "finetune"),
    [
        (20_000, 32, "cpu", False),
        (20_000, 300, "cpu", False),
        (20_000, 300, "cuda", True),
        (ENOUGH_TO_FINETUNE - 1, 300, "cuda", False),
        (20_000, 32, "cuda", False),
        (100, 16, "cpu", False),
    ],
)
def test_photographs_get_a_backbone_and_many_on_a_gpu_are_fine_tuned(
    n: int, side: int, device: str, finetune: bool
) -> None:
    choice = choose(n, side, torch.device(device), load=loaded)
    assert choice.backbone is not None
    assert choice.backbone.name == BACKBONES[device]
    assert choice.finetune == finetune
    assert BACKBONES[device] in choice.reason


def test_tiny_images_get_the_small_network_and_nothing_is_fetched() -> None:
    choice = choose(20_000, 16, torch.device("cpu"), load=unreachable)
    assert choice.backbone is None
    assert choice.reason.endswith("since the images have 16 pixels a side")


def test_where_weights_cannot_be_had_the_small_network_is_taken_and_the_reason_told() -> None:
    choice = choose(20_000, 300, torch.device("cpu"), load=unreachable)
    assert choice.backbone is None
    assert "could not be fetched; bring a.pth" in choice.reason


def test_the_size_that_the_user_wants_is_taken() -> None:
    choice = choose(20_000, 300, torch.device("cpu"), size=6, load=loaded)
    assert choice.backbone is not None
    assert choice.backbone.size == 6


def test_the_time_is_measured_on_the_first_batches() -> None:
    pixels = np.zeros((4_000, 8, 8, 3), np.uint8)
    few = seconds_to_extract(loaded("fake"), pixels[:400], torch.device("cpu"), at_most=0.05)
    many = seconds_to_extract(loaded("fake"), pixels, torch.device("cpu"), at_most=0.05)
    assert 0 < few < many
