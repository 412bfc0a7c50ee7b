"""The words of the panel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from cvcoteach.fiftyone.app import texts
from cvcoteach.fiftyone.work.browse import Reviews
from cvcoteach.fiftyone.work.figures import Headline, headline
from cvcoteach.issues.precision_recall import Interval, Readout, expected_precision_recall
from tests.fiftyone.work.test_figures import simulated


def test_the_panel_shows_the_current_interval_and_the_initial_one() -> None:
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
    assert precision.more.startswith(f"{wrong[issues.is_label_issue].mean():.1%}  \nat first ")


def test_a_narrow_interval_is_still_seen_to_be_one() -> None:
    narrow = Readout(Interval(0.998, 0.9961, 0.9993, 0.9), None, 12, 0, "")
    _, precision, _ = texts.estimates(Headline(60, 12, 0.2, narrow, narrow, None, 0, {"unreviewed": 60}, 12))
    assert (precision.value, precision.more) == ("100%", "99.6\u201399.9%")


def test_random_checks_are_rounded_as_the_tiles_are() -> None:
    checked = Readout(Interval(0.8049, 0.7049, 0.8951, 0.9), None, 12, 20, "")
    at_first = Readout(Interval(0.8049, 0.7049, 0.8951, 0.9), None, 12, 0, "")
    figures = Headline(60, 12, 0.20949, at_first, at_first, checked, 20, {"unreviewed": 60}, 12)
    noise, precision, _ = texts.estimates(figures)
    assert (noise.value, precision.value, precision.more) == ("20.9%", "80%", "70\u201390%")
    [note] = texts.notes(SimpleNamespace(info={}), figures)
    assert note == "By **20** random checks: of the flagged **80% (70\u201390%)** are wrong."


def test_notes_that_do_not_fit_are_counted() -> None:
    assert texts.first_notes(["a", "b"], 2) == ["a", "b"]
    assert texts.first_notes(["a", "b", "c"], 2)[2] == "(1 more note is in the run's `info`.)"
    assert texts.first_notes(["a", "b", "c", "d"], 2)[2] == "(2 more notes are in the run's `info`.)"


def test_a_note_that_came_with_a_run_is_text() -> None:
    unknown = Readout(None, None, 12, 0, "![](http://example.org/picture.png)")
    figures = Headline(60, 12, None, unknown, unknown, None, 0, {"unreviewed": 60}, 12)
    [note] = texts.notes(SimpleNamespace(info={}), figures)
    assert note == r"\!\[\]\(http://example\.org/picture\.png\)"


def test_one_label_is_singular_in_the_headline() -> None:
    def told(n_issues: int, n_left: int, counts: dict[str, int], n_found_wrong: int = 0) -> str:
        none = Readout(None, None, 0, 0, "")
        return texts.headline(Headline(60, n_issues, 0.1, none, none, None, 0, counts, n_left, n_found_wrong))

    assert told(1, 1, {}) == "1 of 60 labels looks wrong"
    assert told(5, 5, {}) == "5 of 60 labels look wrong"
    assert told(5, 1, {"accepted": 4}) == "1 of 60 labels still looks wrong"
    assert told(5, 0, {"accepted": 1, "kept": 4}, 1) == "Nothing left to review: 1 of 5 was wrong"
