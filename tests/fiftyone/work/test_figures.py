"""The headline's figures: from the posterior at first, from what people saw in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse, corrections
from cvcoteach.fiftyone.work.figures import headline, spot_checks, with_reviews
from cvcoteach.fiftyone.work.imports import import_label_issues
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.precision_recall import expected_precision_recall


def simulated(n: int = 2000, seed: int = 0) -> tuple[LabelIssues, np.ndarray]:
    """Issues of noisy labels, and whether each label is wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, n)
    given = np.where(rng.random(n) < 0.2, (true + rng.integers(1, 4, n)) % 4, true)
    probs = np.stack([rng.dirichlet(np.where(np.arange(4) == k, 6, 1)) for k in true])
    return posterior_issues(given, probs), true != given


def test_without_reviews_the_posterior_speaks() -> None:
    issues, wrong = simulated()
    nobody = np.zeros(len(wrong), np.bool_)
    assert with_reviews(issues, nobody, nobody) == expected_precision_recall(issues)


def test_the_estimate_narrows_as_reviews_go_on_and_ends_at_the_truth() -> None:
    """The first quarter, worst first, are the surest labels: seeing them changes next to nothing."""
    issues, wrong = simulated()
    worst = issues.worst_first()
    widths = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        reviewed = np.zeros(len(wrong), np.bool_)
        reviewed[worst[: round(share * len(worst))]] = True
        precision = with_reviews(issues, reviewed, wrong & reviewed).precision
        assert precision is not None
        assert precision.low <= precision.estimate <= precision.high
        widths.append(precision.width)
    assert widths[1] < 1.05 * widths[0]
    assert widths[1] > widths[2] > widths[3] > widths[4] == 0
    assert precision.estimate == wrong[issues.is_label_issue].mean()


def test_with_everything_reviewed_recall_is_the_truth_too() -> None:
    issues, wrong = simulated(400)
    recall = with_reviews(issues, np.ones(len(wrong), np.bool_), wrong).recall
    assert recall is not None
    np.testing.assert_allclose(recall.estimate, issues.is_label_issue[wrong].mean())
    np.testing.assert_allclose(recall.width, 0)


def test_the_headline_of_a_dataset_counts_reviews_and_measures_by_random_checks(noisy: Any) -> None:
    from tests.fiftyone.store.test_runs import imported

    results = imported(noisy)
    before = headline(results, browse.reviews(noisy.dataset, results))
    assert (before.n_samples, before.n_issues, before.n_left, before.n_reviewed) == (60, 12, 12, 0)
    assert before.checked is None
    checks = spot_checks(results.issues)
    assert checks is not None
    ids = [results.ids[row].decode() for row in checks.indices[:20]]
    corrections.accept_suggestions(noisy.dataset, ids)
    after = headline(runs.load(noisy.dataset), browse.reviews(noisy.dataset, results))
    assert after.n_checked >= 20
    assert after.checked is not None
    assert after.checked.precision is not None
    assert after.checked.precision.estimate > 0.99
    assert after.counts["accepted"] == after.n_reviewed == 20


def test_an_excluded_sample_counts_as_a_wrong_label_a_kept_one_as_right(noisy: Any) -> None:
    from tests.fiftyone.store.test_runs import imported

    results = imported(noisy)
    one, two, three = noisy.wrong_ids[:3]
    corrections.exclude_samples(noisy.dataset, [one])
    corrections.keep_labels(noisy.dataset, [two])
    corrections.set_label(noisy.dataset, [three], "something else")
    done = browse.reviews(noisy.dataset, results)
    rows = [noisy.ids.index(i) for i in (one, two, three)]
    assert done.was_wrong[rows].tolist() == [True, False, True]


def test_copies_count_once_in_the_noise_rate_as_in_that_of_the_command(noisy: Any) -> None:
    """Twenty copies of one image with a wrong label; once all are reviewed, one label of those left was wrong."""
    issues = posterior_issues(noisy.given, noisy.pred_probs, class_names=("bar", "cross", "ring"))
    copies = np.full(60, -1)
    copies[1:20] = 0
    quality = np.where(np.arange(60) < 20, 0.0, 1.0)
    found = replace(issues, duplicate_of=copies, label_quality=quality)
    import_label_issues(noisy.dataset, "ground_truth", found)
    results = runs.load(noisy.dataset)
    assert headline(results, browse.reviews(noisy.dataset, results)).noise_ratio == round(found.noise_ratio, 4)
    assert found.noise_ratio == pytest.approx(1 / 41)
    corrections.exclude_samples(noisy.dataset, noisy.ids[:10])
    corrections.keep_labels(noisy.dataset, noisy.ids[10:])
    after = headline(results, browse.reviews(noisy.dataset, results)).noise_ratio
    assert after == pytest.approx(0.5 / 41, abs=1e-4)
