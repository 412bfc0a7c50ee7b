"""Seeded flips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvcoteach._validation import InputError
from cvcoteach.noise_model import simulate as noise

N = 200_000


@pytest.mark.parametrize(
    ("protocol", "wrong"),
    [("symmetric", 0.4), ("asymmetric", 0.4), ("symmetric-dividemix", 0.36), ("asymmetric-dividemix", 0.2)],
)
def test_the_papers_protocols_differ_in_what_is_truly_wrong(protocol: str, wrong: float) -> None:
    t = noise.transition(protocol, 0.4, 10)
    np.testing.assert_allclose(t.sum(axis=1), 1)
    labels = np.arange(N) % 10
    flipped = noise.flip_labels(labels, t, np.random.default_rng(0))
    assert (flipped != labels).mean() == pytest.approx(wrong, abs=0.004)
    counts = np.bincount(labels * 10 + flipped, minlength=100).reshape(10, 10) / (N / 10)
    np.testing.assert_allclose(counts, t, atol=0.015)


def test_asymmetric_noise_sends_every_class_to_the_next() -> None:
    labels = np.arange(10)
    flipped = noise.flip_labels(labels, noise.transition("asymmetric", 1.0, 10), np.random.default_rng(0))
    np.testing.assert_array_equal(flipped, (labels + 1) % 10)


@given(
    rate=st.just(0.0) | st.floats(1e-9, 0.75),
    k=st.integers(2, 30),
    sparsity=st.floats(0, 0.95),
    seed=st.integers(0, 2**31),
)
def test_class_dependent_noise_has_the_rate_and_the_zeros_that_were_asked_for(
    rate: float, k: int, sparsity: float, seed: int
) -> None:
    t = noise.class_dependent(rate, k, sparsity, np.random.default_rng(seed))
    assert (t >= 0).all()
    np.testing.assert_allclose(t.sum(axis=1), 1)
    assert 1 - np.diag(t).mean() == pytest.approx(rate)
    if rate > 0:
        off = t[~np.eye(k, dtype=bool)]
        assert ((off == 0).sum()) <= round(sparsity * len(off))
        assert ((off == 0).sum()) >= round(sparsity * len(off)) - k  # every class keeps one


def test_feature_dependent_noise_has_the_rate_and_treats_like_images_alike() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(5, size=20_000)
    x = rng.normal(size=(20_000, 8))
    flipped = noise.flip_by_features(true, x, 0.3, np.random.default_rng(1))
    assert (flipped != true).mean() == pytest.approx(0.3, abs=0.015)
    np.testing.assert_array_equal(flipped, noise.flip_by_features(true, x, 0.3, np.random.default_rng(1)))
    # among the flipped of one class, the target depends on the features
    one = (true == 0) & (flipped != 0)
    means = np.array([x[one & (flipped == k)].mean(axis=0) for k in range(1, 5)])
    assert np.abs(means - means.mean(axis=0)).max() > 0.15


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: noise.transition("symetric", 0.2, 10), "did you mean symmetric"),
        (lambda: noise.transition("symmetric", 1.2, 10), "rate is 1.2"),
        (lambda: noise.transition("asymmetric-dividemix", 0.2, 4), "ten classes"),
        (lambda: noise.class_dependent(0.2, 4, 1.0, np.random.default_rng(0)), "sparsity is 1.0"),
        (
            lambda: noise.flip_by_features([0, 1], np.zeros((3, 2)), 0.2, np.random.default_rng(0)),
            r"2 labels need \(2, d\)",
        ),
    ],
)
def test_what_does_not_fit_gets_one_sentence(call, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call()
