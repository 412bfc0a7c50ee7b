"""What others found, as a run: run folders of `cvcoteach find-issues`, cleanlab's answers, Datalab."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import corrections
from cvcoteach.fiftyone.work.imports import import_label_issues
from cvcoteach.issues.corrections import Judged, correct
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.pipeline import find_issues as pipeline
from cvcoteach.pipeline.settings import Settings
from tests import images
from tests.fiftyone.calls import execute
from tests.fiftyone.work.test_find import with_embeddings

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


def flagged(noisy: Any, key: str = "label_issues") -> set[str]:
    return set(noisy.dataset.match(fo.ViewField(Fields(key).is_issue)).values("id"))


def test_a_view_is_checked_alone(noisy: Any) -> None:
    view = noisy.dataset.select(noisy.ids[:30])
    issues = posterior_issues(noisy.given[:30], noisy.pred_probs[:30], class_names=CLASSES)
    results = import_label_issues(view, "ground_truth", issues)
    assert len(results.ids) == 30
    assert noisy.dataset.values(FIELDS.review) == ["unreviewed"] * 30 + [None] * 30
    assert noisy.dataset.load_brain_view("label_issues").values("id") == noisy.ids[:30]


@pytest.mark.slow
def test_a_run_folder_is_matched_by_path(noisy: Any, tmp_path: Path) -> None:
    table = tmp_path / "images.csv"
    lines = ["path,label", *(f"{i:05d}.png,{CLASSES[k]}" for i, k in enumerate(noisy.given))]
    table.write_text("\n".join(lines[:51]) + "\n")
    with_embeddings(noisy)
    features = tmp_path / "features.npy"
    np.save(features, np.array(noisy.dataset.values("embedding"), np.float32)[:50])
    outcome = pipeline.find_issues(table, tmp_path / "run", Settings(features=features, n_rounds=2))
    results = import_label_issues(noisy.dataset, "ground_truth", str(outcome.folder))
    assert [sample_id.decode() for sample_id in results.ids] == noisy.ids[:50]
    table_ = outcome.table()
    flagged = {path for path, flag in zip(table_["path"], table_["is_label_issue"], strict=True) if flag}
    ours = noisy.dataset.match(fo.ViewField(FIELDS.is_issue)).values("filepath")
    assert {Path(path).name for path in ours} == flagged
    assert results.info["notes"] == ["10 samples not in run were left out."]
    table_ = table_.set_index("path").loc[[f"{i:05d}.png" for i in range(50)]]
    np.testing.assert_allclose(results.issues.label_quality, table_["label_quality"])
    assert (results.issues.suggested == outcome.issues().suggested).all()
    assert (results.issues.suggested != results.issues.labels)[results.issues.is_label_issue].all()


def test_a_folder_without_a_run_is_refused(noisy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run of cvcoteach"):
        import_label_issues(noisy.dataset, "ground_truth", str(tmp_path))


def test_an_unfinished_run_is_refused(noisy: Any, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 1, "state": "running", "identity": {}}')
    with pytest.raises(InputError, match="holds an unfinished run"):
        import_label_issues(noisy.dataset, "ground_truth", str(tmp_path))


@pytest.mark.slow
def test_corrections_of_an_imported_run_are_honoured_by_retrain(tmp_path: Path) -> None:
    """A folder -> `find-issues` -> FiftyOne -> corrections -> their CSV -> `retrain --corrections`."""
    images.class_folders(tmp_path / "photos", n=90, wrong=0.1)
    outcome = pipeline.find_issues(tmp_path / "photos", tmp_path / "run", Settings(n_rounds=1, epochs=2))
    dataset = fo.Dataset.from_dir(str(tmp_path / "photos"), fo.types.ImageClassificationDirectoryTree)
    execute("import_label_issues", dataset, params={"folder": str(tmp_path / "run")})
    results = runs.load(dataset)
    accepted, kept, set_, excluded, undone = (
        i.decode() for i in results.ids[results.issues.worst_first(flagged_only=False)[:5]]
    )
    corrections.set_label(dataset, [accepted], "ring")
    corrections.keep_labels(dataset, [kept])
    corrections.set_label(dataset, [set_], "bar")
    corrections.set_label(dataset, [set_], "cross")
    corrections.exclude_samples(dataset, [excluded])
    corrections.exclude_samples(dataset, [undone])
    corrections.undo_corrections(dataset)
    execute("export_corrected", dataset, params={"kind": "csv", "to": str(tmp_path / "out.csv")})

    command = ["retrain", str(outcome.folder), "-o", str(tmp_path / "model"), "--epochs", "1", "--json", "-q"]
    command += ["--corrections", str(tmp_path / "out.corrections.csv"), "--threads", "1"]
    ran = subprocess.run([sys.executable, "-m", "cvcoteach", *command], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["reviewed"] == 3
    with np.load(outcome.folder / "probabilities.npz") as arrays:
        paths, labels = arrays["paths"].tolist(), arrays["labels"].astype(np.int64)
        judged = Judged(paths, tmp_path / "photos", labels, arrays["suggested"], CLASSES)
        known = (judged, arrays["selected"], arrays["candidate"])
    after = correct(tmp_path / "out.corrections.csv", *known)
    row = {
        i: paths.index(str(Path(dataset[i].filepath).relative_to(tmp_path / "photos")))
        for i in (accepted, kept, set_, excluded, undone)
    }
    assert CLASSES[after.labels[row[accepted]]] == "ring"
    assert after.labels[row[kept]] == labels[row[kept]]
    assert CLASSES[after.labels[row[set_]]] == "cross"
    assert np.flatnonzero(after.excluded).tolist() == [row[excluded]]
    assert after.n_reviewed == 3
    assert set(np.flatnonzero(after.labels != labels).tolist()) <= {row[accepted], row[set_]}
    whole = correct(tmp_path / "out.csv", *known)  # the table of labels says the same, but knows of no excluded
    assert whole.labels.tolist() == after.labels.tolist()
    assert whole.n_reviewed == 3
    dataset.delete()


# -- cleanlab --


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.rename")
@pytest.mark.parametrize("as_frame", [True, False])
def test_import_of_a_datalab_itself(noisy: Any, as_frame: bool) -> None:
    from cleanlab import Datalab

    lab = Datalab({"label": [CLASSES[k] for k in noisy.given]}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=noisy.pred_probs, issue_types={"label": {}})
    found = lab.get_issues("label") if as_frame else lab
    execute("import_label_issues", noisy.dataset, params={"found": found})
    assert flagged(noisy) == set(noisy.wrong_ids)
    assert noisy.dataset.values(f"{FIELDS.suggested}.label") == [CLASSES[k] for k in noisy.true]


def test_a_datalab_that_has_not_looked_is_refused(noisy: Any) -> None:
    from cleanlab import Datalab

    lab = Datalab({"label": [CLASSES[k] for k in noisy.given]}, label_name="label", verbosity=0)
    with pytest.raises(InputError, match="the Datalab holds no label issues; find them first"):
        import_label_issues(noisy.dataset, "ground_truth", lab)


@pytest.mark.slow
def test_import_of_clean_learnings_frame(noisy: Any) -> None:
    from cleanlab.classification import CleanLearning
    from sklearn.linear_model import LogisticRegression

    vectors = np.array(with_embeddings(noisy).dataset.values("embedding"))
    frame = CleanLearning(LogisticRegression(), seed=0).find_label_issues(vectors, noisy.given)
    execute("import_label_issues", noisy.dataset, params={"found": frame})
    assert len(flagged(noisy) & set(noisy.wrong_ids)) >= 10
    np.testing.assert_allclose(noisy.dataset.values(FIELDS.quality), frame["label_quality"])


def test_a_mask_alone_flags_and_says_no_more(noisy: Any) -> None:
    mask = noisy.true != noisy.given
    results = import_label_issues(noisy.dataset, "ground_truth", mask)
    assert flagged(noisy) == set(noisy.wrong_ids)
    assert not results.issues.has_signal
    assert "say nothing about how many labels are wrong" in results.issues.note


def test_a_flag_of_cleanlabs_comes_with_another_label_wherever_probabilities_do(noisy: Any) -> None:
    """Also where the given label is the most probable one."""
    everything = np.ones(len(noisy.given), bool)
    results = import_label_issues(noisy.dataset, "ground_truth", everything, pred_probs=noisy.pred_probs)
    assert (results.issues.suggested != results.issues.labels).all()


@pytest.mark.parametrize("names", [CLASSES, None])
def test_issues_found_without_names_get_the_samples_own(noisy: Any, names: Any) -> None:
    issues = posterior_issues(noisy.given, noisy.pred_probs, class_names=names)
    assert import_label_issues(noisy.dataset, "ground_truth", issues).issues.class_names == CLASSES


def test_issues_in_another_order_are_refused(noisy: Any) -> None:
    """Every flag would fall on a wrong sample."""
    backwards = slice(None, None, -1)
    issues = posterior_issues(noisy.given[backwards], noisy.pred_probs[backwards], class_names=CLASSES)
    with pytest.raises(InputError, match=r"the label issues and the samples differ in .* labels, first in row"):
        import_label_issues(noisy.dataset, "ground_truth", issues)
    frame = issues.to_frame()
    with pytest.raises(InputError, match=r"the frame and the samples differ in .* labels, first in row"):
        import_label_issues(noisy.dataset, "ground_truth", frame)
    assert runs.keys(noisy.dataset) == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.zeros(5, bool), r"the mask has shape \(5,\), but 60 samples have labels"),
        (np.array([3, 60]), r"an index is 60, but 60 samples have labels \(0-59\)"),
        (np.array([3, -1]), "an index is -1"),
        (pd.DataFrame({"is_label_issue": [True], "label_quality": [0.5]}), "the frame has 1 rows, but 60 samples"),
        (pd.DataFrame({"a": [1]}), "the frame has columns a; is_label_issue and label_quality are needed"),
        (np.array(["a"]), "neither a mask, indices"),
    ],
)
def test_flags_that_do_not_fit_the_samples_are_refused(noisy: Any, found: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_label_issues(noisy.dataset, "ground_truth", found)
