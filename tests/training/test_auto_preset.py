"""The preset auto."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.auto_preset import (
    BACKBONES,
    ENOUGH_TO_FINETUNE,
    PACKAGED_BACKBONE,
    Look,
    choose,
    features_size,
    seconds_to_extract,
)
from cvcoteach.training.backbones import Backbone

CPU = torch.device("cpu")


def loaded(name: str, size: int | None = None) -> Backbone:
    return Backbone(name, nn.AvgPool2d(2).eval(), "", size or 224, (0.0,) * 3, (1.0,) * 3, "bilinear", True)


def unreachable(name: str, size: int | None = None) -> Backbone:
    raise InputError(f"the weights of {name} could not be fetched; bring a.pth.")


def packaged(name: str, size: int | None = None) -> Backbone:
    return loaded(name, size) if name == PACKAGED_BACKBONE else unreachable(name, size)


@pytest.mark.parametrize(
    ("n", "side", "device", "finetune"),
    [
        (20_000, 32, "cpu", False),
        (20_000, 300, "cpu", False),
        (400, 300, "cpu", False),
        (20_000, 300, "cuda", True),
        (ENOUGH_TO_FINETUNE - 1, 300, "cuda", False),
        (20_000, 32, "cuda", False),
    ],
)
def test_photographs_get_a_backbone_and_many_on_a_gpu_are_fine_tuned(
    n: int, side: int, device: str, finetune: bool
) -> None:
    choice = choose(Look(n, side), torch.device(device), load=loaded)
    assert choice.backbone is not None
    assert choice.backbone.name == BACKBONES[device]
    assert choice.finetune == finetune
    assert BACKBONES[device] in choice.reason


@pytest.mark.parametrize(
    ("look", "why"), [(Look(20_000, 16), "have 16 pixels a side"), (Look(400, 300, 2), "have 2 levels of gray")]
)
def test_tiny_images_and_drawings_get_the_small_network_and_nothing_is_fetched(look: Look, why: str) -> None:
    choice = choose(look, CPU, load=unreachable)
    assert choice.backbone is None
    assert choice.reason.endswith(why)


def test_where_published_weights_cannot_be_had_those_of_the_package_are_taken() -> None:
    choice = choose(Look(400, 300), CPU, load=packaged)
    assert choice.backbone is not None
    assert choice.backbone.name == PACKAGED_BACKBONE
    assert "the weights of torchvision:mobilenet_v3_large could not be fetched" in choice.reason


def test_where_there_are_none_at_all_the_small_network_is_taken_and_what_to_install_told() -> None:
    choice = choose(Look(400, 300), CPU, load=unreachable)
    assert choice.backbone is None
    assert "mobilenet_v3_large could not be fetched; bring a.pth; pip install 'cvcoteach[backbone]'" in choice.reason


def test_small_images_are_enlarged_but_not_beyond_what_the_network_knows() -> None:
    assert [features_size(side, 224) for side in (32, 64, 75, 300)] == [128, 224, 224, 224]
    choice = choose(Look(400, 32), CPU, load=loaded)
    assert choice.backbone is not None
    assert choice.backbone.size == 128


def test_the_size_that_the_user_wants_is_taken() -> None:
    choice = choose(Look(20_000, 300), CPU, size=6, load=loaded)
    assert choice.backbone is not None
    assert choice.backbone.size == 6


def test_the_time_is_measured_on_a_few_batches() -> None:
    few, many = (seconds_to_extract(loaded("fake", 8), Look(n, 8), CPU, at_most=0.05) for n in (400, 40_000))
    assert 0 < few < many
