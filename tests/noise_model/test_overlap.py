"""Classes whose labels the models cannot tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.overlap import area_above, overlap_groups, overlapping_pairs


def three_classes(n: int = 900, seed: int = 0) -> tuple[IntArray, FloatArray, np.random.Generator]:
    """Return labels, and probabilities of models that know the classes well."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), true] += 5
    return true, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rng


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_class_split_at_random_overlaps_with_its_other_part(share: float) -> None:
    labels, probs, rng = three_classes()
    labels = np.where((labels == 1) & (rng.random(len(labels)) < share), 3, labels)
    part = np.clip(rng.normal(share, 0.1, len(labels)), 0.02, 0.98)
    probs = np.column_stack([probs[:, 0], probs[:, 1] * (1 - part), probs[:, 2], probs[:, 1] * part])
    assert overlapping_pairs(labels, probs).tolist() == [[1, 3]]


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4])
def test_wrong_labels_do_not_make_classes_overlap(rate: float) -> None:
    true, probs, rng = three_classes()
    for kind in ("symmetric", "asymmetric"):
        transition = noise.transition(kind, rate, 3)
        assert not len(overlapping_pairs(noise.flip_labels(true, transition, rng), probs @ transition))


def test_two_classes_swapped_in_two_of_five_images_are_wrong_labels_not_an_overlap() -> None:
    """No model orders such labels by an area above .6; one that errs in a quarter of the images comes to .55."""
    true, _, rng = three_classes(6000)
    transition = np.array([[1, 0, 0], [0, 0.6, 0.4], [0, 0.4, 0.6]])
    seen = np.where((rng.random(len(true)) < 0.25) & (true > 0), 3 - true, true)
    labels, probs = noise.flip_labels(true, transition, rng), np.eye(3)[seen] @ transition
    probs = probs * np.exp(rng.normal(0, 0.2, probs.shape)) + 0.01
    score = np.log(probs[:, 1] / probs[:, 2])
    assert area_above(score[labels == 1], score[labels == 2]) < 0.57
    assert not len(overlapping_pairs(labels, probs / probs.sum(axis=1, keepdims=True)))


def test_a_slight_preference_among_many_labels_is_no_difference() -> None:
    true, probs, rng = three_classes(100_000)
    lean = rng.normal(0, 1, len(true))
    labels = np.where((true == 1) & (rng.random(len(true)) < 1 / (1 + np.exp(-0.05 * lean))), 3, true)
    part = 1 / (1 + np.exp(-lean))
    probs = np.column_stack([probs[:, 0], probs[:, 1] * (1 - part), probs[:, 2], probs[:, 1] * part])
    assert overlapping_pairs(labels, probs).tolist() == [[1, 3]]


def test_two_classes_alone_do_not_overlap() -> None:
    rng = np.random.default_rng(0)
    assert not len(overlapping_pairs(rng.integers(0, 2, 200), np.full((200, 2), 0.5)))


def test_overlap_joins_classes_through_others() -> None:
    assert overlap_groups(np.array([[1, 3], [3, 4]]), 6).tolist() == [0, 1, 2, 1, 1, 5]
    assert overlap_groups(np.empty((0, 2), np.int64), 3).tolist() == [0, 1, 2]


def test_area_above_counts_ties_half() -> None:
    assert area_above(np.array([0.4, 0.9]), np.array([0.4, 0.1])) == pytest.approx(0.875)
    assert area_above(np.zeros(2), np.zeros(2)) == 0.5
