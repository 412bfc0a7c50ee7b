"""The cache: nothing is decoded twice, and a killed, crowded or damaged one does no harm."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from cvcoteach._files import locked
from cvcoteach._validation import InputError
from cvcoteach.data import cache, decode, images
from cvcoteach.data.images import load_images
from tests.image_files import noise_images, source_of

RED = (254, 0, 0)


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
    for name, colour in (("0.bmp", RED), ("1.bmp", (255, 255, 255))):
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
    for name in ("pixels.npy", "records.npy", "about.json"):
        for file in home.rglob(name):
            os.truncate(file, file.stat().st_size // 2)
        np.testing.assert_array_equal(load_images(source, 8, cache_dir=home).pixels, expected)


@pytest.mark.parametrize("name", ["pixels.npy", "records.npy", "about.json"])
@pytest.mark.parametrize("damage", ["flipped", "gone", "empty"])
def test_an_array_with_a_flipped_bit_or_without_a_part_is_made_again(
    tmp_path: Path, home: Path, name: str, damage: str
) -> None:
    source = noise_images(tmp_path / "in", 4)
    expected = np.array(load_images(source, 8, cache_dir=home).pixels)
    (file,) = home.rglob(name)
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.unlink()
    if damage != "gone":
        file.write_bytes(bytes(content) if damage == "flipped" else b"")
    for _ in range(2):
        np.testing.assert_array_equal(load_images(source, 8, cache_dir=home).pixels, expected)


@pytest.mark.parametrize("size", [0, 200])
def test_a_half_without_its_pixels_is_begun_anew(
    tmp_path: Path, home: Path, settled: None, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(images, "_CHUNK_BYTES", 5 * 8 * 8 * 3)
    source = noise_images(tmp_path / "in", 20)
    expected = np.array(load_images(source, 8, cache_dir=tmp_path / "whole").pixels)

    def interrupt(done: int, total: int) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_images(source, 8, cache_dir=home, progress=interrupt)
    (file,) = home.rglob("building/pixels.npy")
    os.truncate(file, size)
    np.testing.assert_array_equal(load_images(source, 8, cache_dir=home).pixels, expected)


@pytest.mark.parametrize("whole", [True, False])
def test_an_array_that_another_process_published_meanwhile_is_taken(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    source = noise_images(tmp_path / "in", 4)
    other = load_images(source, 8, cache_dir=tmp_path / "other")
    publish = cache.Build.publish

    def at_once(build: cache.Build, folder: Path, errors: dict[int, str]) -> None:
        shutil.copytree(tmp_path / "other" / "arrays" / folder.name, folder)
        if not whole:
            (folder / "about.json").unlink()
        publish(build, folder, errors)

    monkeypatch.setattr(cache.Build, "publish", at_once)
    loaded = load_images(source, 8, cache_dir=home)
    np.testing.assert_array_equal(loaded.pixels, other.pixels)
    assert list(home.rglob("building")) == []


def test_a_process_that_is_waited_for_is_named(tmp_path: Path, home: Path) -> None:
    source, said = noise_images(tmp_path / "in", 4), list[str]()
    load_images(source, 8, cache_dir=home)
    (lock,) = home.rglob("lock")
    (tmp_path / "in" / "0003.png").write_bytes((tmp_path / "in" / "0002.png").read_bytes())
    with ThreadPoolExecutor(1) as pool:
        with locked(lock):
            loading = pool.submit(lambda: load_images(source, 8, cache_dir=home, note=said.append))
            while not said:
                time.sleep(0.01)
        assert len(loading.result().pixels) == 4
    assert re.fullmatch(r"Waiting for process \d+ on .+, which is at work on the same\.", said[0])


def test_what_killed_writes_left_in_the_cache_goes(tmp_path: Path, home: Path, settled: None) -> None:
    source = noise_images(tmp_path / "in", 4)
    load_images(source, 8, cache_dir=home)
    (folder,) = (home / "sources").iterdir()
    for age, name in ((0, ".history.json.abcd1234.partial"), (7200, ".index.npy.abcd1234.partial")):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    load_images(source, 8, cache_dir=home)
    assert [file.name for file in folder.glob("*.partial")] == [".history.json.abcd1234.partial"]
    (tmp_path / "in" / "0003.png").write_bytes((tmp_path / "in" / "0002.png").read_bytes())
    load_images(source, 8, cache_dir=home)
    assert not list(folder.glob("*.partial"))


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
    with pytest.raises(
        InputError, match=r"cache has 2\.0 kB free, but 30 images of 32×32×3 need 92\.2 kB; .*CACHE_DIR"
    ):
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
from cvcoteach.data import cache
from cvcoteach.data import images
from cvcoteach.data.sources import Source

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
