"""Images: every format is read, nothing is decoded twice, and a killed or crowded build does no harm."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from cvcoteach._checks import InputError
from cvcoteach.training import cache, decode, images
from cvcoteach.training.images import load_images, natural_size
from cvcoteach.training.sources import Source

RED, WHITE = (254, 0, 0), (255, 255, 255)


def source_of(root: Path) -> Source:
    """All files below `root`, in order, with labels in turn."""
    paths = tuple(sorted(str(path.relative_to(root)) for path in root.rglob("*.*") if path.is_file()))
    return Source(root, root, paths, np.arange(len(paths)) % 2, ("a", "b"))


def noise_images(root: Path, n: int, side: int = 12, channels: int = 3, seed: int = 0) -> Source:
    """`n` PNG files of noise."""
    root.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image.squeeze()).save(root / f"{i:04d}.png")
    return source_of(root)


class Watched(NamedTuple):
    """The decoder, and the rows that it was given."""

    function: Callable[..., decode.Done]
    rows: list[int]

    def __call__(self, files: Sequence[str], rows: Any, *args: Any) -> decode.Done:
        self.rows.extend(rows.tolist())
        return self.function(files, rows, *args)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that were decoded, in order; emptied by the test."""
    watched = Watched(images.decode_chunk, [])
    monkeypatch.setattr(images, "decode_chunk", watched)
    return watched.rows


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that were read again, but not decoded."""
    watched = Watched(images.digest_chunk, [])
    monkeypatch.setattr(images, "digest_chunk", watched)
    return watched.rows


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written a moment ago count as settled."""
    monkeypatch.setattr(decode, "TICK", 0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A cache folder."""
    return tmp_path / "cache"


def arrays(home: Path) -> list[str]:
    return sorted(os.listdir(home / "arrays"))


# -- formats --


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
        load_images(source, **{"size": 8, **options}, cache_dir=tmp_path)  # type: ignore[arg-type]


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
        assert loaded.errors[3] == "no image format that is known"
        assert loaded.errors[5] == "the file is empty"
        assert loaded.errors[6] == "no such file or directory"
        assert sorted(loaded.errors) == [1, 3, 5, 6]
        assert not loaded.pixels[~loaded.readable].any()
        assert loaded.pixels[loaded.readable].any(axis=(1, 2, 3)).all()


def test_a_truncated_jpeg_is_unreadable(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        Image.fromarray(noise).save(root / name)
    (root / "1.jpg").write_bytes((root / "1.jpg").read_bytes()[:-900])
    assert load_images(source_of(root), 8, cache_dir=home).readable.tolist() == [True, False, True]


def test_an_image_too_large_is_unreadable_without_a_warning(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    root = tmp_path / "in"
    root.mkdir()
    for name, side in (("0.png", 9), ("1.png", 12), ("2.png", 40)):
        Image.new("RGB", (side, side)).save(root / name)
    loaded = load_images(source_of(root), 8, cache_dir=home)
    assert loaded.readable.tolist() == [True, True, False]
    assert "decompression bomb" in loaded.errors[2]


def test_more_than_half_unreadable_is_an_error_with_the_first_reason(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    noise_images(root, 3)
    (root / "0001.png").write_bytes(b"x")
    (root / "0002.png").write_bytes(b"y")
    for _ in ("made", "from the cache"):
        with pytest.raises(InputError, match=r"2 of 3 images in .* the first is 0001\.png: no image format"):
            load_images(source_of(root), 8, cache_dir=home)


def test_an_image_that_was_mended_is_readable(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    source = noise_images(root, 3)
    whole = (root / "0001.png").read_bytes()
    (root / "0001.png").unlink()
    assert load_images(source, 8, cache_dir=home).errors == {1: "no such file or directory"}
    (root / "0001.png").write_bytes(whole)
    assert load_images(source, 8, cache_dir=home).errors == {}


# -- the cache --


def test_a_second_run_decodes_and_reads_nothing(
    tmp_path: Path, home: Path, settled: None, decoded: list[int], hashed: list[int]
) -> None:
    source = noise_images(tmp_path / "in", 20)
    first = load_images(source, 8, cache_dir=home)
    assert sorted(decoded) == list(range(20))
    decoded.clear()
    second = load_images(source, 8, cache_dir=home)
    assert (decoded, hashed) == ([], [])
    assert second.content_key == first.content_key
    assert isinstance(second.pixels, np.memmap)
    assert not second.pixels.flags.writeable
    np.testing.assert_array_equal(second.pixels, first.pixels)


def test_a_changed_image_is_noticed_and_decoded_alone(
    tmp_path: Path, home: Path, settled: None, decoded: list[int], hashed: list[int]
) -> None:
    source = noise_images(tmp_path / "in", 20, side=8)
    first = load_images(source, 8, cache_dir=home)
    decoded.clear()
    Image.new("RGB", (8, 8), RED).save(tmp_path / "in" / "0007.png")
    second = load_images(source, 8, cache_dir=home)
    assert (decoded, hashed) == ([7], [7])
    assert second.content_key != first.content_key
    assert (second.pixels[7] == RED).all()
    np.testing.assert_array_equal(np.delete(second.pixels, 7, axis=0), np.delete(first.pixels, 7, axis=0))


def test_a_change_of_the_same_size_and_mtime_is_noticed(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name, colour in (("0.bmp", RED), ("1.bmp", WHITE)):
        Image.new("RGB", (8, 8), colour).save(root / name)
    source = source_of(root)
    first = load_images(source, 8, cache_dir=home)
    status = os.stat(root / "0.bmp")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "0.bmp")
    os.utime(root / "0.bmp", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(root / "0.bmp").st_size == status.st_size
    second = load_images(source, 8, cache_dir=home)
    assert second.content_key != first.content_key
    assert (second.pixels[0] == (1, 2, 3)).all()


def test_a_touched_image_is_read_again_but_not_decoded(
    tmp_path: Path, home: Path, settled: None, decoded: list[int], hashed: list[int]
) -> None:
    source = noise_images(tmp_path / "in", 20)
    first = load_images(source, 8, cache_dir=home)
    decoded.clear()
    os.utime(tmp_path / "in" / "0003.png", (1, 1))
    assert load_images(source, 8, cache_dir=home).content_key == first.content_key
    assert (decoded, hashed) == ([], [3])
    hashed.clear()
    load_images(source, 8, cache_dir=home)
    assert hashed == []


def test_new_removed_and_renamed_images_cost_only_themselves(
    tmp_path: Path, home: Path, settled: None, decoded: list[int]
) -> None:
    root = tmp_path / "in"
    noise_images(root, 20)
    load_images(source_of(root), 8, cache_dir=home)
    decoded.clear()
    (root / "0000.png").unlink()
    (root / "0005.png").rename(root / "zzzz.png")
    Image.new("RGB", (8, 8), RED).save(root / "0010a.png")
    source = source_of(root)
    pixels = load_images(source, 8, cache_dir=home).pixels
    assert [source.paths[row] for row in decoded] == ["0010a.png"]
    np.testing.assert_array_equal(pixels, load_images(source, 8, cache_dir=tmp_path / "afresh").pixels)


def test_the_key_tells_order_size_and_channels_apart(tmp_path: Path, home: Path) -> None:
    source = noise_images(tmp_path / "in", 4)
    keys = [
        load_images(part, size, channels=channels, cache_dir=home).content_key
        for part, size, channels in (
            (source, 8, None),
            (source, 9, None),
            (source, 8, 3),
            (source.subset([1, 0, 2, 3]), 8, None),
        )
    ]
    assert len(set(keys)) == 4


def test_the_same_images_elsewhere_share_their_array(tmp_path: Path, home: Path) -> None:
    source = noise_images(tmp_path / "in", 4)
    shutil.copytree(tmp_path / "in", tmp_path / "copy")
    first, second = (load_images(s, 8, cache_dir=home) for s in (source, source_of(tmp_path / "copy")))
    assert arrays(home) == [first.content_key] == [second.content_key]


def test_a_source_keeps_its_newest_arrays_only(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    keys = [load_images(noise_images(root, 3, seed=seed), 8, cache_dir=home).content_key for seed in range(4)]
    assert arrays(home) == sorted(keys[-2:])


def test_a_source_long_unused_is_forgotten(tmp_path: Path, home: Path) -> None:
    load_images(noise_images(tmp_path / "old", 3), 8, cache_dir=home)
    for file in home.rglob("used"):
        os.utime(file, (1, 1))
    new = load_images(noise_images(tmp_path / "new", 3, seed=1), 8, cache_dir=home)
    assert arrays(home) == [new.content_key]
    assert len(os.listdir(home / "sources")) == 1


def test_a_damaged_array_is_made_again(tmp_path: Path, home: Path) -> None:
    source = noise_images(tmp_path / "in", 4)
    first = load_images(source, 8, cache_dir=home)
    expected = np.array(first.pixels)
    del first
    for name in ("pixels.npy", "records.npy", "errors.json"):
        for file in home.rglob(name):
            os.truncate(file, file.stat().st_size // 2)
        np.testing.assert_array_equal(load_images(source, 8, cache_dir=home).pixels, expected)


def test_damaged_notes_cost_time_only(tmp_path: Path, home: Path) -> None:
    source = noise_images(tmp_path / "in", 4)
    expected = np.array(load_images(source, 8, cache_dir=home).pixels)
    for name in ("index.npy", "history.json"):
        for content in (b"", b"garbage"):
            for file in home.rglob(name):
                file.write_bytes(content)
            np.testing.assert_array_equal(load_images(source, 8, cache_dir=home).pixels, expected)


def test_the_cache_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "there"))
    load_images(noise_images(tmp_path / "in", 3), 8)
    assert len(arrays(tmp_path / "there")) == 1


def test_progress_counts_up_to_all(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_CHUNK_BYTES", 5 * 8 * 8 * 3)
    told: list[tuple[int, int]] = []
    load_images(noise_images(tmp_path / "in", 12), 8, cache_dir=home, progress=lambda *done: told.append(done))
    assert told == [(5, 12), (10, 12), (12, 12)]


def test_paths_that_are_no_utf8_are_cached(tmp_path: Path, home: Path) -> None:
    root = tmp_path / "in"
    noise_images(root, 3)
    try:
        os.rename(root / "0001.png", os.fsencode(root) + b"/\xff\xe9.png")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    assert load_images(source_of(root), 8, cache_dir=home).readable.all()


@pytest.mark.slow
def test_workers_make_the_same_array(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_CHUNK_BYTES", 8 * 8 * 8 * 3)
    source = noise_images(tmp_path / "in", 60)
    (tmp_path / "in" / "0031.png").write_bytes(b"")
    alone = load_images(source, 8, cache_dir=home, workers=1)
    together = load_images(source, 8, cache_dir=tmp_path / "other", workers=2)
    np.testing.assert_array_equal(alone.pixels, together.pixels)
    assert alone.errors == together.errors == {31: "the file is empty"}
    assert alone.content_key == together.content_key


# -- trouble --


class Disk(NamedTuple):
    """What `shutil.disk_usage` answers."""

    total: int
    used: int
    free: int


def test_a_disk_too_small_is_told_before_anything_is_decoded(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    source = noise_images(tmp_path / "in", 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10**6, 10**6 - 2000, 2000))
    with pytest.raises(InputError, match=r"cache has 0\.0 MB free, but 30 images of 32×32×3 need 0\.1 MB; .*CACHE_DIR"):
        load_images(source, 32, cache_dir=home)
    assert decoded == []
    assert list(home.rglob("building")) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_gets_a_sentence_and_nothing_is_left(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    source = noise_images(tmp_path / "in", 30)
    monkeypatch.setattr(decode, "write_rows", full)
    with pytest.raises(InputError, match="make room, take a smaller size, or name another folder"):
        load_images(source, 8, cache_dir=home)
    assert list(home.rglob("building")) == []
    monkeypatch.undo()
    assert load_images(source, 8, cache_dir=home).readable.all()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX")
@pytest.mark.slow
def test_a_limit_on_file_size_gets_a_sentence_from_workers_too(tmp_path: Path, home: Path) -> None:
    noise_images(tmp_path / "in", 64)
    script = SCRIPT.replace("# here", "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))")
    for workers in ("1", "2"):
        run = run_script(script, tmp_path / "in", home, workers)
        assert "make room" in run.stderr, run.stderr
        assert list(home.rglob("building")) == []


def test_a_cache_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"the cache folder .*file.* cannot be used .*CVCOTEACH_CACHE_DIR"):
        load_images(noise_images(tmp_path / "in", 3), 8, cache_dir=tmp_path / "file" / "below")


SCRIPT = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from cvcoteach.training import cache, images
from cvcoteach.training.sources import Source

root, home, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
paths = tuple(sorted(os.listdir(root)))
source = Source(root, root, paths, np.arange(len(paths)) % 2, ("a", "b"))
images._CHUNK_BYTES = 5 * 16 * 16 * 3
cache._FLUSH_EVERY = 0
def progress(done, total): pass
# here
print(images.load_images(source, 16, cache_dir=home, workers=workers, progress=progress).content_key)
"""


def run_script(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *map(str, args)], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_is_gone_on_with(tmp_path: Path, home: Path, decoded: list[int], workers: int) -> None:
    source = noise_images(tmp_path / "in", 60)
    time.sleep(decode.TICK / 1e9)  # files must have settled, or they are read again
    script = SCRIPT.replace("# here", "def progress(done, total): done < 30 or os.kill(os.getpid(), signal.SIGKILL)")
    killed = run_script(script, tmp_path / "in", home, workers)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert arrays(home) == []
    resumed = load_images(source, 16, cache_dir=home)
    assert len(decoded) == 30
    np.testing.assert_array_equal(resumed.pixels, load_images(source, 16, cache_dir=tmp_path / "afresh").pixels)
    assert list(home.rglob("building")) == []


def test_a_build_goes_on_only_with_what_is_still_right(
    tmp_path: Path, home: Path, settled: None, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_CHUNK_BYTES", 5 * 8 * 8 * 3)
    source = noise_images(tmp_path / "in", 20, side=8)

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images(source, 8, cache_dir=home, progress=interrupt)
    assert decoded == list(range(10))
    decoded.clear()
    Image.new("RGB", (8, 8), RED).save(tmp_path / "in" / "0004.png")
    pixels = load_images(source, 8, cache_dir=home).pixels
    assert decoded == [4, *range(10, 20)]
    assert (pixels[4] == RED).all()


def test_a_log_cut_off_in_the_middle_is_read_up_to_there(
    tmp_path: Path, home: Path, settled: None, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_CHUNK_BYTES", 5 * 8 * 8 * 3)
    source = noise_images(tmp_path / "in", 20)

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images(source, 8, cache_dir=home, progress=interrupt)
    decoded.clear()
    (log,) = home.rglob("log")
    os.truncate(log, 7 * cache.Build.LOG.itemsize + 11)
    assert load_images(source, 8, cache_dir=home).readable.all()
    assert decoded == list(range(7, 20))


@pytest.mark.slow
def test_two_builders_at_once_end_well(tmp_path: Path, home: Path) -> None:
    source = noise_images(tmp_path / "in", 200)
    both = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path / "in", home, "1"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    keys = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert keys == {load_images(source, 16, cache_dir=home).content_key} == set(arrays(home))


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
