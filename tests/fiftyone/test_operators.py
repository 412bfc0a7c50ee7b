"""Every operator from Python, through FiftyOne's own door, and what its form says to input that does not fit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionContext, ExecutionError
from fiftyone.operators.registry import OperatorRegistry

from cvcoteach.fiftyone import install, runs
from cvcoteach.fiftyone.fields import Fields
from cvcoteach.fiftyone.operators import OPERATORS, PANEL, PLUGIN, FindLabelIssuesOperator
from tests.fiftyone.test_runs import imported

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


@pytest.fixture(scope="module", autouse=True)
def plugin() -> None:
    install.install(Path(fo.config.plugins_dir))


def execute(name: str, dataset: Any, **options: Any) -> Any:
    return foo.execute_operator(f"{PLUGIN}/{name}", dataset=dataset, **options).result


def form(name: str, dataset: Any, **request: Any) -> dict[str, str]:
    """The sentences with which an operator's form refuses its input, by property."""
    operator = foo.get_operator(f"{PLUGIN}/{name}")
    view = request.pop("view", None)
    stages = view._serialize() if view is not None else None
    ctx = ExecutionContext({"dataset_name": dataset.name, "view": stages, "params": {}, **request})
    properties = operator.resolve_input(ctx).type.properties
    return {key: prop.error_message for key, prop in properties.items() if prop.invalid}


def status(noisy: Any) -> dict[str, str]:
    return dict(zip(*noisy.dataset.values(["id", FIELDS.review]), strict=True))


def test_the_plugin_registers_everything_without_an_error() -> None:
    registry = OperatorRegistry()
    assert registry.list_errors() == []
    for name in [operator().name for operator in OPERATORS] + [PANEL]:
        assert foo.operator_exists(f"{PLUGIN}/{name}"), name


def test_importing_the_operators_loads_no_torch() -> None:
    import subprocess
    import sys

    script = "import sys, cvcoteach.fiftyone.operators, cvcoteach.fiftyone.panel; print('torch' in sys.modules)"
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


