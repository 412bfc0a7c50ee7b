"""Datalab's issue type "incv": columns, report, summary, info, file; and what is refused aloud."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("datasets", reason="Datalab needs cleanlab[datalab]")

from cleanlab import Datalab

from cvcoteach._validation import InputError
from cvcoteach.cleanlab import datalab  # registers
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.pipeline.in_memory import label_issues

from ..issues.test_label_issues import noisy_data
from .test_filter import NearestMean, blobs

# cleanlab 2.9's own label issues under pandas 3.1
cleanlab_renames_in_place = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.rename")

NAMES = np.array(["ant", "bee", "cow", "dog"])


@pytest.fixture(scope="module")
def data():
    return noisy_data()


def lab_of(given: np.ndarray) -> Datalab:
    return Datalab({"label": NAMES[given]}, label_name="label", verbosity=0)


@pytest.fixture(scope="module")
def lab(data):
    given, probs, _ = data
    lab = lab_of(given)
    lab.find_issues(issue_types={"incv": {"pred_probs": probs}})
    return lab


def test_the_columns_are_there_and_say_what_label_issues_says(lab, data):
    given, probs, _ = data
    issues = posterior_issues(given, probs, class_names=NAMES.tolist())
    frame = lab.get_issues("incv")
    assert frame.columns.tolist() == ["is_incv_issue", "incv_score", "incv_suggestion"]
    assert np.array_equal(frame["is_incv_issue"], issues.is_label_issue)
    assert np.array_equal(frame["incv_score"], issues.label_quality)
    assert frame["incv_suggestion"].tolist() == NAMES[issues.suggested].tolist()


@cleanlab_renames_in_place
def test_the_label_issue_type_is_left_alone(data):
    given, probs, _ = data
    lab = lab_of(given)
    lab.find_issues(issue_types={"incv": {"pred_probs": probs}, "label": {"pred_probs": probs}})
    assert lab.get_issues("label").columns.tolist() == [
        "is_label_issue",
        "label_score",
        "given_label",
        "predicted_label",
    ]
    assert "is_incv_issue" in lab.get_issues()


def test_the_summary_counts_the_issues_and_scores_the_labels(lab):
    row = lab.get_issue_summary("incv").iloc[0]
    assert row["num_issues"] == lab.get_issues("incv")["is_incv_issue"].sum()
    assert row["score"] == pytest.approx(lab.get_issues("incv")["incv_score"].mean())


def test_the_info_is_json(lab):
    info = lab.get_info("incv")
    assert json.loads(json.dumps(info)) == info
    assert info["num_issues"] == lab.get_issues("incv")["is_incv_issue"].sum()
    assert list(info["noise_ratio_per_class"]) == NAMES.tolist()
    assert {"given", "suggested", "count"} <= info["confusions"][0].keys()


@pytest.mark.parametrize("verbosity", range(5))
def test_the_report_names_the_worst(lab, capsys, verbosity):
    lab.report(verbosity=verbosity, num_examples=3)
    text = capsys.readouterr().out
    worst = lab.get_issues("incv")["incv_score"].nsmallest(3).index
    assert "incv issues" in text
    assert all(str(index) in text for index in worst)
    assert ("noise_ratio:" in text) == (verbosity >= 1)
    assert ("transition:" in text) == (verbosity == 4)


@pytest.mark.slow
def test_a_saved_lab_reports_in_a_new_process(lab, tmp_path):
    lab.save(str(tmp_path / "lab"), force=True)
    code = f"""
import cvcoteach.cleanlab.datalab
from cleanlab import Datalab
lab = Datalab.load({str(tmp_path / "lab")!r})
lab.report(verbosity=3)
print(lab.get_issues("incv")["is_incv_issue"].sum())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "incv issues" in done.stdout
    assert done.stdout.split()[-1] == str(lab.get_issues("incv")["is_incv_issue"].sum())


