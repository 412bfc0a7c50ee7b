"""The panel without a browser: what it shows, and what a click asks the App to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionContext, Executor

from cvcoteach.fiftyone.app.layout import escaped, media_url
from cvcoteach.fiftyone.app.names import PLUGIN
from cvcoteach.fiftyone.app.panel import LabelIssuesPanel
from cvcoteach.fiftyone.app.reviewing import DOORS
from cvcoteach.fiftyone.app.sample_panel import SamplePanel
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse, corrections
from tests.fiftyone.calls import status
from tests.fiftyone.store.test_runs import imported

CLASSES = ("bar", "cross", "ring")


@dataclass
class Event:
    """What the App is asked to do after something has happened in the panel."""

    dataset: Any
    asked: list[tuple[str, dict[str, Any]]]

    @classmethod
    def of(cls, noisy: Any, method: str, params: dict[str, Any] | None = None, **request: Any) -> Event:
        """Let `method` of the panel happen."""
        marks = request.pop("marks", [])
        given = {
            "dataset_name": noisy.dataset.name,
            "params": {"panel_id": "one", "panel_state": {}, "__method__": method, **(params or {})},
            "selected_samples": marks,
            "query_performance": True,  # as an App sends it
            **request,
        }
        panel = SamplePanel() if "current_sample" in request else LabelIssuesPanel()
        ctx = ExecutionContext(given, executor=Executor(), operator_uri=f"{PLUGIN}/{panel.config.name}")
        panel.execute(ctx)
        asked = [(it.operator_uri, it.params) for it in ctx.executor._requests]
        return cls(noisy.dataset, asked)

    def params(self, name: str) -> dict[str, Any]:
        """Of the one request for an operator of the App."""
        (found,) = (params for uri, params in self.asked if uri == name)
        return found

    @property
    def viewed(self) -> list[str]:
        """The samples of the view it is to show."""
        return list(fo.DatasetView._build(self.dataset, self.params("set_view")["view"]).values("id"))

    @property
    def shown(self) -> str:
        """Everything the panel is to show in the end, as text."""
        outputs = [params["output"] for uri, params in self.asked if uri == "show_panel_output"]
        return json.dumps(outputs[-1], ensure_ascii=False, default=str)


def test_without_a_run_it_offers_to_find_one(noisy: Any) -> None:
    shown = Event.of(noisy, "on_load").shown
    assert "No label issues to show" in shown
    assert "have not been checked yet: find label issues first" in shown
    assert "Find label issues" in shown
    asked = Event.of(noisy, "find").params("prompt_user_for_operation")
    assert asked["operator_uri"] == "@cvcoteach/label_issues/find_label_issues"


def test_a_cell_a_bar_and_a_class_show_exactly_their_samples(noisy: Any) -> None:
    results = imported(noisy)
    issues, ids = results.issues, np.array(noisy.ids)
    worst = issues.worst_first(flagged_only=False)
    for given in range(3):
        for suggested in range(3):
            here = issues.is_label_issue & (issues.labels == given) & (issues.suggested == suggested)
            click = {"y": CLASSES[given], "x": CLASSES[suggested]}
            assert Event.of(noisy, "show_cell", click).viewed == ids[worst[here[worst]]].tolist()
        here = issues.is_label_issue & (issues.labels == given)
        assert Event.of(noisy, "show_class", {"y": CLASSES[given]}).viewed == ids[worst[here[worst]]].tolist()
    seen: list[str] = []
    for number in range(browse.QUALITY_BINS):
        low, high = number / browse.QUALITY_BINS, (number + 1) / browse.QUALITY_BINS
        viewed = Event.of(noisy, "show_quality", {"x": (low + high) / 2}).viewed
        quality = issues.label_quality[[noisy.ids.index(i) for i in viewed]]
        assert ((quality >= low) & (quality < high + 1e-9)).all()
        seen += viewed
    assert sorted(seen) == sorted(noisy.ids)


def test_the_queue_opens_a_sample_by_a_click_also_from_a_view_without_it(noisy: Any) -> None:
    results = imported(noisy)
    worst = results.ids[results.issues.worst_first()[0]].decode()
    event = Event.of(noisy, "open_card", {"sample_id": worst})
    assert event.params("open_sample")["id"] == worst
    elsewhere = noisy.dataset.select([i for i in noisy.ids if i != worst])._serialize()
    event = Event.of(noisy, "open_card", {"sample_id": worst}, view=elsewhere)
    assert worst in event.viewed
    assert event.params("open_sample")["id"] == worst


@pytest.mark.parametrize("button", ["accept", "keep", "exclude", "set_label"])
def test_a_button_without_a_sample_corrects_nothing_and_says_so(noisy: Any, button: str) -> None:
    imported(noisy)
    event = Event.of(noisy, button)
    assert event.params("notify")["variant"] == "error"
    assert "no samples are chosen" in event.params("notify")["message"]
    assert set(noisy.dataset.values("label_issues_review")) == {"unreviewed"}


def test_marks_become_one_button(noisy: Any) -> None:
    imported(noisy)
    marks = [{"id": noisy.wrong_ids[0], "type": "default"}, {"id": noisy.wrong_ids[1], "type": "alt"}]
    assert "Apply marks: accept 1, keep 1" in Event.of(noisy, "on_change_selected", marks=marks).shown
    event = Event.of(noisy, "apply_marks", marks=marks)
    assert event.params("notify")["message"] == "1 label accepted. 1 label kept."
    assert ("clear_selected_samples", {}) in event.asked
    assert "**2** reviewed, **1** of them wrong · 1 accepted · 1 kept · 0 set · 0 excluded · **10** left" in event.shown


def test_a_button_in_an_open_sample_moves_on_as_its_key_does(noisy: Any) -> None:
    results = imported(noisy)
    first, second = (results.ids[row].decode() for row in results.issues.worst_first()[:2])
    event = Event.of(noisy, "accept", current_sample=first)
    assert noisy.dataset[first]["label_issues_review"] == "accepted"
    assert event.params("open_sample")["id"] == second


def test_undo_takes_back_what_is_selected_else_the_last_action(noisy: Any) -> None:
    imported(noisy)
    corrections.accept_suggestions(noisy.dataset, noisy.wrong_ids[:2])
    corrections.keep_labels(noisy.dataset, noisy.wrong_ids[2:4])
    Event.of(noisy, "undo", marks=[{"id": noisy.wrong_ids[0], "type": "default"}])
    review = dict(zip(*noisy.dataset.values(["id", "label_issues_review"]), strict=True))
    assert [review[i] for i in noisy.wrong_ids[:4]] == ["unreviewed", "accepted", "kept", "kept"]


@pytest.mark.parametrize(("button", "becomes"), [("accept", "accepted"), ("keep", "kept"), ("exclude", "excluded")])
def test_a_button_in_an_open_sample_leaves_what_the_grid_has_selected_alone(
    noisy: Any, button: str, becomes: str
) -> None:
    imported(noisy)
    here, *others = noisy.wrong_ids[:4]
    Event.of(noisy, button, current_sample=here, marks=[{"id": i, "type": "default"} for i in others])
    assert {i: value for i, value in status(noisy).items() if value != "unreviewed"} == {here: becomes}


def test_set_in_an_open_sample_asks_about_that_one(noisy: Any) -> None:
    imported(noisy)
    here, other = noisy.wrong_ids[:2]
    event = Event.of(noisy, "set_label", current_sample=here, marks=[{"id": other, "type": "default"}])
    assert [params["params"]["ids"] for _, params in event.asked if "params" in params] == [[here]]


def test_set_in_an_open_sample_moves_on_as_a_key_does(noisy: Any) -> None:
    imported(noisy)
    results = runs.load(noisy.dataset)
    worst = [one.decode() for one in results.ids[results.issues.worst_first()]]
    asked = Event.of(noisy, "set_label", current_sample=worst[0]).params("prompt_user_for_operation")
    assert asked["on_success"].endswith("#move_on")
    corrections.set_label(noisy.dataset, worst[:1], "bar")
    assert Event.of(noisy, "move_on", current_sample=worst[0]).params("open_sample")["id"] == worst[1]
    corrections.keep_labels(noisy.dataset, worst[1:])
    assert "open_sample" not in dict(Event.of(noisy, "move_on", current_sample=worst[0]).asked)


def test_the_grid_reads_labels_anew_once_no_sample_is_open(noisy: Any) -> None:
    imported(noisy)
    wrong = noisy.wrong_ids
    assert "reload_dataset" in dict(Event.of(noisy, "keep", selected=wrong[:2]).asked)
    assert "reload_dataset" in dict(Event.of(noisy, "undo").asked)
    assert "reload_dataset" in dict(Event.of(noisy, "apply_marks", marks=[{"id": wrong[3], "type": "alt"}]).asked)
    assert "reload_dataset" not in dict(Event.of(noisy, "keep", current_sample=wrong[4]).asked)


def test_accept_in_the_grid_leaves_the_alt_clicked_alone_and_marked(noisy: Any) -> None:
    imported(noisy)
    one, other = noisy.wrong_ids[:2]
    to_keep = {"id": other, "type": "alt"}
    event = Event.of(noisy, "accept", marks=[{"id": one, "type": "default"}, to_keep])
    assert {i for i, value in status(noisy).items() if value != "unreviewed"} == {one}
    assert event.params("set_selected_samples")["samples"] == [to_keep]
    event = Event.of(noisy, "accept", marks=[to_keep])
    assert "every selected sample is Alt-clicked" in event.params("notify")["message"]
    assert status(noisy)[other] == "unreviewed"


def test_undo_in_an_open_sample_takes_back_its_correction_else_the_last_of_one_sample(noisy: Any) -> None:
    imported(noisy)
    single, *many = noisy.wrong_ids[:4]
    left = noisy.wrong_ids[5]
    corrections.keep_labels(noisy.dataset, [single])
    corrections.accept_suggestions(noisy.dataset, many)
    event = Event.of(noisy, "undo", current_sample=left, marks=[{"id": many[1], "type": "default"}])
    assert event.params("open_sample")["id"] == single
    assert [status(noisy)[i] for i in (single, *many)] == ["unreviewed", "accepted", "accepted", "accepted"]
    event = Event.of(noisy, "undo", current_sample=left)
    assert "no correction of this or another single sample" in event.params("notify")["message"]
    Event.of(noisy, "undo", current_sample=many[0])
    assert [status(noisy)[i] for i in (single, *many)] == ["unreviewed", "unreviewed", "accepted", "accepted"]


def test_what_nobody_foresaw_is_told_by_a_toast_and_in_the_panel(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(noisy)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the database is on fire")

    monkeypatch.setitem(DOORS, "keep", broken)
    event = Event.of(noisy, "keep", marks=[{"id": noisy.wrong_ids[0], "type": "default"}])
    assert event.params("notify")["variant"] == "error"
    assert "RuntimeError: the database is on fire" in event.params("notify")["message"]
    monkeypatch.setattr(browse, "queue", broken)
    assert "RuntimeError: the database is on fire" in Event.of(noisy, "refresh").shown


def test_the_open_sample_is_described(noisy: Any) -> None:
    imported(noisy)
    wrong = noisy.wrong_ids[0]
    row = noisy.ids.index(wrong)
    shown = Event.of(noisy, "on_change_current_sample", current_sample=wrong).shown
    assert f"{CLASSES[noisy.given[row]]} → {CLASSES[noisy.true[row]]}" in shown
    assert f"{row:05d}.png" in shown
    assert "Unreviewed" in shown


def test_of_two_runs_the_one_chosen_is_shown_and_corrected(noisy: Any) -> None:
    imported(noisy, "first")
    imported(noisy, "second")
    wrong = noisy.wrong_ids[0]
    Event.of(noisy, "accept", marks=[{"id": wrong, "type": "default"}])
    Event.of(noisy, "choose_run", {"value": "first"})
    Event.of(noisy, "keep", marks=[{"id": wrong, "type": "default"}])
    sample = noisy.dataset[wrong]
    assert (sample["first_review"], sample["second_review"]) == ("kept", "accepted")
    noisy.dataset.delete_brain_run("first")
    assert "1 accepted" in Event.of(noisy, "refresh").shown


def test_deleted_samples_leave_the_queue(noisy: Any) -> None:
    results = imported(noisy)
    worst = results.ids[results.issues.worst_first()[0]].decode()
    assert worst in Event.of(noisy, "refresh").shown
    noisy.dataset.delete_samples([worst])
    assert worst not in Event.of(noisy, "refresh").shown


def test_a_deleted_dataset_is_a_sentence_in_the_panel_and_a_toast_of_its_buttons() -> None:
    gone = SimpleNamespace(dataset=SimpleNamespace(name="deleted long ago"))
    assert "no longer exists" in Event.of(gone, "refresh").shown
    for button in ("accept", "set_label", "undo", "apply_marks", "show_left"):
        event = Event.of(gone, button, marks=[{"id": "0" * 24, "type": "default"}])
        assert "no longer exists" in event.params("notify")["message"], button


def test_class_names_are_shown_as_they_are() -> None:
    assert escaped("a_b *c* <d>") == r"a\_b \*c\* \<d\>"


def test_pictures_come_from_the_app_or_the_web() -> None:
    assert media_url("/data/a b.png") == "/media?filepath=/data/a%20b.png"
    assert media_url("https://example.org/a.png") == "https://example.org/a.png"


def test_the_panel_is_sent_once_and_drawn_in_steps_figures_queue_charts(noisy: Any) -> None:
    imported(noisy)
    (shown,) = (params["output"] for uri, params in Event.of(noisy, "on_load").asked if uri == "show_panel_output")
    at_first = dict(shown["type"]["properties"])
    queue = dict(at_first.pop("rest")["type"]["properties"])
    charts = queue.pop("charts")
    at_first, queue = (json.dumps(part, default=str) for part in (at_first, queue))
    assert "12 of 60 labels look wrong" in at_first
    assert "Accept" in at_first
    assert "ImageView" not in at_first
    assert queue.count("ImageView") >= 8
    assert "PlotlyView" not in at_first + queue
    assert json.dumps(charts, default=str).count("PlotlyView") >= 3
    script = (Path(__file__).parents[3] / "fiftyone_plugin" / "dist" / "index.umd.js").read_text()
    for part in (shown, charts):
        assert f'name: "{part["view"]["component"]}"' in script, "the page knows no such component"


def test_a_panel_that_is_closed_is_not_rendered_again(noisy: Any) -> None:
    imported(noisy)
    assert Event.of(noisy, "on_unload").asked == [("clear_sample_selection_style", {})]
    assert Event.of(noisy, "on_unload", current_sample=noisy.wrong_ids[0]).asked == []


def test_the_figures_are_computed_anew_only_after_a_review(noisy: Any) -> None:
    results = imported(noisy)
    before = browse.reviews(noisy.dataset, results)
    assert browse.reviews(noisy.dataset, results) is before
    corrections.keep_labels(noisy.dataset, noisy.wrong_ids[:1])
    after = browse.reviews(noisy.dataset, results)
    assert after.counts["kept"] == 1
    assert browse.reviews(noisy.dataset, results) is after


def test_beside_the_grid_nothing_follows_the_open_sample() -> None:
    assert "on_change_current_sample" not in LabelIssuesPanel().resolve_panel_config()
    assert "on_change_current_sample" in SamplePanel().resolve_panel_config()
