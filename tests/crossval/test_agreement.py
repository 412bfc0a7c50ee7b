"""The theory of what folds see, held against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvcoteach._validation import InputError
from cvcoteach.crossval import agreement
from cvcoteach.noise_model import simulate as noise

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
    assert agreement.agreement(rate, k, pattern) == pytest.approx(agrees.mean(), abs=0.005)
    assert agreement.label_precision(rate, k, pattern) == pytest.approx(clean[agrees].mean(), abs=0.006)
    assert agreement.label_recall(rate) == pytest.approx(agrees[clean].mean(), abs=0.006)


@given(rate=st.floats(0, 0.49), k=st.integers(2, 1000), pattern=st.sampled_from(agreement.PATTERNS))
def test_the_noise_rate_comes_back_from_the_agreement(rate: float, k: int, pattern: str) -> None:
    seen = agreement.agreement(rate, k, pattern)
    assert agreement.noise_rate_from_agreement(seen, k, pattern) == pytest.approx(rate, abs=1e-6)


def test_an_agreement_below_what_any_noise_explains_gives_the_rate_of_least_agreement() -> None:
    assert agreement.noise_rate_from_agreement(0.0, 10, "symmetric") == pytest.approx(0.9)
    assert agreement.noise_rate_from_agreement(0.3, 10, "asymmetric") == pytest.approx(0.5)


@pytest.mark.parametrize(("pattern", "expected"), [("symmetric", 1 / 9), ("asymmetric", 1.0)])
def test_the_pattern_is_read_off_the_confusions(pattern: str, expected: float) -> None:
    rng = np.random.default_rng(3)
    t = noise.transition(pattern, 0.3, 10)
    true = rng.integers(10, size=N)
    seen = agreement.observed_concentration(noise.flip_labels(true, t, rng), noise.flip_labels(true, t, rng), 10)
    assert seen == pytest.approx(expected, abs=0.13)


def test_a_pattern_cannot_be_read_where_nothing_disagrees() -> None:
    labels = np.arange(100) % 5
    assert agreement.observed_concentration(labels, labels, 5) == 1 / 4


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: agreement.agreement(0.2, 10, "pair"), "did you mean"),
        (lambda: agreement.noise_rate_from_agreement(1.2, 10), "agreement is 1.2"),
    ],
)
def test_what_does_not_fit_gets_one_sentence(call, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call()
