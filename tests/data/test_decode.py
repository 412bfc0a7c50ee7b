"""Decoding: every format is read in its colours, whole and upright; what is broken has a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from cvcoteach.data import decode
from cvcoteach.data.images import load_images, natural_size
from cvcoteach.data.sources.source import unlabelled
from tests.image_files import source_of

RED, WHITE = (254, 0, 0), (255, 255, 255)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A cache folder."""
    return tmp_path / "cache"


def solid(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (9, 5), colour)


def gif(file: Path) -> None:
    solid("RGB", RED).save(file, save_all=True, append_images=[solid("RGB", (0, 0, 254))])


def half_transparent_palette(file: Path) -> None:
    image = solid("P", 1)
    image.putpalette([0, 0, 0, *RED])
    image.save(file, transparency=bytes([255, 0]))


FORMATS: dict[str, tuple[Callable[[Path], None], tuple[int, int, int]]] = {
    "rgb.png": (solid("RGB", RED).save, RED),
    "rgb.jpg": (lambda file: solid("RGB", RED).save(file, quality=100, subsampling=0), RED),
    "rgb.bmp": (solid("RGB", RED).save, RED),
    "rgb.webp": (lambda file: solid("RGB", RED).save(file, lossless=True), RED),
    "rgb.tif": (solid("RGB", RED).save, RED),
    "rgb.ppm": (solid("RGB", RED).save, RED),
    "grey.png": (solid("L", 77).save, (77, 77, 77)),
    "grey-alpha.png": (solid("LA", (0, 0)).save, WHITE),
    "half-alpha.png": (solid("RGBA", (0, 0, 0, 102)).save, (153, 153, 153)),
    "transparent.png": (solid("RGBA", (*RED, 0)).save, WHITE),
    "opaque.png": (solid("RGBA", (*RED, 255)).save, RED),
    "palette.png": (lambda file: solid("RGB", RED).quantize().save(file), RED),
    "palette-alpha.png": (half_transparent_palette, WHITE),
    "keyed.png": (lambda file: solid("RGB", RED).save(file, transparency=RED), WHITE),
    "bit.png": (solid("1", 1).save, WHITE),
    "deep.png": (lambda file: Image.fromarray(np.full((5, 9), 77 * 257, np.uint16)).save(file), (77, 77, 77)),
    "deep.tif": (lambda file: Image.fromarray(np.full((5, 9), 77 * 257, np.uint16)).save(file), (77, 77, 77)),
    "int.tif": (lambda file: Image.fromarray(np.full((5, 9), 77, np.int32)).save(file), (77, 77, 77)),
    "float.tif": (lambda file: Image.fromarray(np.full((5, 9), 0.2, np.float32)).save(file), (51, 51, 51)),
    "cmyk.jpg": (lambda file: solid("CMYK", (0, 0, 0, 255)).save(file, quality=100), (0, 0, 0)),
    "cmyk.tif": (solid("CMYK", (0, 255, 255, 0)).save, (255, 0, 0)),
    "film.gif": (gif, RED),
    "film.webp": (gif, RED),
    "film.png": (gif, RED),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_in_its_colours(tmp_path: Path, home: Path, name: str) -> None:
    save, colour = FORMATS[name]
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / name)
    loaded = load_images(source_of(tmp_path / "in"), 4, channels=3, cache_dir=home)
    assert loaded.errors == {}
    assert loaded.pixels.shape == (1, 4, 4, 3)
    # JPEG and animated WebP round
    np.testing.assert_allclose(loaded.pixels[0], np.broadcast_to(colour, (4, 4, 3)), atol=3)


def test_formats_and_sizes_mix(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name, (save, _) in FORMATS.items():
        save(root / name)
    Image.new("RGB", (300, 2), RED).save(root / "long.png")
    loaded = load_images(source_of(root), 8, cache_dir=home)
    assert loaded.pixels.shape == (len(FORMATS) + 1, 8, 8, 3)
    assert loaded.readable.all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    """The file is stored as a camera does: turned so that undoing its EXIF orientation gives the picture."""
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8, :8] = 250
    picture[:8, 8:] = 120
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Image.Transpose, the inverse turn
    image = Image.fromarray(picture)
    image = image if undo is None else image.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(suffix, {})
    image.save(tmp_path / f"x.{suffix}", exif=exif, **options)
    upright = np.asarray(decode.to_square((tmp_path / f"x.{suffix}").read_bytes(), 16))
    np.testing.assert_allclose(upright.astype(int), picture, atol=40 if suffix == "jpg" else 0)


