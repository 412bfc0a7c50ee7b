"""A share of the review queue that is shown without our suggestion."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import blind, browse, corrections
from cvcoteach.fiftyone.work.figures import headline, spot_checks
from cvcoteach.fiftyone.work.unseen import unseen_in
from tests.fiftyone.app.test_panel import Event
from tests.fiftyone.calls import execute
from tests.fiftyone.store.test_runs import imported


def test_random_checks_are_spread_over_the_queue_in_their_order(run: Any) -> None:
    results = runs.load(run.dataset)
    done = browse.reviews(run.dataset, results)
    plain, found = browse.queue(results, done), blind.queue(results, done, 0.2)
    mixed = found.rows
    drawn = spot_checks(results.issues).indices[:3]  # of 12 flagged: 3 of 15 are a fifth
    assert set(mixed) == set(plain) | set(drawn)
    assert [row for row in mixed if row in set(drawn)] == drawn.tolist()
    others = [row for row in mixed if row not in set(drawn)]
    assert others == [row for row in plain if row not in set(drawn)]
    assert np.ptp(np.flatnonzero(np.isin(mixed, drawn))) > len(mixed) / 2
    np.testing.assert_array_equal(found.unseen, drawn)
    np.testing.assert_array_equal(blind.queue(results, done, 0).rows, plain)
    with pytest.raises(InputError, match="blind share is 1"):
        blind.queue(results, done, 1)


def test_the_panel_shows_a_share_of_the_queue_blind_and_measures_by_it(run: Any) -> None:
    results = runs.load(run.dataset)
    assert "shown **without our suggestion**" in Event.of(run, "on_load").shown
    Event.of(run, "choose_blind", {"value": 0.2})
    mixed = blind.queue(results, browse.reviews(run.dataset, results), 0.2).rows
    event = Event.of(run, "show_left")
    ids = [results.ids[row].decode() for row in mixed]
    assert event.viewed == ids
    stages = event.params("set_view")["view"]
    view = fo.DatasetView._build(run.dataset, stages)
    assert "label_issues_suggested" not in view.get_field_schema()  # the App's sidebar would tell
    assert "label_issues_review" in view.get_field_schema()
    unseen = unseen_in(view)
    assert len(unseen) == 3
    for sample_id in ids:
        shown = Event.of(run, "refresh", view=stages, current_sample=sample_id).shown
        assert ("Is it " in shown) == (sample_id in unseen)
        assert ("Accept (a)" in shown) == (sample_id not in unseen)
        assert ("probability" in shown) == (sample_id not in unseen)
        what = "keep" if sample_id in unseen else "accept"
        if sample_id in unseen:
            with pytest.raises(ExecutionError, match="without a suggestion to accept"):
                execute(
                    "review_and_move_on", run.dataset, view=view, current_sample=sample_id, params={"what": "accept"}
                )
        execute("review_and_move_on", run.dataset, view=view, current_sample=sample_id, params={"what": what})
    figures = headline(results, browse.reviews(run.dataset, results))
    assert figures.n_checked >= 3
    Event.of(run, "choose_blind", {"value": 0.0})
    corrections.undo_corrections(run.dataset, ids[:4])
    assert set(Event.of(run, "show_left").viewed) <= set(run.wrong_ids)


def test_a_blind_thumbnail_tells_no_suggestion_and_opens_in_the_queue(run: Any) -> None:
    Event.of(run, "choose_blind", {"value": 0.2})
    results = runs.load(run.dataset)
    first = blind.queue(results, browse.reviews(run.dataset, results), 0.2).rows[0]
    sample_id = results.ids[first].decode()
    assert "\u2192 **?**" in Event.of(run, "refresh").shown.replace("\\", "")
    event = Event.of(run, "open_card", {"sample_id": sample_id})
    assert event.params("open_sample")["id"] == sample_id
    assert event.viewed[0] == sample_id
    Event.of(run, "choose_blind", {"value": 0.0})


def test_a_blind_sample_tells_nothing_of_another_run_either(run: Any) -> None:
    first = runs.load(run.dataset)
    imported(run, "second")
    view = blind.view(first, blind.queue(first, browse.reviews(run.dataset, first), 0.2))
    assert "second_suggested" in run.dataset.get_field_schema()
    told = [name for name in view.get_field_schema() if name.startswith(("second_", "label_issues_"))]
    assert told == ["label_issues_review"]
