"""What held-out images of unknown class say about a classifier."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from cvcoteach.coteaching.calibration import calibrate, calibration_rows, expected_calibration_error


def test_one_image_in_twenty_of_each_label_is_held_out_and_none_of_a_small_dataset() -> None:
    labels = np.repeat([0, 1, 2], [2000, 1000, 1000])
    usable = np.flatnonzero(np.arange(4000) % 7 > 0)
    rows = calibration_rows(labels, usable, seed=3)
    assert len(rows) == len(set(rows.tolist())) == 200
    assert set(rows.tolist()) <= set(usable.tolist())
    assert rows.tolist() == sorted(rows.tolist())
    assert np.bincount(labels[rows]) == pytest.approx([100, 50, 50], abs=1)
    assert calibration_rows(labels, usable, seed=3).tolist() == rows.tolist()
    assert calibration_rows(labels, usable, seed=4).tolist() != rows.tolist()
    assert len(calibration_rows(np.zeros(100_000, np.int64), np.arange(100_000), 0)) == 1000
    assert len(calibration_rows(labels[:999], np.arange(999), 0)) == 0
    assert len(calibration_rows(labels, usable[:20], 0)) == 0


def test_the_temperature_undoes_overconfidence_and_the_interval_holds_the_accuracy() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)) * 2
    right = softmax(logits, axis=1)
    truth = (right.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    sure = softmax(3 * logits, axis=1).astype(np.float32)
    found = calibrate(sure[:500], right[:500])
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.ece < 0.03 < 0.1 < found.ece_before
    accuracy = float((sure.argmax(axis=1) == truth)[500:].mean())
    assert found.low < accuracy < found.high
    assert found.high - found.low < 0.12
    assert found.n_images == 500


def test_the_calibration_error_is_how_far_confidence_is_from_accuracy() -> None:
    probs = np.array([[0.9, 0.1]] * 10 + [[0.3, 0.7]] * 10)
    assert expected_calibration_error(probs, np.array([1.0] * 9 + [0.0] + [1.0] * 7 + [0.0] * 3)) == pytest.approx(0)
    assert expected_calibration_error(probs, np.ones(20)) == pytest.approx((0.1 + 0.3) / 2)
