"""The headline's figures: from the posterior at first, from what people saw in the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from cvcoteach.fiftyone.app import texts
from cvcoteach.fiftyone.app.charts import MOST_CLASSES, busiest, class_noise, histogram, matrix
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse, corrections
from cvcoteach.fiftyone.work.browse import Reviews
from cvcoteach.fiftyone.work.figures import headline, spot_checks, with_reviews
from cvcoteach.issues.label_issues import LabelIssues, posterior_issues
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


def test_the_panel_tells_the_interval_of_now_and_the_one_at_first() -> None:
    issues, wrong = simulated()
    nobody = Reviews(np.full(len(wrong), "unreviewed", dtype=object), np.zeros(len(wrong), np.bool_))
    noise, precision, recall = texts.estimates(headline(SimpleNamespace(issues=issues), nobody))
    first = expected_precision_recall(issues)
    assert first.precision is not None
    assert first.recall is not None
    assert noise.value == f"{issues.wrong.mean():.1%}"
    assert precision.more == f"{100 * first.precision.low:.0f}\u2013{first.precision.high:.0%}"
    assert recall.value == f"{first.recall.estimate:.0%}"
    status = np.where(issues.is_label_issue, "accepted", "unreviewed").astype(object)
    all_flagged = Reviews(status, wrong & issues.is_label_issue)
    _, precision, _ = texts.estimates(headline(SimpleNamespace(issues=issues), all_flagged))
    share = f"{wrong[issues.is_label_issue].mean():.0%}"
    assert precision.value == share
    assert precision.more.startswith(f"{share[:-1]}\u2013{share}  \nbefore reviews ")


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
    assert after.checked.precision.estimate == 1
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


def test_the_matrix_shows_the_most_confused_classes_only() -> None:
    counts = np.zeros((40, 40), np.int64)
    counts[7, 31] = 5
    counts[2, 3] = 1
    shown = busiest(counts)
    assert len(shown) == MOST_CLASSES
    assert {2, 3, 7, 31} <= set(shown.tolist())
    (heat,), _ = matrix(counts, tuple(f"class {k}" for k in range(40)))
    place = heat["y"].index("class 7"), heat["x"].index("class 31")
    assert heat["z"][place[0]][place[1]] == 5


def test_long_class_names_are_cut_on_the_axes_but_not_in_what_a_click_tells() -> None:
    names = ("a very long name of a class indeed", "short")
    (heat,), layout = matrix(np.array([[0, 1], [2, 0]]), names)
    assert heat["x"] == heat["y"] == list(names)
    assert layout["xaxis"]["ticktext"] == layout["yaxis"]["ticktext"] == ["a very long name \u2026", "short"]
    (bars,), layout = class_noise(np.array([0.1, 0.5]), np.array([1, 2]), names)
    assert bars["y"] == layout["yaxis"]["tickvals"] == ["short", names[0]]


def test_charts_of_nothing_are_still_charts() -> None:
    none = np.zeros(20, np.int64)
    data, _ = histogram(none, none)
    assert [trace["customdata"] for trace in data] == [[0] * 20] * 2
    (bars,), _ = class_noise(np.array([np.nan, 0.5]), np.array([0, 3]), ("a", "b"))
    assert bars["y"] == ["b", "a"]