def test_export_into_class_folders_is_exactly_the_corrected_labels(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    execute("exclude_samples", noisy.dataset, selected=noisy.wrong_ids[:1])
    execute("accept_suggestions", noisy.dataset, selected=noisy.wrong_ids[1:])
    result = execute("export_corrected", noisy.dataset, params={"kind": "imagefolder", "to": str(tmp_path / "out")})
    assert result["n"] == 59
    gone = noisy.ids.index(noisy.wrong_ids[0])
    expected = {f"{CLASSES[k]}/{i:05d}.png" for i, k in enumerate(noisy.true) if i != gone}
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")} == expected


def test_export_as_csv_has_given_and_corrected_labels_and_the_record(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    execute("accept_suggestions", noisy.dataset, selected=noisy.wrong_ids)
    execute("export_corrected", noisy.dataset, params={"kind": "csv", "to": str(tmp_path / "out.csv")})
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [CLASSES[k] for k in noisy.true]
    assert [row["given_label"] for row in rows] == [CLASSES[k] for k in noisy.given]
    with open(tmp_path / "out.corrections.csv", newline="") as file:
        assert {row["sample_id"] for row in csv.DictReader(file)} == set(noisy.wrong_ids)


def test_export_as_a_dataset_carries_labels_and_leaves_the_runs_fields(noisy: Any) -> None:
    imported(noisy)
    execute("accept_suggestions", noisy.dataset, selected=noisy.wrong_ids)
    execute("export_corrected", noisy.dataset, params={"kind": "dataset", "to": "corrected"})
    made = fo.load_dataset("corrected")
    assert made.values("ground_truth.label") == [CLASSES[k] for k in noisy.true]
    assert not set(FIELDS) & set(made.get_field_schema())
    made.delete()


def test_import_of_what_cleanlab_returned(noisy: Any) -> None:
    from cleanlab.filter import find_label_issues

    ranked = find_label_issues(
        noisy.given, noisy.pred_probs, return_indices_ranked_by="self_confidence", filter_by="low_self_confidence"
    )
    execute("import_label_issues", noisy.dataset, params={"found": ranked, "pred_probs": noisy.pred_probs})
    flagged = noisy.dataset.match(fo.ViewField(FIELDS.is_issue)).values("id")
    assert sorted(flagged) == sorted(noisy.ids[i] for i in ranked)
    assert runs.load(noisy.dataset).config.source == "cleanlab"


def test_import_of_datalabs_frame(noisy: Any) -> None:
    import pandas as pd

    wrong = noisy.true != noisy.given
    frame = pd.DataFrame(
        {
            "is_label_issue": wrong,
            "label_score": np.where(wrong, 0.1, 0.9),
            "given_label": [CLASSES[k] for k in noisy.given],
            "predicted_label": [CLASSES[k] for k in noisy.true],
        }
    )
    execute("import_label_issues", noisy.dataset, params={"found": frame, "brain_key": "datalab"})
    assert noisy.dataset.values("datalab_suggested.label") == [CLASSES[k] for k in noisy.true]
    np.testing.assert_allclose(noisy.dataset.values("datalab_quality"), np.where(wrong, 0.1, 0.9))


# -- input that does not fit --


def test_a_good_form_refuses_nothing(noisy: Any) -> None:
    assert form("find_label_issues", noisy.dataset) == {}


def test_an_empty_view_is_refused(noisy: Any) -> None:
    view = noisy.dataset.match(fo.ViewField("ground_truth.label") == "nothing")
    assert "the view is empty" in form("find_label_issues", noisy.dataset, view=view)["problem"]


def test_one_class_is_refused(noisy: Any) -> None:
    view = noisy.dataset.match(fo.ViewField("ground_truth.label") == "ring")
    assert "one class only (ring)" in form("find_label_issues", noisy.dataset, view=view)["problem"]


def test_boxes_are_out_of_scope_and_the_form_says_so(noisy: Any) -> None:
    noisy.dataset.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    said = form("find_label_issues", noisy.dataset, params={"label_field": "boxes"})["problem"]
    assert "boxes holds Detections; only labels of whole images (Classification) are checked" in said


def test_a_field_of_another_kind_is_refused_in_a_sentence(noisy: Any) -> None:
    with pytest.raises(ExecutionError, match="filepath holds String; it takes a Classification"):
        execute("find_label_issues", noisy.dataset, params={"label_field": "filepath"})


def test_a_key_in_use_is_refused_until_replacing_is_allowed(noisy: Any) -> None:
    imported(noisy)
    assert "there is a run 'label_issues' already" in form("find_label_issues", noisy.dataset)["problem"]
    assert form("find_label_issues", noisy.dataset, params={"overwrite": True}) == {}
    with pytest.raises(ExecutionError, match="there is a run 'label_issues' already"):
        execute("find_label_issues", noisy.dataset)


def test_corrections_before_a_run_are_refused(noisy: Any) -> None:
    for name in ("accept_suggestions", "keep_labels", "undo_corrections", "export_corrected", "retrain_coteaching"):
        assert "no run of find_label_issues yet" in form(name, noisy.dataset)["problem"], name


def test_a_stale_run_is_refused(noisy: Any) -> None:
    imported(noisy)
    noisy.dataset.delete_sample_field(FIELDS.quality)
    assert "is stale" in form("accept_suggestions", noisy.dataset)["problem"]


def test_an_export_does_not_overwrite(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(ExecutionError, match="is there already"):
        execute("export_corrected", noisy.dataset, params={"kind": "csv", "to": str(tmp_path / "out.csv")})
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_a_deleted_dataset_is_an_error_not_a_frozen_bar() -> None:
    with pytest.raises(Exception, match=r"not found|gone"):
        foo.execute_operator(f"{PLUGIN}/find_label_issues", dataset="deleted long ago")


def test_long_runs_are_delegated_by_default(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = ExecutionContext({"dataset_name": noisy.dataset.name, "params": {}})
    operator = FindLabelIssuesOperator()
    assert not operator.resolve_execution_options(ctx).default_choice_to_delegated
    monkeypatch.setattr("cvcoteach.fiftyone.operators.LONG_RUN", 10)
    assert operator.resolve_execution_options(ctx).default_choice_to_delegated


def test_a_press_is_about_the_sample_it_names(noisy: Any) -> None:
    """The App may not have told yet that the next sample is open."""
    results = imported(noisy)
    worst = [i.decode() for i in results.ids[results.issues.worst_first()]]
    press = {"what": "accept", "sample_id": worst[1]}
    answer = execute("review_and_move_on", noisy.dataset, current_sample=worst[0], params=press)
    assert [i for i, value in status(noisy).items() if value == "accepted"] == [worst[1]]
    assert answer["next"] == worst[2]
