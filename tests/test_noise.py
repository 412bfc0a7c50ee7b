"""Seeded flips and the theory of what folds see, held against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvcoteach import noise
from cvcoteach._checks import InputError

N = 200_000


@pytest.mark.parametrize("pattern", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.45])
@pytest.mark.parametrize("k", [2, 5, 10])
def test_agreement_precision_and_recall_are_what_a_simulation_counts(pattern: str, rate: float, k: int) -> None:
    rng = np.random.default_rng([k, int(rate * 100)])
    t = noise.transition(pattern, rate, k)
    true = rng.integers(k, size=N)
    labels = noise.flip_labels(true, t, rng)
    predicted = noise.flip_labels(true, t, rng)  # a model that reproduces the noise, independently
    agrees, clean = labels == predicted, labels == true
    assert noise.agreement(rate, k, pattern) == pytest.approx(agrees.mean(), abs=0.005)
    assert noise.label_precision(rate, k, pattern) == pytest.approx(clean[agrees].mean(), abs=0.006)
    assert noise.label_recall(rate) == pytest.approx(agrees[clean].mean(), abs=0.006)


@given(rate=st.floats(0, 0.49), k=st.integers(2, 1000), pattern=st.sampled_from(noise.PATTERNS))
def test_the_noise_rate_comes_back_from_the_agreement(rate: float, k: int, pattern: str) -> None:
    seen = noise.agreement(rate, k, pattern)
    assert noise.noise_rate_from_agreement(seen, k, pattern) == pytest.approx(rate, abs=1e-6)


def test_an_agreement_below_what_any_noise_explains_gives_the_rate_of_least_agreement() -> None:
    assert noise.noise_rate_from_agreement(0.0, 10, "symmetric") == pytest.approx(0.9)
    assert noise.noise_rate_from_agreement(0.3, 10, "asymmetric") == pytest.approx(0.5)


@pytest.mark.parametrize(("pattern", "expected"), [("symmetric", 1 / 9), ("asymmetric", 1.0)])
def test_the_pattern_is_read_off_the_confusions(pattern: str, expected: float) -> None:
    rng = np.random.default_rng(3)
    t = noise.transition(pattern, 0.3, 10)
    true = rng.integers(10, size=N)
    seen = noise.observed_concentration(noise.flip_labels(true, t, rng), noise.flip_labels(true, t, rng), 10)
    assert seen == pytest.approx(expected, abs=0.13)


def test_a_pattern_cannot_be_read_where_nothing_disagrees() -> None:
    labels = np.arange(100) % 5
    assert noise.observed_concentration(labels, labels, 5) == 1 / 4


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
        (lambda: noise.agreement(0.2, 10, "pair"), "did you mean"),
        (lambda: noise.noise_rate_from_agreement(1.2, 10), "agreement is 1.2"),
        (
            lambda: noise.flip_by_features([0, 1], np.zeros((3, 2)), 0.2, np.random.default_rng(0)),
            r"2 labels need \(2, d\)",
        ),
    ],
)
def test_what_does_not_fit_gets_one_sentence(call, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call()
