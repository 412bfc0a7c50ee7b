"""What becomes of a run when its dataset lives on: fields and keys renamed, clones, deletions, exports and imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import browse, corrections
from cvcoteach.fiftyone.work.edits import catch_up
from cvcoteach.fiftyone.work.staleness import changes_since
from tests.fiftyone.calls import status

FIELDS = Fields("label_issues")


@pytest.fixture
def reviewed(run: Any) -> Any:
    """A run of which three suggestions are accepted, one label is set and one is kept."""
    corrections.accept_suggestions(run.dataset, run.wrong_ids[:3])
    corrections.set_label(run.dataset, run.wrong_ids[3:4], "spiral")
    corrections.keep_labels(run.dataset, run.wrong_ids[4:5])
    return run


@pytest.fixture
def others() -> Iterator[list[Any]]:
    """Datasets that a test makes beside the first; deleted at its end."""
    made: list[Any] = []
    yield made
    for dataset in made:
        dataset.delete()


def statuses(dataset: Any) -> dict[str, int]:
    return dict(dataset.count_values(FIELDS.review))


def test_a_renamed_label_field_is_followed_on_demand_and_nothing_is_lost(reviewed: Any) -> None:
    dataset = reviewed.dataset
    dataset.rename_sample_field("ground_truth", "label")
    with pytest.raises(
        runs.RenamedFieldError, match="about the field 'ground_truth', which is gone; 'label' holds its"
    ):
        runs.load(dataset)
    with pytest.raises(InputError, match="'nothing' does not hold the labels"):
        runs.follow_label_field(dataset, "label_issues", "nothing")
    runs.follow_label_field(dataset, "label_issues", "label")
    fresh = runs.load(fo.load_dataset(dataset.name))
    assert fresh.config.label_field == "label"
    assert browse.reviews(dataset, fresh).counts["accepted"] == 3
    for _ in range(3):
        corrections.undo_corrections(dataset)
    assert statuses(dataset) == {"unreviewed": 60}
    assert sorted(dataset.count_values("label.label")) == ["bar", "cross", "ring"]
    with pytest.raises(InputError, match="has its label field; there is nothing to follow"):
        runs.follow_label_field(dataset, "label_issues", "label")


def test_a_label_field_that_is_really_gone_is_not_taken_for_renamed(reviewed: Any) -> None:
    dataset = reviewed.dataset
    dataset.add_sample_field("other", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    dataset.set_values("other", [fo.Classification(label="ring") for _ in range(60)])
    dataset.delete_sample_field("ground_truth")
    with pytest.raises(InputError, match="'ground_truth' is gone, and no other holds its labels"):
        runs.load(dataset)


def test_a_field_of_the_run_that_was_renamed_can_be_given_its_name_back(reviewed: Any) -> None:
    dataset = reviewed.dataset
    dataset.rename_sample_field(FIELDS.review, "mine")
    with pytest.raises(InputError, match=r"'label_issues_review' is gone\. If it was renamed, give it its name back"):
        runs.load(dataset)
    dataset.rename_sample_field("mine", FIELDS.review)
    assert browse.reviews(dataset, runs.load(dataset)).counts["accepted"] == 3


def test_a_renamed_key_keeps_reviews_record_and_undo(reviewed: Any) -> None:
    before = len(corrections.history(reviewed.dataset))
    reviewed.dataset.rename_brain_run("label_issues", "second_look")
    results = runs.load(reviewed.dataset)
    assert browse.reviews(reviewed.dataset, results).counts["accepted"] == 3
    corrections.undo_corrections(reviewed.dataset)
    assert len(corrections.history(reviewed.dataset, "second_look")) == before + 1


def test_a_clone_goes_on_with_reviews_of_its_own(reviewed: Any, others: list[Any]) -> None:
    original, clone = reviewed.dataset, reviewed.dataset.clone()
    others.append(clone)
    results = runs.load(clone)
    catch_up(clone, results)
    assert changes_since(clone, results) == []
    assert statuses(clone) == statuses(original)
    assert len(corrections.history(clone)) == 0
    with pytest.raises(InputError, match="made in the dataset that this one was cloned or imported from"):
        corrections.undo_corrections(clone)
    corrections.accept_suggestions(clone, reviewed.wrong_ids[5:7])
    assert corrections.undo_corrections(clone).message == "2 corrections taken back."
    corrections.undo_corrections(original)  # the original's own
    assert status(reviewed)[reviewed.wrong_ids[4]] == "unreviewed"
    assert statuses(clone)["kept"] == 1
    clone.add_sample(fo.Sample(filepath="new.png"))
    assert changes_since(clone, results) == ["Since the run, 1 sample was added and not checked."]


def test_deleted_samples_leave_queue_figures_and_undo_in_order(reviewed: Any) -> None:
    dataset, gone = reviewed.dataset, [reviewed.wrong_ids[0], reviewed.wrong_ids[5]]
    dataset.delete_samples(gone)
    results = runs.load(dataset)
    done = browse.reviews(dataset, results)
    assert len(browse.left(results, done)) == done.left(results).sum() == 12 - 5 - 1
    assert changes_since(dataset, results) == ["Since the run, 2 samples were removed."]
    with pytest.raises(InputError, match="none of the 1 samples is part of the run"):
        corrections.keep_labels(dataset, gone[1:])
    corrections.undo_corrections(dataset)
    corrections.undo_corrections(dataset)
    assert corrections.undo_corrections(dataset).left_alone == {"deleted in the meantime": 1}


def test_a_sample_in_the_place_of_a_deleted_one_hides_neither(reviewed: Any, others: list[Any]) -> None:
    dataset = reviewed.dataset
    dataset.delete_samples([reviewed.wrong_ids[5]])
    dataset.add_sample(fo.Sample(filepath="new.png"))  # as many as before
    said = ["Since the run, 1 sample was added and not checked.", "Since the run, 1 sample was removed."]
    assert changes_since(dataset, runs.load(dataset)) == said
    clone = dataset.clone()
    others.append(clone)
    assert said[1] in changes_since(clone, runs.load(clone))


def test_an_export_is_imported_with_run_and_reviews(reviewed: Any, others: list[Any], tmp_path: Path) -> None:
    reviewed.dataset.export(export_dir=str(tmp_path / "out"), dataset_type=fo.types.FiftyOneDataset, progress=False)
    there = fo.Dataset.from_dir(str(tmp_path / "out"), fo.types.FiftyOneDataset, progress=False)
    others.append(there)
    results = runs.load(there)
    catch_up(there, results)
    assert statuses(there) == statuses(reviewed.dataset)
    assert changes_since(there, results) == []
    assert len(corrections.history(there)) == 0
    corrections.accept_suggestions(there, reviewed.wrong_ids[5:7])
    assert corrections.undo_corrections(there).message == "2 corrections taken back."
    with pytest.raises(InputError, match="cloned or imported from"):
        corrections.undo_corrections(there)


@pytest.mark.slow
def test_where_cvcoteach_is_missing_an_import_without_runs_is_whole(reviewed: Any, tmp_path: Path) -> None:
    """FiftyOne imports no run of classes that it cannot find; without runs, labels and fields are all there."""
    reviewed.dataset.export(export_dir=str(tmp_path / "out"), dataset_type=fo.types.FiftyOneDataset, progress=False)
    script = (
        "import sys",
        "sys.modules['cvcoteach'] = None",  # as if it were not installed
        "import fiftyone as fo",
        "def there(**options):",
        f"    place = {str(tmp_path / 'out')!r}",
        "    return fo.Dataset.from_dir(place, fo.types.FiftyOneDataset, progress=False, **options)",
        "try:",
        "    there()",
        "except NotImplementedError as error:",
        "    print('refused:', error)",
        "dataset = there(import_runs=False)",
        "print(len(dataset), dataset.list_brain_runs(), dataset.count_values('label_issues_review')['accepted'])",
        "print(dataset.count_values('ground_truth.label')['spiral'])",
    )
    said = subprocess.run([sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, env=os.environ)
    assert said.returncode == 0, said.stderr
    lines = [line for line in said.stdout.splitlines() if line and not line.startswith("Importing")]
    assert lines[-3:] == [
        "refused: subclass must implement _from_dict()",
        "60 [] 3",
        "1",
    ]
