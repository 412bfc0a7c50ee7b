"""Images: one array of all of them, with the reason where one cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data import images
from cvcoteach.data.images import load_images, natural_size
from cvcoteach.data.sources import Source
from tests.image_files import noise_images, source_of

RED = (254, 0, 0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A cache folder."""
    return tmp_path / "cache"


# -- channels --


def test_grey_images_take_one_channel(tmp_path: Path, home: Path) -> None:
    source = noise_images(tmp_path / "in", 5, side=8, channels=1)
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(tmp_path / "in" / "z.png")  # grey, though stored as RGB
    source = source_of(tmp_path / "in")
    pixels = load_images(source, 8, cache_dir=home).pixels
    assert pixels.shape == (6, 8, 8, 1)
    assert (pixels[5] == 9).all()
    assert load_images(source, 8, channels=3, cache_dir=home).pixels.shape == (6, 8, 8, 3)


def test_one_coloured_image_makes_all_coloured_even_if_it_is_not_looked_at_first(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_PROBED", 2)
    noise_images(tmp_path / "in", 5, side=8, channels=1)
    Image.new("RGB", (8, 8), RED).save(tmp_path / "in" / "0002.png")
    pixels = load_images(source_of(tmp_path / "in"), 8, cache_dir=home).pixels
    assert pixels.shape == (5, 8, 8, 3)
    assert (pixels[2] == RED).all()
    assert (pixels[1] == pixels[1, :, :, :1]).all()


def test_colours_can_be_taken_as_grey(tmp_path: Path, home: Path) -> None:
    source = noise_images(tmp_path / "in", 2, side=8)
    pixels = load_images(source, 8, channels=1, cache_dir=home).pixels
    with Image.open(tmp_path / "in" / "0000.png") as image:
        np.testing.assert_array_equal(pixels[0, :, :, 0], np.asarray(image.convert("L")))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channels": 2}, "channels is 2"), ({"size": 0}, "size is 0"), ({"workers": 0}, "workers is 0")],
)
def test_settings_that_do_not_fit_get_a_sentence(tmp_path: Path, options: dict[str, int], message: str) -> None:
    source = noise_images(tmp_path / "in", 2)
    with pytest.raises(InputError, match=message):
        load_images(source, **{"size": 8, **options}, cache_dir=tmp_path)


# -- what cannot be read --


