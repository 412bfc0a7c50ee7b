"""A run as FiftyOne's Brain knows it."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import zlib
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store import fields as fo_fields
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import corrections
from cvcoteach.fiftyone.work.imports import import_label_issues
from cvcoteach.issues.from_posterior import posterior_issues

FIELDS = Fields("label_issues")


def imported(noisy: Any, key: str = "label_issues", *, overwrite: bool = False) -> runs.FindLabelIssuesResults:
    issues = posterior_issues(noisy.given, noisy.pred_probs, class_names=("bar", "cross", "ring"))
    return import_label_issues(noisy.dataset, "ground_truth", issues, key, overwrite=overwrite)


def test_a_run_flags_the_wrong_labels_and_suggests_the_true_ones(noisy: Any) -> None:
    imported(noisy)
    flagged = noisy.dataset.match(fo.ViewField(FIELDS.is_issue))
    assert sorted(flagged.values("id")) == sorted(noisy.wrong_ids)
    suggested = noisy.dataset.values(f"{FIELDS.suggested}.label")
    assert suggested == [("bar", "cross", "ring")[k] for k in noisy.true]
    assert set(noisy.dataset.values(FIELDS.review)) == {"unreviewed"}
    quality, wrong = noisy.dataset.values([FIELDS.quality, FIELDS.wrong])
    np.testing.assert_allclose(np.add(quality, wrong), 1)


def test_a_run_does_not_touch_the_labels(noisy: Any) -> None:
    before = noisy.raw_labels()
    imported(noisy)
    assert noisy.raw_labels() == before


@pytest.mark.slow
def test_a_fresh_process_lists_loads_renames_and_deletes_what_was_saved(noisy: Any) -> None:
    schema, labels = set(noisy.dataset.get_field_schema()), noisy.raw_labels()
    results = imported(noisy)
    noisy.dataset.persistent = True
    script = (
        "import fiftyone as fo",  # and nothing of ours: FiftyOne finds the classes by their names
        f"dataset = fo.load_dataset({noisy.dataset.name!r})",
        "print(dataset.list_brain_runs(), dataset.get_brain_info('label_issues').config.method)",
        "results = dataset.load_brain_results('label_issues')",
        "issues = results.issues",
        "print(issues.n_issues, issues.class_names, results.ids[0].decode(), issues.wrong.sum())",
        "print(len(dataset.load_brain_view('label_issues')))",
        "dataset.rename_brain_run('label_issues', 'mine')",
        "print(dataset.load_brain_results('mine').fields.review, dataset.count_values('mine_review'))",
        "dataset.delete_brain_run('mine')",
    )
    said = subprocess.run(
        [sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, env=os.environ, check=True
    )
    issues = results.issues
    assert said.stdout.strip().splitlines()[-4:] == [
        "['label_issues'] cvcoteach.label_issues",
        f"{issues.n_issues} ('bar', 'cross', 'ring') {noisy.ids[0]} {issues.wrong.sum()}",
        "60",
        "mine_review {'unreviewed': 60}",
    ]
    noisy.dataset.reload()
    assert noisy.dataset.list_brain_runs() == []
    assert set(noisy.dataset.get_field_schema()) == schema
    assert noisy.raw_labels() == labels


def test_renaming_a_run_takes_its_fields_along(noisy: Any) -> None:
    before = imported(noisy).issues.label_quality
    noisy.dataset.rename_brain_run("label_issues", "second_look")
    assert runs.keys(noisy.dataset) == ["second_look"]
    schema = noisy.dataset.get_field_schema()
    assert not set(FIELDS) & set(schema)
    assert set(Fields("second_look")) <= set(schema)
    np.testing.assert_array_equal(runs.load(noisy.dataset, "second_look").issues.label_quality, before)
    assert "second_look_quality" in noisy.dataset.list_indexes()


def test_deleting_a_run_leaves_the_dataset_as_it_was(noisy: Any) -> None:
    schema, labels = set(noisy.dataset.get_field_schema()), noisy.raw_labels()
    indexes = noisy.dataset.list_indexes()
    imported(noisy)
    noisy.dataset.delete_brain_run("label_issues")
    assert set(noisy.dataset.get_field_schema()) == schema
    assert noisy.raw_labels() == labels
    assert noisy.dataset.list_brain_runs() == []
    assert noisy.dataset.list_indexes() == indexes
    raw = noisy.dataset._sample_collection.find_one()
    assert not any(name.startswith("label_issues") for name in raw)
    assert "label_issues" not in [group.name for group in noisy.dataset.app_config.sidebar_groups]


def test_two_runs_live_side_by_side_the_newest_first(noisy: Any) -> None:
    imported(noisy, "first")
    imported(noisy, "second")
    assert runs.keys(noisy.dataset) == ["second", "first"]
    assert runs.load(noisy.dataset).key == "second"


def test_a_second_run_with_the_same_key_is_refused_unless_allowed(noisy: Any) -> None:
    imported(noisy)
    with pytest.raises(InputError, match="there is already a run 'label_issues'"):
        imported(noisy)
    runs.check_key(noisy.dataset, "label_issues", overwrite=True)


@pytest.mark.parametrize("key", ["", "two words", "1st", "_key", None])
def test_a_key_that_is_no_name_is_refused(noisy: Any, key: Any) -> None:
    with pytest.raises(InputError, match="brain key is"):
        runs.check_key(noisy.dataset, key)


def test_a_key_whose_fields_are_taken_is_refused(noisy: Any) -> None:
    noisy.dataset.add_sample_field("mine_review", fo.StringField)
    with pytest.raises(InputError, match="has a field 'mine_review' that belongs to no run"):
        runs.check_key(noisy.dataset, "mine")


def test_a_stale_run_says_what_is_gone(noisy: Any) -> None:
    imported(noisy)
    noisy.dataset.delete_sample_field(FIELDS.review)
    with pytest.raises(InputError, match="stale: the field 'label_issues_review' is gone"):
        runs.load(noisy.dataset)


def test_a_run_that_never_finished_says_so(noisy: Any) -> None:
    config = runs.FindLabelIssuesConfig("ground_truth")
    config.build().register_run(noisy.dataset, "killed", cleanup=False)
    with pytest.raises(InputError, match="'killed' did not finish"):
        runs.load(noisy.dataset, "killed")


def test_there_is_nothing_to_load_before_a_run(noisy: Any) -> None:
    with pytest.raises(InputError, match="have not been checked yet: find label issues first"):
        runs.load(noisy.dataset)


@pytest.mark.parametrize("moment", ["declare", "write"])
def test_a_run_killed_while_it_is_saved_is_replaced_by_the_same_call(
    noisy: Any, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs.fo_fields, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            imported(noisy)
    assert noisy.dataset.list_brain_runs() == ["label_issues"]
    imported(noisy)
    assert runs.load(noisy.dataset).issues.n_issues == 12
    assert set(noisy.dataset.values(FIELDS.review)) == {"unreviewed"}


def test_a_run_is_not_replaced_by_one_of_another_label_field(noisy: Any) -> None:
    imported(noisy)
    noisy.dataset.clone_sample_field("ground_truth", "second_opinion")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="'label_issues' is about ground_truth, not second_opinion"):
            runs.check_key(noisy.dataset, "label_issues", "second_opinion", overwrite=overwrite)
    runs.check_key(noisy.dataset, "other", "second_opinion")


def test_replacing_a_run_says_how_many_reviews_it_ends(noisy: Any) -> None:
    assert imported(noisy).info["notes"] == []
    corrections.keep_labels(noisy.dataset, noisy.wrong_ids[:3])
    end = (
        "Replacing the run 'label_issues' discards 3 reviews: "
        "corrected labels stay, and so does their record, but they can no longer be undone."
    )
    with pytest.raises(InputError, match=re.escape("allow it to be replaced. " + end)):
        imported(noisy)
    assert imported(noisy, overwrite=True).info["notes"] == [end]
    assert len(corrections.history(noisy.dataset)) == 3
    assert imported(noisy, overwrite=True).info["notes"] == []  # nothing is reviewed any more


def test_a_rename_to_names_that_are_taken_changes_no_field(noisy: Any) -> None:
    imported(noisy)
    noisy.dataset.add_sample_field("mine_review", fo.StringField)
    noisy.dataset.set_values("mine_review", ["dear"] * 60)
    schema = set(noisy.dataset.get_field_schema())
    with pytest.raises(InputError, match="already has a field 'mine_review', so the fields of 'label_issues' keep"):
        fo_fields.rename(noisy.dataset, FIELDS, Fields("mine"))
    noisy.dataset.rename_brain_run("label_issues", "mine")  # FiftyOne puts the refusal into its log
    assert set(noisy.dataset.get_field_schema()) == schema
    noisy.dataset.rename_brain_run("mine", "label_issues")
    assert runs.load(noisy.dataset, "label_issues").issues.n_issues == 12
    noisy.dataset.rename_brain_run("label_issues", "mine")
    noisy.dataset.delete_brain_run("mine")
    assert set(noisy.dataset.values("mine_review")) == {"dear"}


def test_a_run_renamed_in_vain_is_not_replaced_over_a_field_of_somebody_elses(noisy: Any) -> None:
    imported(noisy)
    noisy.dataset.add_sample_field("mine_review", fo.StringField, description="My own")
    noisy.dataset.rename_brain_run("label_issues", "mine")
    with pytest.raises(InputError, match="has a field 'mine_review' that belongs to no run"):
        imported(noisy, "mine", overwrite=True)


def test_saved_runs_name_classes_in_a_module_that_stays(noisy: Any) -> None:
    imported(noisy)
    config = noisy.dataset._doc.brain_methods["label_issues"].config
    assert config["cls"] == "cvcoteach.fiftyone.runs.FindLabelIssuesConfig"


@pytest.mark.parametrize("module", ["cvcoteach.fiftyone.runs", "cvcoteach.fiftyone.store.runs"])
def test_a_run_saved_when_the_code_lay_elsewhere_loads_renames_and_deletes(
    noisy: Any, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    schema = set(noisy.dataset.get_field_schema())
    with monkeypatch.context() as patched:
        patched.setattr(runs, "_SAVED_MODULE", module)
        imported(noisy)
    noisy.dataset._brain_cache.clear()
    noisy.dataset.reload()
    assert noisy.dataset._doc.brain_methods["label_issues"].config["cls"] == f"{module}.FindLabelIssuesConfig"
    assert runs.load(noisy.dataset).issues.n_issues == 12
    noisy.dataset.rename_brain_run("label_issues", "mine")
    assert runs.load(noisy.dataset, "mine").fields.review in noisy.dataset.get_field_schema()
    noisy.dataset.delete_brain_run("mine")
    assert set(noisy.dataset.get_field_schema()) == schema


def test_a_dataset_that_was_let_go_of_finds_its_run_unpacked(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the App's server, which holds no dataset from one request to the next."""
    imported(noisy)
    noisy.dataset._brain_cache.clear()
    first = runs.load(noisy.dataset)
    noisy.dataset._brain_cache.clear()
    monkeypatch.setattr(runs.FindLabelIssuesResults, "_from_dict", None)  # nothing is unpacked again
    again = runs.load(noisy.dataset)
    assert again is not first
    assert again.issues is first.issues
    assert again.info == first.info
    monkeypatch.undo()
    again.info["retrained"] = "better"
    again.save()
    noisy.dataset._brain_cache.clear()
    assert runs.load(noisy.dataset).info["retrained"] == "better"
    assert len(runs._unpacked) <= runs._MOST_UNPACKED


@pytest.mark.parametrize(
    "content", [zlib.compress(bytes(2**28)), zlib.compress(bytes(24)), zlib.compress(bytes(50)), b"no such thing", b""]
)
def test_ids_of_another_number_are_refused_and_not_unpacked_beyond_it(content: bytes) -> None:
    with pytest.raises(InputError, match="the run 'label_issues' is damaged in the database"):
        runs._unpacked_ids(base64.b64encode(content).decode(), 2, "label_issues")


def test_ids_come_back_as_they_were_packed() -> None:
    ids = np.array([b"a" * 24, b"b" * 24])
    packed = base64.b64encode(zlib.compress(ids.tobytes())).decode()
    np.testing.assert_array_equal(runs._unpacked_ids(packed, 2, "label_issues"), ids)
