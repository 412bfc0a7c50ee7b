"""Every operator from Python, through FiftyOne's own door."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
import pytest
from bson import ObjectId
from fiftyone.operators.registry import OperatorRegistry

from cvcoteach.fiftyone.app.operators import (
    OPERATORS,
    PANEL,
    PLUGIN,
    SAMPLE_PANEL,
    FindLabelIssuesOperator,
    panel_beside_grid,
)
from cvcoteach.fiftyone.app.reviewing import DOORS
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import browse, corrections
from cvcoteach.fiftyone.work.actions import audit_of
from tests.fiftyone.calls import context, execute, in_the_app, notes, operator, plugin, properties, status, toasts
from tests.fiftyone.store.test_runs import imported
from tests.fiftyone.work.test_find import with_embeddings

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


def test_the_plugin_registers_everything_without_an_error() -> None:
    plugin()
    registry = OperatorRegistry()
    assert registry.list_errors() == []
    for name in [kind().name for kind in OPERATORS] + [PANEL, SAMPLE_PANEL]:
        assert foo.operator_exists(f"{PLUGIN}/{name}"), name


@pytest.mark.slow
def test_importing_the_operators_loads_no_torch() -> None:
    script = "import sys, cvcoteach.fiftyone.app.operators, cvcoteach.fiftyone.app.panel; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip().endswith("False")


def test_corrections_of_a_selection(noisy: Any) -> None:
    imported(noisy)
    one, two, three, *_ = noisy.wrong_ids
    execute("accept_suggestions", noisy.dataset, selected=[one])
    execute("keep_labels", noisy.dataset, selected=[two])
    execute("set_label", noisy.dataset, selected=[three], params={"label": "ring"})
    execute("exclude_samples", noisy.dataset, params={"ids": [noisy.wrong_ids[3]]})
    now = status(noisy)
    assert [now[i] for i in noisy.wrong_ids[:4]] == ["accepted", "kept", "set", "excluded"]
    assert noisy.dataset[one]["ground_truth"].label == CLASSES[noisy.true[noisy.ids.index(one)]]
    for left in (3, 2, 1, 0):
        execute("undo_corrections", noisy.dataset)
        assert sum(value != "unreviewed" for value in status(noisy).values()) == left


def test_a_correction_of_a_view_is_about_its_flagged_unreviewed_samples(noisy: Any) -> None:
    imported(noisy)
    execute("keep_labels", noisy.dataset, selected=noisy.wrong_ids[:1])
    view = noisy.dataset.select(noisy.ids[:40])
    result = execute("accept_suggestions", None, view=view)
    assert sorted(result["ids"]) == sorted(set(noisy.wrong_ids[1:]) & set(noisy.ids[:40]))


@pytest.mark.slow
def test_every_operator_is_about_the_selection_where_there_is_one(noisy: Any, tmp_path: Path) -> None:
    """Samples by the grid's order: the first forty are the view, of them thirty are selected."""
    with_embeddings(noisy)
    view, selected = noisy.dataset.limit(40), noisy.ids[10:40]
    params = {"embeddings_field": "embedding", "rounds": 1}
    execute("find_label_issues", None, view=view, selected=selected, params=params)
    assert [i.decode() for i in runs.load(noisy.dataset).ids] == selected
    mask = [True, False] * 15
    execute("import_label_issues", noisy.dataset, selected=selected, params={"found": mask, "brain_key": "masked"})
    assert [i.decode() for i in runs.load(noisy.dataset, "masked").ids] == selected
    on = {
        "selected": selected[:5],
        "params": {"brain_key": "label_issues", "kind": "csv", "to": str(tmp_path / "1.csv")},
    }
    execute("export_corrected", noisy.dataset, **on)
    with open(tmp_path / "1.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == noisy.dataset.select(selected[:5]).values("filepath")


def test_forms_begin_with_the_whole_dataset_where_a_view_is_only_to_be_looked_at(noisy: Any) -> None:
    imported(noisy)
    results = runs.load(noisy.dataset)
    queue = browse.left(results, browse.reviews(noisy.dataset, results))

    def target(name: str, **request: Any) -> Any:
        return properties(name, noisy.dataset, **request)["view_target"].default

    for name in ("export_corrected", "retrain_coteaching"):
        for view in (queue, noisy.dataset.limit(40)):
            assert target(name, view=view) == "DATASET"
            assert target(name, view=view, selected=noisy.ids[:3]) == "DATASET"
    for name in ("find_label_issues", "import_label_issues"):
        assert target(name, view=queue) == "DATASET"
        assert target(name, view=noisy.dataset.limit(40)) == "CURRENT_VIEW"
        assert target(name, selected=noisy.ids[:3]) == "SELECTED_SAMPLES"


def test_in_the_layout_of_the_quickstart_every_panel_has_its_tab() -> None:
    """The App draws tabs only where a space does not say how its panels lie beside each other."""
    beside = panel_beside_grid()
    assert beside.orientation == "horizontal"
    assert [space.orientation for space in beside.children] == [None, None]
    assert [[panel.type for panel in space.children] for space in beside.children] == [["Samples"], [PANEL]]
    assert [space.active_child for space in beside.children] == [
        side.children[0].component_id for side in beside.children
    ]


def test_forms_count_one_sample_as_one(noisy: Any) -> None:
    imported(noisy)
    assert notes("keep_labels", noisy.dataset, params={"ids": noisy.ids[:1]}) == ["1 sample."]
    assert notes("keep_labels", noisy.dataset, selected=noisy.ids[:1]) == ["1 selected sample."]
    one = noisy.dataset.select(noisy.wrong_ids[:1])
    assert notes("keep_labels", noisy.dataset, view=one) == ["1 flagged sample not yet reviewed in this view."]
    assert notes("keep_labels", noisy.dataset, params={"ids": noisy.ids[:2]}) == ["2 samples."]


@pytest.mark.slow
def test_the_target_chosen_in_the_form_counts_more_than_the_selection(noisy: Any) -> None:
    with_embeddings(noisy)
    params = {"embeddings_field": "embedding", "rounds": 1, "view_target": "DATASET"}
    execute("find_label_issues", None, view=noisy.dataset.limit(40), selected=noisy.ids[:30], params=params)
    assert len(runs.load(noisy.dataset).ids) == 60


@pytest.mark.slow
def test_what_was_asked_for_is_on_record_with_the_run(noisy: Any) -> None:
    with_embeddings(noisy)
    asked = {"rounds": 2, "seed": 7, "epochs": 3, "preset": "paper", "filter_by": "incv", "brain_key": "mine"}
    execute("find_label_issues", noisy.dataset, params={**asked, "embeddings_field": "embedding"})
    settings = noisy.dataset.load_brain_results("mine").config.settings
    expected = {"n_rounds": 2, "seed": 7, "epochs": 3, "preset": "paper", "filter_by": "incv"}
    assert {name: settings[name] for name in expected} == expected
    assert settings["embeddings_field"] == "embedding"
    assert noisy.dataset.get_brain_info("mine").config.label_field == "ground_truth"


@pytest.mark.slow
def test_the_seed_decides_the_result(noisy: Any) -> None:
    with_embeddings(noisy)
    qualities = []
    for key, seed in (("a", 0), ("b", 0), ("c", 1)):
        params = {"embeddings_field": "embedding", "rounds": 1, "seed": seed, "brain_key": key}
        execute("find_label_issues", noisy.dataset, params=params)
        qualities.append(noisy.dataset.values(Fields(key).quality))
    assert qualities[0] == qualities[1] != qualities[2]


@pytest.mark.slow
def test_a_backbones_features_are_trained_on(noisy: Any) -> None:
    params = {"backbone": "torchvision:resnet18", "weights": "none", "rounds": 1, "image_size": 32}
    told = in_the_app("find_label_issues", noisy.dataset, params=params)
    assert [variant for variant, _ in toasts(told)] == ["success"]
    assert runs.load(noisy.dataset).config.settings["backbone"] == "torchvision:resnet18"


def test_an_undo_can_be_about_a_view(noisy: Any) -> None:
    imported(noisy)
    execute("accept_suggestions", noisy.dataset)
    view = noisy.dataset.select(noisy.wrong_ids[:4])
    assert "what" in properties("undo_corrections", noisy.dataset, view=view)
    assert notes("undo_corrections", noisy.dataset) == ["The last action."]
    assert notes("undo_corrections", noisy.dataset, selected=noisy.wrong_ids[:2]) == [
        "The last correction of 2 selected samples."
    ]
    execute("undo_corrections", None, view=view, params={"what": "view"})
    assert {i for i in noisy.wrong_ids if status(noisy)[i] == "unreviewed"} == set(noisy.wrong_ids[:4])
    execute("undo_corrections", noisy.dataset)
    assert set(status(noisy).values()) == {"unreviewed"}


def test_a_mark_that_cannot_be_applied_does_not_keep_back_the_others(noisy: Any) -> None:
    imported(noisy)
    relabelled, other = noisy.wrong_ids[:2]
    noisy.dataset.set_values("ground_truth.label", {relabelled: "spiral"}, key_field="id")
    marks = [{"id": relabelled, "type": "default"}, {"id": other, "type": "alt"}]
    result = execute("apply_marks", noisy.dataset, selected_samples=marks)
    assert result["message"] == "1 label kept. no label was accepted (1 relabelled since the run)."
    assert status(noisy)[other] == "kept"


def test_marks_accept_what_was_clicked_and_keep_what_was_alt_clicked(noisy: Any) -> None:
    imported(noisy)
    marks = [{"id": i, "type": "default"} for i in noisy.wrong_ids[:4]]
    marks += [{"id": i, "type": "alt"} for i in noisy.wrong_ids[4:6]]
    result = execute("apply_marks", noisy.dataset, selected_samples=marks)
    assert result["message"] == "4 labels accepted. 2 labels kept."
    assert [status(noisy)[i] for i in noisy.wrong_ids[:6]] == ["accepted"] * 4 + ["kept"] * 2


def test_twenty_key_presses_review_twenty_samples_worst_first(noisy: Any) -> None:
    results = imported(noisy)
    worst = [i.decode() for i in results.ids[results.issues.worst_first()]]
    here, seen = worst[0], []
    for press in range(len(worst)):
        answer = execute(
            "review_and_move_on", noisy.dataset, current_sample=here, params={"what": "keep" if press % 2 else "accept"}
        )
        seen.append(here)
        here = answer["next"]
    assert seen == worst
    assert here is None
    back = execute("review_and_move_on", noisy.dataset, current_sample=worst[-1], params={"what": "undo"})
    assert back["next"] == worst[-1]
    assert status(noisy)[worst[-1]] == "unreviewed"


def test_the_keys_pass_over_samples_that_were_deleted(noisy: Any) -> None:
    results = imported(noisy)
    worst = [i.decode() for i in results.ids[results.issues.worst_first()]]
    noisy.dataset.delete_samples(worst[1:3])
    noisy.dataset.add_sample(noisy.dataset[worst[5]].copy())  # has the run's fields, and is not part of it
    answer = execute("review_and_move_on", noisy.dataset, current_sample=worst[0], params={"what": "keep"})
    assert answer["next"] == worst[3]
    done = browse.reviews(noisy.dataset, results)
    assert [results.ids[row].decode() for row in browse.queue(results, done)] == worst[3:]


def test_long_runs_are_delegated_by_default(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = context(noisy.dataset)
    operator = FindLabelIssuesOperator()
    assert not operator.resolve_execution_options(ctx).default_choice_to_delegated
    monkeypatch.setattr("cvcoteach.fiftyone.app.operators.LONG_RUN", 10)
    assert operator.resolve_execution_options(ctx).default_choice_to_delegated


def test_a_press_is_about_the_sample_it_names(noisy: Any) -> None:
    """The App may not have told yet that the next sample is open."""
    results = imported(noisy)
    worst = [i.decode() for i in results.ids[results.issues.worst_first()]]
    press = {"what": "accept", "sample_id": worst[1]}
    answer = execute("review_and_move_on", noisy.dataset, current_sample=worst[0], params=press)
    assert [i for i, value in status(noisy).items() if value == "accepted"] == [worst[1]]
    assert answer["next"] == worst[2]


def test_a_key_that_fails_is_told_by_a_toast(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(noisy)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the database is on fire")

    monkeypatch.setitem(DOORS, "keep", broken)
    params = {"what": "keep", "sample_id": noisy.wrong_ids[0]}
    for dataset, why in (
        (noisy.dataset, "RuntimeError: the database is on fire"),
        ("deleted long ago", "'deleted long ago' no longer exists."),
    ):
        ctx = context(dataset, query_performance=True, params=params)
        assert "refused" in operator("review_and_move_on").execute(ctx)
        (toast,) = (it.params for it in ctx.executor._requests if it.operator_uri == "notify")
        assert toast["variant"] == "error"
        assert why in toast["message"]


def test_a_key_undoes_presses_one_by_one_and_never_what_was_done_to_many(noisy: Any) -> None:
    imported(noisy)
    one, two, three, *many = noisy.wrong_ids
    for sample_id in (one, two):
        execute("keep_labels", noisy.dataset, selected=[sample_id])
    execute("accept_suggestions", noisy.dataset, selected=many)
    undo = {"current_sample": three, "params": {"what": "undo"}}
    assert [execute("review_and_move_on", noisy.dataset, **undo)["next"] for _ in range(2)] == [two, one]
    with pytest.raises(Exception, match="no correction of this or another single sample"):
        execute("review_and_move_on", noisy.dataset, **undo)
    assert {i for i, value in status(noisy).items() if value != "unreviewed"} == set(many)


def test_an_undo_of_no_samples_is_not_one_of_the_last_action(noisy: Any) -> None:
    imported(noisy)
    execute("keep_labels", noisy.dataset, selected=noisy.wrong_ids[:2])
    with pytest.raises(Exception, match="no correction to take back"):
        execute("undo_corrections", noisy.dataset, params={"ids": []})
    assert status(noisy)[noisy.wrong_ids[0]] == "kept"


def pressed(noisy: Any, what: str, sample_id: str, **params: Any) -> Any:
    """The answer to a page, and the operations that it is told."""
    ctx = context(
        noisy.dataset,
        query_performance=True,
        current_sample=sample_id,
        params={"what": what, "sample_id": sample_id, **params},
    )
    answer = operator("review_and_move_on").execute(ctx)
    return answer, [request.operator_uri for request in ctx.executor._requests]


def test_a_page_is_told_the_samples_to_come_and_opens_them_itself(noisy: Any) -> None:
    worst = _worst(noisy)
    answer, told = pressed(noisy, "ahead", worst[0])
    assert answer["ahead"] == worst[1:]
    assert answer["reviewed"] == []
    assert told == []
    answer, told = pressed(noisy, "accept", worst[0], opened=True)
    assert answer["ahead"] == worst[1:]
    assert "open_sample" not in told
    answer, told = pressed(noisy, "keep", worst[1])
    assert answer["ahead"] == worst[2:]
    assert "open_sample" in told
    answer, _ = pressed(noisy, "undo", worst[2])
    assert answer["next"] == worst[1]
    assert answer["ahead"] == worst[2:]


@pytest.mark.parametrize("what", ["accept", "keep", "exclude", "undo"])
def test_a_press_that_is_sent_again_is_carried_out_once(noisy: Any, what: str) -> None:
    worst = _worst(noisy)
    if what == "undo":
        pressed(noisy, "keep", worst[0])
    before, press = len(corrections.history(noisy.dataset)), str(ObjectId())
    answers = [pressed(noisy, what, worst[0], press=press, first=what != "undo")[0] for _ in range(3)]
    assert [answer["ids"] for answer in answers] == [[worst[0]]] * 3
    assert len(corrections.history(noisy.dataset)) == before + 1


def test_presses_sent_together_are_each_an_action_of_its_own_and_sent_again_are_carried_out_once(noisy: Any) -> None:
    worst = _worst(noisy)
    corrections.keep_labels(noisy.dataset, [worst[1]], who="somebody else")
    keys = ("accept", "accept", "accept", "keep", "exclude")
    presses = [
        {"what": what, "sample_id": worst[n], "press": str(ObjectId()), "opened": True, "first": True}
        for n, what in enumerate(keys)
    ]
    for _ in range(2):
        ctx = context(noisy.dataset, query_performance=True, current_sample=worst[5], params={"presses": presses})
        answers = operator("review_and_move_on").execute(ctx)["answers"]
        assert [answer.get("ids") for answer in answers] == [[worst[0]], None, [worst[2]], [worst[3]], [worst[4]]]
        assert "somebody else has reviewed" in answers[1]["refused"]
        assert answers[-1]["ahead"] == worst[5:]
        told = [(request.operator_uri, request.params["variant"]) for request in ctx.executor._requests]
        assert told == [("notify", "error"), ("notify", "success")]
        assert ctx.executor._requests[-1].params["message"] == "2 labels accepted. 1 label kept. 1 label excluded."
    found = corrections.history(noisy.dataset)
    assert found["sample_id"].tolist() == [worst[1], worst[0], *worst[2:5]]
    assert found["action_id"].tolist()[1:] == [presses[n]["press"] for n in (0, 2, 3, 4)]
    pressed(noisy, "undo", worst[5])
    assert [status(noisy)[i] for i in worst[:5]] == ["accepted", "kept", "accepted", "kept", "unreviewed"]


def test_a_press_whose_server_was_killed_before_it_wrote_anything_is_carried_out(noisy: Any) -> None:
    worst, press = _worst(noisy), ObjectId()
    audit = audit_of(noisy.dataset, runs.load(noisy.dataset))
    audit.begin("accept", "label_issues", "ground_truth", None, press=press)
    answer, _ = pressed(noisy, "accept", worst[0], press=str(press))
    assert answer["ids"] == [worst[0]]
    assert len(corrections.history(noisy.dataset)) == 1


def test_what_somebody_else_has_reviewed_meanwhile_is_not_overruled_by_a_page_that_does_not_know(noisy: Any) -> None:
    worst = _worst(noisy)
    corrections.keep_labels(noisy.dataset, [worst[0]], who="somebody else")
    answer, told = pressed(noisy, "accept", worst[0], first=True)
    assert "somebody else has reviewed" in answer["refused"]
    assert told == ["notify"]
    assert status(noisy)[worst[0]] == "kept"
    pressed(noisy, "accept", worst[0])
    assert status(noisy)[worst[0]] == "accepted"


def _worst(noisy: Any) -> list[str]:
    results = imported(noisy)
    return [sample_id.decode() for sample_id in results.ids[results.issues.worst_first()]]
