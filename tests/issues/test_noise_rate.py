"""The share of wrong labels, with an interval: expected, measured, and how many reviews decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.precision_recall import expected_noise_rate
from cvcoteach.issues.reviews import measured_noise_rate, review_sample, reviews_to_decide

N = 2000


def issues_of(rate: float, seed: int = 0, sure: float = 4.0) -> tuple[LabelIssues, np.ndarray]:
    """Label issues, and which labels are wrong."""
    rng = np.random.default_rng([seed, int(rate * 1000)])
    true = rng.integers(0, 4, N)
    wrong = np.zeros(N, bool)
    wrong[rng.permutation(N)[: round(rate * N)]] = True
    labels = np.where(wrong, (true + rng.integers(1, 4, N)) % 4, true)
    logits = sure * np.eye(4)[true] + rng.normal(size=(N, 4))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return posterior_issues(labels, probs.astype(np.float32)), wrong


@pytest.mark.parametrize("rate", [0.0, 0.005, 0.02, 0.05, 0.2, 0.4])
def test_the_interval_contains_the_true_share(rate: float) -> None:
    inside = []
    for seed in range(4):
        issues, wrong = issues_of(rate, seed)
        interval = expected_noise_rate(issues)
        inside.append(interval.low <= wrong.mean() <= interval.high)
        assert interval.low <= interval.estimate <= interval.high
    assert np.mean(inside) >= 0.75


def test_clean_labels_pass_a_small_limit() -> None:
    issues, _ = issues_of(0.0)
    interval = expected_noise_rate(issues)
    assert interval.low == 0
    assert interval.high < 0.05


def test_known_labels_count_as_they_are() -> None:
    issues, wrong = issues_of(0.2)
    everything = expected_noise_rate(issues, known=np.ones(N, bool), was_wrong=wrong)
    assert everything.estimate == everything.low == everything.high == wrong.mean()
    known = issues.is_label_issue
    assert expected_noise_rate(issues, known=known, was_wrong=wrong).width < expected_noise_rate(issues).width


def test_copies_together_count_once() -> None:
    issues, wrong = issues_of(0.2)
    first = np.arange(N)
    copies = np.flatnonzero(wrong)[:200]
    first[copies] = copies[0]  # one wrong picture, two hundred times
    issues = replace(issues, duplicate_of=np.where(first == np.arange(N), -1, first))
    interval = expected_noise_rate(issues)
    assert interval.estimate == pytest.approx(issues.noise_ratio)
    assert interval.low < (wrong.sum() - 199) / (N - 199) < interval.high < 0.2
    seen = np.ones(N, bool)
    known = expected_noise_rate(issues, known=seen, was_wrong=wrong)
    assert known.estimate == pytest.approx((wrong.sum() - 199) / (N - 199))


def test_a_part_is_judged_alone_and_its_copies_elsewhere_are_half_theirs() -> None:
    issues, _ = issues_of(0.2)
    halves = np.where(np.arange(N) < N // 2, "train", "test")
    issues = replace(issues, duplicate_of=np.where(np.arange(N) == N - 1, 0, -1), splits=halves)
    rates = issues.by_split().set_index("split")["noise_rate"]
    for name in ("train", "test"):
        interval = expected_noise_rate(issues, rows=np.flatnonzero(halves == name))
        assert interval.estimate == pytest.approx(rates[name])


def test_without_a_signal_there_is_no_estimate() -> None:
    rng = np.random.default_rng(0)
    issues = posterior_issues(rng.integers(0, 4, 400), np.full((400, 4), 0.25, np.float32))
    assert expected_noise_rate(issues) is None


def test_measured_shares_contain_the_truth_and_narrow_with_reviews() -> None:
    issues, wrong = issues_of(0.2)
    inside = []
    for seed in range(20):
        sample = review_sample(issues, 200, seed=seed)
        interval = measured_noise_rate(issues, sample, wrong[sample.indices])
        inside.append(interval.low <= wrong.mean() <= interval.high)
        assert interval.width < measured_noise_rate(issues, sample, wrong[sample.indices[:30]]).width
    assert np.mean(inside) >= 0.8
    other, _ = issues_of(0.1)
    with pytest.raises(InputError, match="drawn from other issues"):
        measured_noise_rate(other, review_sample(issues, 50), wrong[:50])


def test_a_limit_far_away_takes_fewer_reviews() -> None:
    issues, wrong = issues_of(0.2)
    near, far = reviews_to_decide(issues, 0.18), reviews_to_decide(issues, 0.4)
    assert 10 <= far < near <= N
    sample = review_sample(issues, near, seed=3)
    interval = measured_noise_rate(issues, sample, wrong[sample.indices])
    assert interval.width < 0.1
    with pytest.raises(InputError, match=r"limit is 1\.5"):
        reviews_to_decide(issues, 1.5)
