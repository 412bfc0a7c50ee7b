"""Precision and recall of the flags: from the posterior, from reviews, and when there is no number to give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.precision_recall import expected_precision_recall
from cvcoteach.issues.reviews import how_many_reviews, measured_precision_recall, review_sample, strata

from .test_label_issues import issues_of


def calibrated(n: int = 4000, seed: int = 0) -> tuple[LabelIssues, np.ndarray]:
    """Issues whose probabilities are the true ones, and which labels are wrong (n,)."""
    rng = np.random.default_rng(seed)
    quality = rng.beta(4, 0.6, size=n)
    issues = issues_of(rng.integers(3, size=n).tolist(), quality.tolist(), rng.integers(3, size=n).tolist())
    return issues, rng.random(n) > quality


def truth(issues: LabelIssues, wrong: np.ndarray) -> tuple[float, float]:
    hits = (wrong & issues.is_label_issue).sum()
    return hits / issues.n_issues, hits / wrong.sum()


def test_the_posteriors_estimates_are_means_of_its_probabilities():
    issues = issues_of([0, 1, 2, 0], [0.1, 0.3, 0.8, 0.9], [1, 2, 2, 0])
    readout = expected_precision_recall(issues)
    assert readout.precision.estimate == pytest.approx((0.9 + 0.7) / 2)
    assert readout.recall.estimate == pytest.approx(1.6 / 1.9)
    assert (readout.n_flagged, readout.n_reviewed, readout.note) == (2, 0, "")


def test_intervals_of_a_calibrated_posterior_contain_the_truth():
    for seed in range(5):
        issues, wrong = calibrated(seed=seed)
        readout = expected_precision_recall(issues)
        for interval, true in zip((readout.precision, readout.recall), truth(issues, wrong), strict=True):
            assert interval.low <= interval.estimate <= interval.high
            assert interval.low <= true <= interval.high


def test_a_higher_level_gives_a_wider_interval():
    issues, _ = calibrated()
    widths = [expected_precision_recall(issues, level=level).precision.width for level in (0.5, 0.9, 0.99)]
    assert widths == sorted(widths)
    assert widths[0] < widths[2]


def test_without_a_signal_no_number_is_given():
    issues, _ = calibrated()
    for flags in (issues.is_label_issue, np.zeros(4000, bool)):
        blind = replace(issues, has_signal=False, note="The labels carry no signal.", is_label_issue=flags)
        readout = expected_precision_recall(blind)
        assert readout.precision is None
        assert readout.recall is None
        assert readout.note == "The labels carry no signal. Only reviews can tell how good flags are."


def test_only_label_issues_have_a_precision():
    with pytest.raises(InputError, match="issues is a ndarray; it takes LabelIssues"):
        expected_precision_recall(np.full((3, 2), 0.5))


def test_without_flags_no_number_is_given():
    readout = expected_precision_recall(issues_of([0, 1], [0.9, 0.8], [0, 1]))
    assert readout.precision is None
    assert readout.note == "No label is flagged, so there is no precision or recall."


def test_a_sample_holds_flagged_and_unflagged_images_once_each():
    issues, _ = calibrated()
    sample = review_sample(issues, 100)
    assert len(set(sample.indices)) == len(sample) == 100
    assert issues.is_label_issue[sample.indices].sum() == 50
    assert np.bincount(sample.stratum).tolist() == [25, 25, 25, 25]


def test_inclusion_probabilities_are_the_shares_drawn_of_each_group():
    issues, _ = calibrated()
    sample = review_sample(issues, 100, flagged_share=0.3)
    sizes = np.bincount(strata(issues))
    drawn = np.bincount(sample.stratum)
    assert np.allclose(sample.inclusion, (drawn / sizes)[sample.stratum])
    assert (1 / sample.inclusion).sum() == pytest.approx(len(issues.labels))


def test_every_image_of_a_group_is_as_likely_to_be_drawn():
    issues, _ = calibrated(200)
    hits = sum(np.bincount(review_sample(issues, 40, seed=seed).indices, minlength=200) for seed in range(500))
    expected = np.empty(200)
    sample = review_sample(issues, 40)
    expected[:] = (np.bincount(sample.stratum) / np.bincount(strata(issues)))[strata(issues)] * 500
    z = (hits - expected) / np.sqrt(np.maximum(expected * (1 - expected / 500), 1e-9))
    assert np.abs(z[expected < 500]).max() < 4.5


def test_a_larger_sample_goes_on_where_the_smaller_ended():
    issues, _ = calibrated()
    assert np.array_equal(review_sample(issues, 150).indices[:60], review_sample(issues, 60).indices)
    assert not np.array_equal(review_sample(issues, 60, seed=1).indices, review_sample(issues, 60).indices)


def test_the_whole_dataset_can_be_the_sample_and_then_all_is_known():
    issues, wrong = calibrated(300)
    sample = review_sample(issues, 300)
    assert sorted(sample.indices) == list(range(300))
    readout = measured_precision_recall(issues, sample, wrong[sample.indices])
    for interval, true in zip((readout.precision, readout.recall), truth(issues, wrong), strict=True):
        assert interval.low == interval.estimate == interval.high == pytest.approx(true)


def test_more_doubtful_images_are_cut_into_groups_of_equal_doubt():
    issues, _ = calibrated()
    doubt = np.bincount(strata(issues), np.sqrt(issues.wrong * issues.label_quality))
    assert abs(doubt[0] - doubt[1]) < 1  # no image holds more than ½
    assert abs(doubt[2] - doubt[3]) < 1
    assert issues.wrong[strata(issues) == 2].min() >= issues.wrong[strata(issues) == 3].max()


@pytest.mark.slow
@pytest.mark.parametrize("bias", [-2.0, 0.0, 2.0])
def test_intervals_from_reviews_keep_their_coverage_even_where_the_posterior_is_off(bias):
    covered = np.zeros(2)
    for seed in range(200):
        issues, wrong = calibrated(2000, seed)
        odds = np.log(issues.label_quality / (1 - issues.label_quality)) + bias
        off = replace(issues, label_quality=1 / (1 + np.exp(-odds)))
        sample = review_sample(off, 100, seed=seed)
        readout = measured_precision_recall(off, sample, wrong[sample.indices])
        for i, (interval, true) in enumerate(zip((readout.precision, readout.recall), truth(off, wrong), strict=True)):
            covered[i] += interval is not None and interval.low <= true <= interval.high
    assert (covered / 200 >= 0.86).all()  # 90 % less two standard errors


def test_when_all_reviewed_flags_are_wrong_the_interval_does_not_shrink_to_a_point():
    issues, _ = calibrated()
    sample = review_sample(issues, 20)
    readout = measured_precision_recall(issues, sample, issues.is_label_issue[sample.indices])
    assert readout.precision.high == pytest.approx(1)
    assert 0.5 < readout.precision.low < 0.9
    assert readout.recall.low < 0.6
    assert "20 reviews are few" in readout.note


def test_reviews_may_stop_before_the_end_of_the_sample():
    issues, wrong = calibrated()
    long, short = review_sample(issues, 200), review_sample(issues, 80)
    of_long = measured_precision_recall(issues, long, wrong[long.indices[:80]])
    assert of_long == measured_precision_recall(issues, short, wrong[short.indices])


def test_more_reviews_make_narrower_intervals():
    issues, wrong = calibrated()
    widths = []
    for n in (40, 160, 640):
        sample = review_sample(issues, n)
        readout = measured_precision_recall(issues, sample, wrong[sample.indices])
        widths.append((readout.precision.width, readout.recall.width))
    assert (np.diff(widths, axis=0) < 0).all()


def test_without_a_reviewed_flag_nothing_is_known():
    issues, _ = calibrated()
    sample = review_sample(issues, 50, flagged_share=0.01)
    first = int(np.argmax(sample.stratum < 2)) if (sample.stratum < 2).any() else 50
    readout = measured_precision_recall(issues, sample, np.zeros(first, bool))
    assert readout.precision is None
    assert readout.recall is None
    assert "No flagged image was reviewed" in readout.note


def test_without_a_reviewed_unflagged_image_recall_is_not_known():
    issues, _ = calibrated()
    sample = review_sample(issues, 50, flagged_share=0.99)
    readout = measured_precision_recall(issues, sample, np.ones(10, bool))
    assert readout.precision is not None
    assert readout.recall is None
    assert "nobody knows how many wrong labels were missed" in readout.note


def test_without_a_wrong_label_among_the_reviewed_recall_is_not_known():
    issues, _ = calibrated()
    readout = measured_precision_recall(issues, review_sample(issues, 50), np.zeros(50, bool))
    assert readout.precision.low == 0
    assert readout.recall is None
    assert "None of the reviewed labels was wrong" in readout.note


@pytest.mark.slow
@pytest.mark.parametrize("of", ["precision", "recall"])
def test_as_many_reviews_as_it_says_make_the_interval_about_that_narrow(of):
    issues, wrong = calibrated(20000)
    n = how_many_reviews(issues, for_width=0.15, of=of)
    assert 20 < n < 2000
    widths = []
    for seed in range(30):
        sample = review_sample(issues, n, seed=seed)
        widths.append(getattr(measured_precision_recall(issues, sample, wrong[sample.indices]), of).width)
    assert np.mean(widths) == pytest.approx(0.15, rel=0.2)


@pytest.mark.slow
def test_without_a_signal_reviews_are_planned_for_the_worst_rate():
    issues, _ = calibrated()
    assert how_many_reviews(replace(issues, has_signal=False), for_width=0.2) > how_many_reviews(issues, for_width=0.2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda issues: review_sample(issues, 0), "n is 0; it takes 1 or more"),
        (lambda issues: review_sample(issues, 5000), "n is 5000, but there are 4000 images to review"),
        (lambda issues: review_sample(issues, 5, flagged_share=1), "flagged_share is 1; it lies between 0 and 1"),
        (lambda issues: how_many_reviews(issues, for_width=1.5), "for_width is 1.5"),
        (lambda issues: how_many_reviews(issues, for_width=0.1, of="recal"), "of is 'recal'; did you mean recall"),
        (lambda issues: expected_precision_recall(issues, level=90), "level is 90"),
        (
            lambda issues: measured_precision_recall(issues, review_sample(issues, 5), np.zeros(6, bool)),
            r"wrong has shape \(6,\); it takes one answer for each of the first 1 to 5 images",
        ),
        (
            lambda issues: measured_precision_recall(issues, review_sample(issues, 5), [0, 1, 2]),
            "wrong takes True .* and False only",
        ),
        (
            lambda issues: measured_precision_recall(
                calibrated(seed=1)[0], review_sample(issues, 50), np.ones(50, bool)
            ),
            "the sample was drawn from other issues",
        ),
        (
            lambda issues: review_sample(replace(issues, is_label_issue=np.zeros(4000, bool)), 5),
            "no label is flagged",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(call, sentence):
    issues, _ = calibrated()
    with pytest.raises(InputError, match=sentence):
        call(issues)
