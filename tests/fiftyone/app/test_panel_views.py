"""What the panel shows in the grid, and the buttons for many samples at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionError, ExecutionProgress

from cvcoteach.fiftyone.app.filters import PAIR
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse, bulk, corrections
from cvcoteach.fiftyone.work.figures import spot_checks
from tests.fiftyone.app.test_panel import Event
from tests.fiftyone.calls import context, execute, form, notes, operator, status

FIELDS = ("is_issue", "quality", "wrong", "suggested")


def stages(event: Event) -> list[dict[str, Any]]:
    return list(event.params("set_view")["view"])


@pytest.mark.parametrize(
    ("button", "operator"),
    [
        ("find", "find_label_issues"),
        ("retrain", "retrain_coteaching"),
        ("export", "export_corrected"),
        ("report", "report_label_issues"),
        ("accept_probable", "accept_probable"),
        ("filter", "filter_label_issues"),
    ],
)
def test_a_button_opens_the_form_of_its_operator(run: Any, button: str, operator: str) -> None:
    asked = Event.of(run, button).params("prompt_user_for_operation")
    assert asked["operator_uri"] == f"@cvcoteach/label_issues/{operator}"
    if button != "find":
        assert asked["params"]["brain_key"] == "label_issues"


def test_the_headline_follows_the_reviews(run: Any) -> None:
    assert "12 of 60 labels look wrong" in Event.of(run, "on_load").shown
    corrections.accept_suggestions(run.dataset, run.wrong_ids[:3])
    corrections.keep_labels(run.dataset, run.wrong_ids[3:4])
    shown = Event.of(run, "refresh").shown
    assert "8 of 60 labels still look wrong" in shown
    assert "**4** reviewed, **3** of them wrong" in shown
    corrections.accept_suggestions(run.dataset, run.wrong_ids[4:])
    assert "Nothing left to review: 11 of 12 were wrong" in Event.of(run, "refresh").shown


def test_random_checks_hide_what_the_run_says_and_are_walked_in_their_order(run: Any) -> None:
    results = runs.load(run.dataset)
    event = Event.of(run, "show_checks")
    due = [results.ids[row].decode() for row in spot_checks(results.issues).indices[:20]]
    assert event.viewed == due
    view = fo.DatasetView._build(run.dataset, stages(event))
    assert not {f"label_issues_{name}" for name in FIELDS} & set(view.get_field_schema())
    assert "k if its label is right" in event.params("notify")["message"]
    shown = Event.of(run, "refresh", view=stages(event), current_sample=due[0]).shown
    assert f"Is it {run.dataset[due[0]].ground_truth.label}?" in shown
    assert "probability" not in shown

    with pytest.raises(ExecutionError, match="without a suggestion to accept"):
        execute("review_and_move_on", run.dataset, view=view, current_sample=due[0], params={"what": "accept"})
    here, seen = due[0], []
    while here is not None:
        seen.append(here)
        here = execute("review_and_move_on", run.dataset, view=view, current_sample=here, params={"what": "keep"})[
            "next"
        ]
    assert seen == due  # flagged or not
    shown = Event.of(run, "refresh").shown
    flagged = sum(i in run.wrong_ids for i in due)
    assert f"0 of {flagged} flagged labels were wrong, 0 of {20 - flagged} other labels were wrong" in shown
    assert "By **20** random checks" in shown


def test_a_second_look_shows_what_was_accepted_and_goes_on_through_it(run: Any) -> None:
    corrections.accept_suggestions(run.dataset, run.wrong_ids[:4])
    assert "See 4 accepted" in Event.of(run, "refresh").shown
    event = Event.of(run, "show_accepted")
    probable = dict(zip(*run.dataset.values(["id", "label_issues_suggested.confidence"]), strict=True))
    assert sorted(event.viewed) == sorted(run.wrong_ids[:4])
    assert [probable[i] for i in event.viewed] == sorted(probable[i] for i in event.viewed)
    view = fo.DatasetView._build(run.dataset, stages(event))
    one, two, *_, last = event.viewed
    assert (
        execute("review_and_move_on", run.dataset, view=view, current_sample=one, params={"what": "keep"})["next"]
        == two
    )
    assert (
        execute("review_and_move_on", run.dataset, view=view, current_sample=last, params={"what": "accept"})["next"]
        is None
    )
    assert status(run)[one] == "kept"


def test_a_pair_of_classes_and_an_annotator_show_what_is_left_of_them(run: Any) -> None:
    results = runs.load(run.dataset)
    corrections.keep_labels(run.dataset, run.wrong_ids[:2])
    done = browse.reviews(run.dataset, results)
    pairs = browse.pairs(results, done)
    assert sum(n for *_, n in pairs) == 10
    given, suggested, n = pairs[0]
    told = in_the_app_view(run, pair=f"{given}{PAIR}{suggested}")
    assert len(told) == n
    assert {run.dataset[i].ground_truth.label for i in told} == {given}
    field, counts = browse.annotators(run.dataset, results)
    assert (field, sum(counts.values())) == ("ground_truth.annotator", 10)
    told = in_the_app_view(run, annotator="person 1")
    assert len(told) == counts["person 1"]
    assert {run.dataset[i].ground_truth.annotator for i in told} == {"person 1"}
    assert not set(told) & set(run.wrong_ids[:2])
    both = in_the_app_view(run, pair=f"{given}{PAIR}{suggested}", annotator="person 1")
    assert set(both) <= set(told)
    with pytest.raises(ExecutionError, match="nothing is chosen"):
        execute("filter_label_issues", run.dataset)


def in_the_app_view(run: Any, **params: str) -> list[str]:
    """The samples of the view that the filter shows."""
    ctx = context(run.dataset, params=params)
    operator("filter_label_issues").execute(ctx)
    (asked,) = (it.params for it in ctx.executor._requests if it.operator_uri == "set_view")
    return list(fo.DatasetView._build(run.dataset, asked["view"]).values("id"))


def test_bulk_accept_says_how_many_mistakes_to_expect_before_it_is_done(run: Any) -> None:
    results = runs.load(run.dataset)
    rows = bulk.probable_rows(run.dataset, results, 0.5)
    expected, low, high = bulk.expected_mistakes(results, rows)
    assert expected == pytest.approx(float((1 - results.issues.suggested_prob[rows]).sum()))
    assert low <= expected <= high
    (note,) = notes("accept_probable", run.dataset, params={"least_probability": 0.5})
    assert note.startswith(f"{len(rows)} labels would get the suggested class; about {expected:.0f} of these")
    assert "has a suggestion so probable" in form("accept_probable", run.dataset, params={"least_probability": 1})
    assert "between 0 and 1" in form("accept_probable", run.dataset, params={"least_probability": 7})
    assert "'x'; it takes a number" in form("accept_probable", run.dataset, params={"least_probability": "x"})
    middle = float(sorted(results.issues.suggested_prob[rows])[6])
    done = execute("accept_probable", run.dataset, params={"least_probability": middle})
    least = dict(zip(*run.dataset.values(["id", "label_issues_suggested.confidence"]), strict=True))
    assert len(done["ids"]) == 6
    assert all(least[i] >= middle for i in done["ids"])


def test_the_report_of_a_run_is_a_page_with_the_reviews(run: Any, tmp_path: Path) -> None:
    corrections.accept_suggestions(run.dataset, run.wrong_ids[:3])
    file = tmp_path / "report.html"
    assert "does not exist" in form("report_label_issues", run.dataset, params={"to": str(tmp_path / "no" / "a.html")})
    said = execute("report_label_issues", run.dataset, params={"to": str(file)})
    assert said["file"] == str(file)
    page = file.read_text()
    assert "data:image/jpeg" in page
    assert "bar" in page
    assert "already exists" in form("report_label_issues", run.dataset, params={"to": str(file)})
    assert "ends in .html" in form("report_label_issues", run.dataset, params={"to": str(tmp_path / "a.txt")})


def test_a_renamed_label_field_is_followed_by_a_button(run: Any) -> None:
    run.dataset.rename_sample_field("ground_truth", "label")
    assert "Go on with label" in Event.of(run, "refresh").shown
    shown = Event.of(run, "follow_field", {"key": "label_issues", "label_field": "label"}).shown
    assert "12 of 60 labels look wrong" in shown


def test_a_delegated_run_shows_in_the_panel_that_it_waits_and_how_far_it_is(noisy: Any) -> None:
    noisy.dataset.persistent = True
    params = {"label_field": "ground_truth", "rounds": 1}
    queued = execute("find_label_issues", noisy.dataset, params=params, request_delegation=True)
    shown = Event.of(noisy, "on_load").shown
    assert "waiting for the service" in shown
    assert "TimerView" in shown
    service = DelegatedOperationService()
    service.set_running(queued["id"])
    service.set_progress(queued["id"], ExecutionProgress(0.25, "round 1 of 1"))
    assert "**25%**, round 1 of 1" in Event.of(noisy, "refresh").shown
    service.delete_operation(queued["id"])
    assert "TimerView" not in Event.of(noisy, "refresh").shown
