"""Networks of this package."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cvcoteach.training.networks import (
    CifarResNet,
    GreyAsColour,
    SmallNet,
    edges_and_colours,
    feature_head,
    wide_net,
)


@pytest.mark.parametrize("kind", [SmallNet, wide_net, CifarResNet])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (3, 32), (1, 28), (3, 45)])
def test_our_networks_take_grey_and_colour_of_any_size_from_8_pixels_up(
    kind: Callable[[int, int], nn.Module], channels: int, size: int
) -> None:
    assert kind(5, channels)(torch.rand(2, channels, size, size + 3)).shape == (2, 5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_network_starts_with_edges_and_colours_at_right_angles(channels: int) -> None:
    basis = edges_and_colours(channels).flatten(1)
    half = 4 * channels
    torch.testing.assert_close(basis[:half] @ basis[:half].T, torch.eye(half))
    torch.testing.assert_close(basis[half:], -basis[:half])
    network = SmallNet(5, channels)
    assert torch.equal(network.state_dict()["layers.0.0.weight"].flatten(1), basis)


def test_resnet32_is_that_of_the_paper() -> None:
    network = CifarResNet(10, 3)
    weighted = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 32
    assert sum(p.numel() for p in network.parameters()) == 464_154  # 0.46 million, He et al., table 6
    assert [layer.out_channels for layer in weighted if isinstance(layer, nn.Conv2d)] == [16] * 11 + [32] * 10 + [
        64
    ] * 10


def test_a_head_on_features_has_one_hidden_layer() -> None:
    head = feature_head(7, 3)
    assert head(torch.rand(2, 7)).shape == (2, 3)
    assert [tuple(p.shape) for p in head.parameters()] == [(256, 7), (256,), (3, 256), (3,)]


def test_a_grey_image_is_repeated_to_three_channels() -> None:
    seen: list[torch.Tensor] = []
    grey = torch.rand(2, 1, 4, 4)
    GreyAsColour(_Remember(seen))(grey)
    assert torch.equal(seen[0], grey.repeat(1, 3, 1, 1))


class _Remember(nn.Module):
    """Keeps what it is given."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return images
