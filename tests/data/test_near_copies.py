"""Near copies: pictures that were saved anew or moved a little are, other images of the same class are not."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cvcoteach.data import near_copies as module
from cvcoteach.data import neighbors
from cvcoteach.data.near_copies import near_copies

DIGITS, LABELS = load_digits(return_X_y=True)
SMALL = (DIGITS.reshape(-1, 8, 8, 1) * 15.9).astype(np.uint8)
LARGE = SMALL.repeat(2, 1).repeat(2, 2)


def alone(n: int) -> np.ndarray:
    return np.arange(n)


def scenes(n: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """Pictures (n, side, side, 3) of soft shapes, no two alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, size=(n, 8, 8, 3)).astype(np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in coarse]
    )


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file))


def scaled(picture: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((side, side)).resize(picture.shape[:2]))


def brighter(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture * 0.8 + 40.0, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "changed",
    [lambda picture: jpeg(picture, 50), lambda picture: scaled(picture, 24), brighter],
    ids=["saved anew", "scaled", "brighter"],
)
@pytest.mark.parametrize("side", [32, 200])
def test_the_same_picture_is_a_near_copy(changed: object, side: int) -> None:
    rows = scenes(150, side)
    assert callable(changed)
    copies = np.stack([changed(row) for row in rows[:40]])
    found = near_copies(np.concatenate([rows, copies]), None, alone(190))
    assert found[:150].tolist() == list(range(150))
    assert (found[150:] == np.arange(40)).mean() > 0.9


def test_other_images_of_the_same_class_are_not() -> None:
    for rows in (SMALL, LARGE, DIGITS, np.random.default_rng(0).normal(size=(2000, 20))):
        assert (near_copies(rows, None, alone(len(rows))) != np.arange(len(rows))).sum() <= 2


@pytest.mark.parametrize("of_each", [2, 6])
def test_frames_of_a_burst_are(of_each: int) -> None:
    rng = np.random.default_rng(0)
    large = LARGE[:200].repeat(of_each, axis=0)
    light = rng.integers(-8, 9, size=(len(large), 1, 1, 1)) + rng.normal(0, 4, large.shape)
    found = near_copies(np.clip(large + light, 0, 255).astype(np.uint8), None, alone(len(large)))
    assert (found == np.arange(len(large)) // of_each * of_each).mean() > 0.95


def test_flat_images_are_not_told_apart() -> None:
    noise = np.random.default_rng(0).integers(0, 3, size=(300, 16, 16, 3), dtype=np.uint8)
    assert (near_copies(noise + 100, None, alone(300)) == alone(300)).all()
    assert (near_copies(np.zeros((300, 16, 16, 1), np.uint8), None, alone(300)) == alone(300)).all()
    assert (near_copies(np.ones((300, 32), np.float32), None, alone(300)) == alone(300)).all()


def test_few_images_and_few_features_have_none() -> None:
    rows = scenes(40)
    twice = np.concatenate([rows, [brighter(row) for row in rows]])
    assert (near_copies(twice, None, alone(80)) == alone(80)).all()
    assert (near_copies(DIGITS[:, :3].repeat(2, axis=0) + 1e-3, None, alone(3594)) == alone(3594)).all()


def test_exact_copies_go_with_their_first_one_and_rows_left_out_do_not_count() -> None:
    rows = scenes(150)
    rows = np.concatenate([rows, [brighter(rows[3])], [brighter(rows[3])], rows[5:6]])
    first = alone(153)
    first[151], first[152] = 150, 5
    found = near_copies(rows, None, first)
    assert found[[150, 151, 152]].tolist() == [3, 3, 5]
    which = np.delete(alone(153), 3)
    first = np.delete(first, 3)
    first = np.where(first > 3, first - 1, first)
    assert near_copies(rows, which, first)[[149, 150, 151]].tolist() == [149, 149, 4]


def test_features_of_near_copies_are_found() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 256)).astype(np.float16)
    near = rows[:200] + rng.normal(0, 0.1, size=(200, 256)).astype(np.float16)
    found = near_copies(np.concatenate([rows, near]), None, alone(1200))
    assert found.tolist() == [*range(1000), *range(200)]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("far", "bytes_as_float32"), [(0, 1 << 26), (0, 0), (300, 1 << 26)])
def test_what_type_features_have_and_where_they_lie_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, kind: type, far: float, bytes_as_float32: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1 << 16)
    monkeypatch.setattr(module, "_EXACT_BYTES", bytes_as_float32)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 64))
    rows = (np.concatenate([rows, rows[:100] + rng.normal(0, 0.1, size=(100, 64))]) + far).astype(kind)
    assert near_copies(rows, None, alone(700)).tolist() == [*range(600), *range(100)]
    which = np.delete(alone(700), [3, 500])  # rows with gaps
    assert (near_copies(rows, which, alone(698)) != alone(698)).sum() == 99


def test_a_chain_of_small_changes_does_not_bind_half_of_the_images() -> None:
    rows = scenes(400)
    one, other = rows[0].astype(float), rows[1].astype(float)
    chain = np.stack([one + (other - one) * step / 199 for step in range(200)]).astype(np.uint8)
    found = near_copies(np.concatenate([rows, chain]), None, alone(600))
    assert np.bincount(found).max() <= 30


@pytest.mark.slow
def test_a_hundred_thousand_images_take_seconds() -> None:
    rows = scenes(25_000)
    rows = np.concatenate([rows, rows[::-1, :, ::-1], 255 - rows, np.roll(rows, 8, axis=1)])
    started = time.process_time()
    near_copies(rows, None, alone(100_000))
    assert time.process_time() - started < 30


def test_among_very_many_images_most_near_copies_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "_MANY", 1000)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((6000, 64)).astype(np.float32)
    change = rng.standard_normal((500, 64)).astype(np.float32)
    features[3000:3500] = features[:500] + 0.25 * change
    found = near_copies(features, None, np.arange(6000))
    assert (found[3000:3500] == np.arange(500)).mean() > 0.95
    assert (np.delete(found, np.arange(3000, 3500)) == np.delete(np.arange(6000), np.arange(3000, 3500))).all()