def test_the_whole_image_is_squashed_and_nothing_is_cropped_away(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    picture = np.zeros((16, 64), np.uint8)
    picture[:, :16] = picture[:, 48:] = 200  # what stands at the borders
    Image.fromarray(picture).save(root / "x.png")
    pixels = load_images(source_of(root), 16, cache_dir=home).pixels[0, :, :, 0]
    assert (pixels[:, 0] == 200).all()
    assert (pixels[:, -1] == 200).all()
    assert (pixels[:, 8] == 0).all()


def test_small_squares_are_antialiased(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(root / "x.png")
    assert np.ptp(load_images(source_of(root), 8, cache_dir=home).pixels.astype(int) - 127) <= 2


def test_a_large_jpeg_looks_as_one_that_was_decoded_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((1600, 1200))
    smooth.save(tmp_path / "x.jpg", quality=95)
    quick = np.asarray(decode.to_square((tmp_path / "x.jpg").read_bytes(), 32)).astype(int)
    with Image.open(tmp_path / "x.jpg") as image:
        whole = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(quick - whole).mean() < 2


def test_a_truncated_jpeg_is_unreadable(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        Image.fromarray(noise).save(root / name)
    (root / "1.jpg").write_bytes((root / "1.jpg").read_bytes()[:-900])
    assert load_images(source_of(root), 8, cache_dir=home).readable.tolist() == [True, False, True]


@pytest.mark.parametrize("name", FORMATS)
def test_a_broken_file_is_unreadable_or_read_but_never_raises(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    save, _ = FORMATS[name]
    save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    files = []
    for number in range(30):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] ^= 1 + int(rng.integers(255))
        if number % 2:
            del broken[rng.integers(len(broken)) :]
        files.append(tmp_path / f"{number}-{name}")
        files[-1].write_bytes(broken)
    pixels, records, errors, _ = decode.decode_files([str(file) for file in files], 4, 3, only_grey=False)
    assert records["readable"].tolist() == [i not in errors for i in range(30)]
    assert all(errors.values())
    assert not pixels[~records["readable"]].any()
    assert capfd.readouterr() == ("", "")


def test_an_image_that_would_take_too_much_memory_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"rgb.png": solid("RGB", RED), "rgba.png": solid("RGBA", (0, 0, 0, 102)), "deep.png": solid("I;16", 9)}
    for name, image in files.items():
        image.save(tmp_path / name)
    monkeypatch.setattr(decode, "_LEAST_BYTES", 9 * 5 * 13)
    _, _, errors, _ = decode.decode_files([str(tmp_path / name) for name in files], 4, 3, False, max_pixels=45)
    assert list(errors) == [2]
    assert "GB of memory, more than the 0.0 GB that are allowed; --max-megapixels raises that" in errors[2]
    assert decode.decode_files([str(tmp_path / "deep.png")], 4, 3, False, max_pixels=9 * 5 * 6)[2] == {}


def test_formats_that_pillow_hands_to_other_programs_are_not_read(tmp_path: Path) -> None:
    solid("RGB", RED).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    assert decode.decode_files([str(tmp_path / "a.png")], 4, 3, False)[2] == {0: "unknown image format"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with names")
def test_a_pipe_or_a_device_is_no_image_and_is_not_waited_for(tmp_path: Path, home: Path) -> None:
    names = [f"{i}.png" for i in range(5)]
    os.mkfifo(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to("/dev/zero")
    for name in names[2:]:
        solid("RGB", RED).save(tmp_path / name)
    source = unlabelled(tmp_path, tmp_path, names)
    assert natural_size(source) == 5
    assert load_images(source, 4, cache_dir=home).errors == dict.fromkeys((0, 1), "not a regular file")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_pictures_of_telephones_are_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AVIF by Pillow itself, HEIC by pillow-heif 1.8."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    file = tmp_path / f"x.{kind.lower()}"
    Image.fromarray(np.full((64, 32, 3), (200, 40, 40), np.uint8)).save(file, kind, quality=90)
    pixels, _, errors, _ = decode.decode_files([str(file)], 8, 3, False)
    assert not errors
    assert np.abs(pixels[0].astype(int) - (200, 40, 40)).max() <= 4
    monkeypatch.setattr(decode, "register", lambda: False)
    refused = decode.decode_files([str(file)], 8, 3, False)[2]
    assert refused == (
        {0: "it is HEIC, which takes the package pillow-heif: pip install 'cvcoteach[heif]'"} if kind == "HEIF" else {}
    )


def test_a_process_that_decodes_loads_no_pandas() -> None:
    """It would take longer to load than a thousand small images to decode."""
    code = "import sys, cvcoteach.data.decode, cvcoteach.data.workers; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
