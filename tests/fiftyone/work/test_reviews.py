"""Reviews: read once, then only what was modified since, and always as the database has them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import corrections, reviews
from tests.fiftyone.store.test_runs import imported

FIELDS = Fields("label_issues")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples were read at each look; nothing is looked at again for having been modified a moment ago."""
    counts: list[int] = []
    read = reviews._read

    def counting(dataset: Any, results: Any, query: Any, status: Any, was_wrong: Any) -> None:
        counts.append(dataset._sample_collection.count_documents(query))
        read(dataset, results, query, status, was_wrong)

    monkeypatch.setattr(reviews, "_read", counting)
    monkeypatch.setattr(reviews, "OVERLAP", timedelta(0))
    return counts


def as_read_anew(run: Any) -> reviews.Reviews:
    reviews._known.clear()
    return reviews.reviews(run.dataset, runs.load(run.dataset))


def test_after_the_first_look_only_what_was_modified_is_read(run: Any, asked: list[int]) -> None:
    results = runs.load(run.dataset)
    corrections.accept_suggestions(run.dataset, run.wrong_ids)
    asked.clear()
    reviews._known.clear()
    reviews.reviews(run.dataset, results)
    corrections.keep_labels(run.dataset, run.wrong_ids[:1])
    now = reviews.reviews(run.dataset, results)
    assert asked[0] == 12
    assert asked[-1] <= 1 + 1
    assert now.counts == {"unreviewed": 48, "accepted": 11, "kept": 1, "set": 0, "excluded": 0}
    assert now.was_wrong.sum() == 12


def test_what_is_taken_back_edited_deleted_or_excluded_shows(run: Any, asked: list[int]) -> None:
    results = runs.load(run.dataset)
    one, two, three, four = run.wrong_ids[:4]
    for step in (
        lambda: corrections.accept_suggestions(run.dataset, run.wrong_ids[:4]),
        lambda: corrections.undo_corrections(run.dataset, [one]),
        lambda: corrections.exclude_samples(run.dataset, [two]),
        lambda: run.dataset.select(three).set_values("ground_truth.label", [results.given([three])[0]]),
        lambda: run.dataset.select(four).set_values(FIELDS.review, ["unreviewed"]),
        lambda: run.dataset.delete_samples([two]),
        lambda: corrections.keep_labels(run.dataset, [one]),
        lambda: run.dataset.select(one).set_values(FIELDS.review, [None]),
    ):
        reviews.reviews(run.dataset, results)
        step()
        now = reviews.reviews(run.dataset, results)
        anew = as_read_anew(run)
        assert now.status.tolist() == anew.status.tolist()
        assert now.was_wrong.tolist() == anew.was_wrong.tolist()
    assert set(now.status) == {"unreviewed", "set"}  # an edit by other means counts as set


def test_what_was_read_before_is_not_changed_by_a_later_look(run: Any) -> None:
    results = runs.load(run.dataset)
    before = reviews.reviews(run.dataset, results)
    corrections.accept_suggestions(run.dataset, run.wrong_ids)
    after = reviews.reviews(run.dataset, results)
    assert (before.reviewed.sum(), after.reviewed.sum()) == (0, 12)
    assert set(before.status) == {"unreviewed"}


def test_another_run_of_the_same_samples_has_reviews_of_its_own(run: Any) -> None:
    other = imported(run, "second")
    corrections.keep_labels(run.dataset, run.ids[:5], "second")
    assert reviews.reviews(run.dataset, other).reviewed.sum() == 5
    assert reviews.reviews(run.dataset, runs.load(run.dataset, "label_issues")).reviewed.sum() == 0
    fo.load_dataset(run.dataset.name).rename_brain_run("second", "third")
    run.dataset.reload()
    np.testing.assert_array_equal(reviews.reviews(run.dataset, runs.load(run.dataset, "third")).reviewed[:5], True)


def test_few_runs_are_remembered(run: Any) -> None:
    for number in range(10):
        reviews.reviews(run.dataset, imported(run, f"run_{number}"))
    assert len(reviews._known) <= reviews._MOST_KNOWN
