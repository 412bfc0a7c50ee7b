"""Features that are computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.extraction import extract_features
from tests.backbones import Colours, Stopping, backbone_of, images


def test_features_are_those_of_the_bare_network(tmp_path: Path) -> None:
    pixels = images()
    network = Colours()
    features = extract_features(backbone_of(network), pixels, "key", cache_dir=tmp_path)
    expected = 2 * pixels.astype(np.float32).mean(axis=(1, 2)) / 255
    assert features.dtype == np.float16
    assert_allclose(features, expected, atol=2e-3)
    assert not network.training


def test_small_and_grey_images_are_scaled_up_and_repeated(tmp_path: Path) -> None:
    pixels = images(5, size=4, channels=1)
    features = extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path)
    assert_allclose(features, np.repeat(features[:, :1], 3, axis=1))
    assert_allclose(features[:, 0], 2 * pixels.mean(axis=(1, 2, 3)) / 255, atol=0.05)


def test_the_same_images_and_weights_are_computed_once(tmp_path: Path) -> None:
    pixels, network = images(), Colours()
    backbone = backbone_of(network)
    first = extract_features(backbone, pixels, "key", cache_dir=tmp_path)
    seen = network.seen
    assert_array_equal(extract_features(backbone, pixels, "key", cache_dir=tmp_path), first)
    assert network.seen == seen


@pytest.mark.parametrize("change", ["content", "weights", "size"])
def test_other_images_weights_or_sizes_are_computed_again(change: str, tmp_path: Path) -> None:
    pixels = images()
    extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path)
    network = Colours()
    if change == "weights":
        network.weight.data += 1
    backbone = backbone_of(network, size=6 if change == "size" else 8)
    extract_features(backbone, pixels, "other" if change == "content" else "key", cache_dir=tmp_path)
    assert network.seen >= len(pixels)


def test_a_stopped_extraction_resumes(tmp_path: Path) -> None:
    pixels = images()
    whole = extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extract_features(backbone_of(Stopping(after=120)), pixels, "key", cache_dir=tmp_path)
    network = Colours()
    told: list[int] = []
    features = extract_features(
        backbone_of(network), pixels, "key", cache_dir=tmp_path, progress=lambda done, n, speed: told.append(done)
    )
    assert 0 < network.seen <= len(pixels) - 64
    assert told[-1] == len(pixels)
    assert_array_equal(features, whole)


def test_images_that_the_backbone_does_not_take_and_odd_outputs_are_refused(tmp_path: Path) -> None:
    small = backbone_of(nn.Conv2d(3, 4, 16), size=8)
    with pytest.raises(InputError, match=r"does not take .* images of 8×8 pixels .*--image-size"):
        extract_features(small, images(4), "key", cache_dir=tmp_path)
    network = Colours()
    network.weight.data[:] = float("nan")
    with pytest.raises(InputError, match="returns a number that is not finite for image 0"):
        extract_features(backbone_of(network), images(4), "key", cache_dir=tmp_path)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="CVCOTEACH_CACHE_DIR names another one"):
        extract_features(backbone_of(Colours()), images(4), "key", cache_dir=tmp_path / "file")