def test_unreadable_images_are_named_with_the_reason_and_the_rest_goes_on(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    noise_images(root, 8, side=32)
    whole = (root / "0001.png").read_bytes()
    (root / "0001.png").write_bytes(whole[: len(whole) // 2])
    (root / "0003.png").write_bytes(b"not an image")
    (root / "0005.png").write_bytes(b"")
    source = source_of(root)
    (root / "0006.png").unlink()
    for _ in ("made", "from the cache"):
        loaded = load_images(source, 8, cache_dir=home)
        assert loaded.readable.tolist() == [True, False, True, False, True, False, False, True]
        assert "truncated" in loaded.errors[1]
        assert loaded.errors[3] == "unknown image format"
        assert loaded.errors[5] == "the file is empty"
        assert loaded.errors[6] == "no such file or directory"
        assert sorted(loaded.errors) == [1, 3, 5, 6]
        assert not loaded.pixels[~loaded.readable].any()
        assert loaded.pixels[loaded.readable].any(axis=(1, 2, 3)).all()


def test_an_image_too_large_is_unreadable_unless_more_pixels_are_allowed(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name, side in (("0.png", 9), ("1.png", 10), ("2.png", 40)):
        Image.new("RGB", (side, side)).save(root / name)
    before = Image.MAX_IMAGE_PIXELS
    loaded = load_images(source_of(root), 8, cache_dir=home, max_pixels=100)
    assert loaded.readable.tolist() == [True, True, False]
    assert loaded.errors[2] == "it has more than the 200 pixels that are allowed; --max-megapixels raises that"
    Image.new("RGB", (12, 12)).save(root / "2.png")
    assert (
        "it has 144 pixels, more than the 100"
        in load_images(source_of(root), 8, cache_dir=home, max_pixels=100).errors[2]
    )
    assert load_images(source_of(root), 8, cache_dir=home, max_pixels=144).readable.all()
    assert load_images(source_of(root), 8, cache_dir=home).readable.all()
    assert before == Image.MAX_IMAGE_PIXELS


def test_more_than_half_unreadable_is_an_error_with_the_first_reason(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    noise_images(root, 3)
    (root / "0001.png").write_bytes(b"x")
    (root / "0002.png").write_bytes(b"y")
    for _ in ("made", "from the cache"):
        with pytest.raises(InputError, match=r"2 of 3 images in .* the first is 0001\.png: unknown image format"):
            load_images(source_of(root), 8, cache_dir=home)


def test_an_image_that_was_mended_is_readable(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    source = noise_images(root, 3)
    whole = (root / "0001.png").read_bytes()
    (root / "0001.png").unlink()
    assert load_images(source, 8, cache_dir=home).errors == {1: "no such file or directory"}
    (root / "0001.png").write_bytes(whole)
    assert load_images(source, 8, cache_dir=home).errors == {}


# -- arrays --


def array_source(array: Any) -> Source:
    names = tuple(f"x.npz#{i}" for i in range(len(array)))
    return Source(Path("x.npz"), Path(), names, np.arange(len(array)) % 2, ("a", "b"), array=array)


def test_an_array_that_fits_is_taken_as_it_is() -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    loaded = load_images(array_source(array), 8)
    assert loaded.pixels is array
    assert loaded.readable.all()
    assert loaded.errors == {}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64, np.bool_])
@pytest.mark.parametrize("size", [8, 4, 11])
def test_arrays_of_every_kind_become_bytes(dtype: type, size: int) -> None:
    full = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    array = np.zeros((6, 8, 8), dtype)
    array[1::2] = full
    pixels = load_images(array_source(array), size).pixels
    assert pixels.shape == (6, size, size, 1)
    assert pixels.dtype == np.uint8
    assert (pixels[::2] == 0).all()
    assert (pixels[1::2] == 255).all()


def test_arrays_are_resized_as_files_are(tmp_path: Path, home: Path) -> None:
    source = noise_images(tmp_path / "in", 4, side=12)
    array = np.stack([np.asarray(Image.open(file)) for file in source.files or ()])
    np.testing.assert_array_equal(
        load_images(array_source(array), 5).pixels, load_images(source, 5, cache_dir=home).pixels
    )


def test_transparent_arrays_stand_on_white() -> None:
    array = np.zeros((2, 4, 4, 4), np.uint8)
    array[1, ..., 3] = 102
    pixels = load_images(array_source(array), 4).pixels
    assert pixels.shape == (2, 4, 4, 1)
    assert (pixels[0] == 255).all()
    assert (pixels[1] == 153).all()


def test_grey_arrays_take_one_channel_unless_three_are_asked_for() -> None:
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    three = np.repeat(array, 3, axis=3)
    np.testing.assert_array_equal(load_images(array_source(three), 4).pixels, array)
    np.testing.assert_array_equal(load_images(array_source(array), 4, channels=3).pixels, three)
    np.testing.assert_array_equal(load_images(array_source(three), 4, channels=1).pixels, array)


def test_the_key_of_an_array_follows_its_content() -> None:
    array = np.zeros((3, 4, 4), np.uint8)
    keys = {load_images(array_source(array), 4).content_key}
    array[2, 1, 1] = 1
    keys.add(load_images(array_source(array), 4).content_key)
    keys.add(load_images(array_source(array), 5).content_key)
    assert len(keys) == 3


# -- natural size --


def test_the_natural_size_is_the_median_short_side(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for i, shape in enumerate([(40, 30), (20, 64), (500, 90)]):
        Image.new("L", shape).save(root / f"{i}.png")
    (root / "3.png").write_bytes(b"")
    assert natural_size(source_of(root)) == 30
    assert natural_size(array_source(np.zeros((2, 28, 36), np.uint8))) == 28


def test_no_readable_image_has_no_natural_size(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(InputError, match="none of 1 images looked at"):
        natural_size(source_of(tmp_path))
