"""Features that are computed once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor, nn

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
    if change == "content":
        extract_features(backbone, 255 - pixels, "other", cache_dir=tmp_path)
    else:
        extract_features(backbone, pixels, "key", cache_dir=tmp_path)
    assert network.seen >= len(pixels)


def test_of_another_dataset_with_the_same_images_only_new_ones_are_computed(tmp_path: Path) -> None:
    pixels = images(400)
    extract_features(backbone_of(Colours()), pixels[:200], "a", cache_dir=tmp_path)
    extract_features(backbone_of(Colours()), pixels[200:300], "b", cache_dir=tmp_path)
    order = np.random.default_rng(0).permutation(300)
    other = np.concatenate([pixels[order[:150]], pixels[300:330], pixels[order[150:]], pixels[330:331], pixels[:20]])
    network, told = Colours(), list[int]()
    features = extract_features(
        backbone_of(network), other, "c", cache_dir=tmp_path, progress=lambda done, n, speed: told.append(done)
    )
    assert network.seen == 31
    assert told[-1] == len(other)
    expected = extract_features(backbone_of(Colours()), other, "c", cache_dir=tmp_path / "fresh")
    assert_allclose(features, expected, atol=1e-3)
    assert_array_equal(features[150:180], expected[150:180])


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_features_whose_images_are_not_surely_known_are_not_taken_over(damage: str, tmp_path: Path) -> None:
    pixels = images()
    extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path)
    [file] = (tmp_path / "features").glob("*.images")
    content = file.read_bytes()
    file.write_bytes(content[:-9] if damage == "cut" else bytes([*content[:-30], content[-30] ^ 1, *content[-29:]]))
    network = Colours()
    extract_features(backbone_of(network), pixels[::-1], "other", cache_dir=tmp_path)
    assert network.seen >= len(pixels)


def test_what_is_stopped_between_known_images_goes_on_there(tmp_path: Path) -> None:
    pixels = images(300)
    extract_features(backbone_of(Colours()), pixels[100:200], "key", cache_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        extract_features(backbone_of(Stopping(after=120)), pixels, "all", cache_dir=tmp_path)
    network = Colours()
    features = extract_features(backbone_of(network), pixels, "all", cache_dir=tmp_path)
    assert network.seen == 36  # after 100, 100 known ones and a batch of 64
    assert_allclose(features, 2 * pixels.astype(np.float32).mean(axis=(1, 2)) / 255, atol=2e-3)


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


class Greedy(Colours):
    """Runs out of memory on more than `room` images."""

    room = 10
    error = torch.OutOfMemoryError

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise self.error("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return super().forward(images)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_where_memory_runs_out_a_part_of_a_batch_is_computed_at_a_time(
    error: type[RuntimeError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greedy, "error", error)
    pixels = images()
    whole = extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path / "whole")
    assert_array_equal(extract_features(backbone_of(Greedy()), pixels, "key", cache_dir=tmp_path / "part"), whole)
    monkeypatch.setattr(Greedy, "room", 0)
    with pytest.raises(InputError, match=r"cpu has too little memory to compute .* on one image"):
        extract_features(backbone_of(Greedy()), pixels, "other", cache_dir=tmp_path / "none")


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


@pytest.mark.parametrize("part", ["*.npy", "*.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_damaged_features_are_computed_again(part: str, damage: str, tmp_path: Path) -> None:
    pixels = images(9)
    expected = np.array(extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path))
    (file,) = (tmp_path / "features").glob(part)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"flipped": bytes(content), "cut": bytes(content[:-3]), "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        file.unlink()
    for again in range(2):
        network = Colours()
        assert_array_equal(extract_features(backbone_of(network), pixels, "key", cache_dir=tmp_path), expected)
        assert (network.seen == 0) == (again == 1)


@pytest.mark.parametrize("damage", ["empty", "cut", "state"])
def test_a_damaged_half_is_begun_anew(damage: str, tmp_path: Path) -> None:
    pixels = images()
    expected = np.array(extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        extract_features(backbone_of(Stopping(after=120)), pixels, "key", cache_dir=tmp_path)
    (building,), (state,) = (list((tmp_path / "features").glob(name)) for name in ("*.building", "*.done.json"))
    if damage == "state":
        state.write_text('{"done": 10000, "shape": [4')
    else:
        os.truncate(building, 0 if damage == "empty" else building.stat().st_size - 7)
    assert_array_equal(extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path), expected)
    assert sorted(file.suffix for file in (tmp_path / "features").iterdir()) == [".images", ".json", ".lock", ".npy"]


def test_a_full_disk_is_a_sentence_and_the_same_call_goes_on(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    pixels = images(400)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (128 + 3 * 2 * 130, before[1]))
    try:
        with pytest.raises(InputError, match=r"is full; make room, .* repeat the same call: it goes on from here"):
            extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    network = Colours()
    features = extract_features(backbone_of(network), pixels, "key", cache_dir=tmp_path)
    assert network.seen == 400 - 2 * 64
    assert_array_equal(features, extract_features(backbone_of(Colours()), pixels, "other", cache_dir=tmp_path))


def test_too_little_room_is_told_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    network = Colours()
    with pytest.raises(InputError, match=r"has 0\.1 kB free, but 3 features of 400 images need 2\.4 kB; make room"):
        extract_features(backbone_of(network), images(400), "key", cache_dir=tmp_path)
    assert network.seen <= 1


def test_features_long_unused_are_removed(tmp_path: Path) -> None:
    for key in ("old", "used"):
        extract_features(backbone_of(Colours()), images(4), key, cache_dir=tmp_path)
    for file in (tmp_path / "features").iterdir():
        os.utime(file, (1, 1))
    extract_features(backbone_of(Colours()), images(4), "used", cache_dir=tmp_path)
    extract_features(backbone_of(Colours()), images(4), "new", cache_dir=tmp_path)
    assert len(list((tmp_path / "features").glob("*.npy"))) == 2
    network = Colours()
    extract_features(backbone_of(network), images(4), "used", cache_dir=tmp_path)
    assert network.seen == 0