def test_a_trainer_is_run_by_incv():
    x, given, true = blobs()
    lab = lab_of(given)
    trainer = NearestMean(x, 4)
    lab.find_issues(issue_types={"incv": {"trainer": trainer, "filter_by": "incv", "n_rounds": 2, "progress": False}})
    assert trainer.calls == 4
    assert lab.get_info("incv")["filter_by"] == "incv"
    assert (lab.get_issues("incv")["is_incv_issue"] == (given != true)).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "issue type incv got no pred_probs, images, features or trainer"),
        ({"pred_prob": 1}, "issue type incv got 'pred_prob'; did you mean pred_probs"),
        ({"features": np.zeros((3, 2))}, "labels has 600 rows, but features has 3"),
        ({"pred_probs": np.full((600, 3), 1 / 3)}, "pred_probs has shape"),
        ({"pred_probs": np.full((600, 4), 1.0)}, "sums to 4"),
        ({"pred_probs": np.full((600, 4), 0.25), "features": np.zeros((600, 2))}, "pred_probs and features are given"),
        ({"pred_probs": np.full((600, 4), 0.25), "filter_by": "both"}, "filter_by is 'both'"),
    ],
)
def test_what_does_not_fit_is_raised_not_swallowed(data, options, sentence):
    given, _, _ = data
    with pytest.raises(InputError, match=sentence):
        lab_of(given).find_issues(issue_types={"incv": options})


def test_a_class_without_images_is_judged_where_a_class_label_names_it():
    from datasets import ClassLabel, Dataset, Features

    # cleanlab 2.9's own label check over a dict fails here, with a printed line and no column
    given, probs, _ = noisy_data()
    rows = given < 3
    with pytest.raises(InputError, match="pred_probs has 4 columns, but Datalab knows 3 classes"):
        lab_of(given[rows]).find_issues(issue_types={"incv": {"pred_probs": probs[rows]}})
    named = Dataset.from_dict(
        {"label": given[rows].tolist()}, features=Features({"label": ClassLabel(names=NAMES.tolist())})
    )
    lab = Datalab(named, label_name="label", verbosity=0)
    lab.find_issues(issue_types={"incv": {"pred_probs": probs[rows]}})
    issues = label_issues(given[rows], probs[rows], class_names=NAMES.tolist())
    assert issues.is_label_issue.any()
    assert np.array_equal(lab.get_issues("incv")["is_incv_issue"], issues.is_label_issue)


def test_a_lab_without_labels_is_refused():
    lab = Datalab({"x": [1, 2, 3]}, verbosity=0)
    with pytest.raises(InputError, match="issue type incv needs labels"):
        lab.find_issues(issue_types={"incv": {"pred_probs": np.full((3, 2), 0.5)}})


@cleanlab_renames_in_place
def test_without_issue_types_datalab_runs_as_ever(data):
    given, probs, _ = data
    lab = lab_of(given)
    lab.find_issues(pred_probs=probs, issue_types={"label": {}})
    assert "is_incv_issue" not in lab.get_issues().columns
    assert datalab.INCVIssueManager.issue_name == "incv"


def test_groups_reach_the_folds_and_are_checked_aloud(data):
    given, probs, _ = data
    x, groups = probs.astype(np.float32), np.arange(len(given)) // 4
    lab = lab_of(given)
    lab.find_issues(issue_types={"incv": {"features": x, "groups": groups, "progress": False}})
    expected = label_issues(given, features=x, groups=groups, progress=False)
    assert np.array_equal(lab.get_issues("incv")["incv_score"], expected.label_quality)
    with pytest.raises(InputError, match="groups has 3 rows"):
        lab_of(given).find_issues(issue_types={"incv": {"features": x, "groups": [1, 2, 3]}})
    with pytest.raises(InputError, match="groups with pred_probs"):
        lab_of(given).find_issues(issue_types={"incv": {"pred_probs": probs, "groups": groups}})
