"""Finding and importing label issues of a FiftyOne dataset, without the App."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.progress import ProgressWatcher
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.store.labelled import read_labels
from cvcoteach.fiftyone.work.find import find_label_issues
from cvcoteach.pipeline.settings import Settings, Silent

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")
QUICK = Settings(n_rounds=2, epochs=4)


def with_embeddings(noisy: Any) -> Any:
    rng = np.random.default_rng(0)
    vectors = np.eye(3)[noisy.true] * 8 + rng.normal(size=(len(noisy.true), 3))
    noisy.dataset.add_sample_field("embedding", fo.VectorField)
    noisy.dataset.set_values("embedding", list(vectors))
    return noisy


class Killer(Silent):
    """Stops the run when the second round begins."""

    def fold(self, progress: Any) -> None:
        """As a killed process would."""
        if progress.state == "start" and progress.key.round == 2:
            raise KeyboardInterrupt


class Recorder(Silent):
    """Remembers what became of each fold."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def fold(self, progress: Any) -> None:
        """One state after the other."""
        self.states.append(progress.state)


@pytest.mark.slow
def test_networks_find_the_wrong_labels_of_images(tmp_path: Path) -> None:
    from tests.fiftyone.conftest import NoisyDataset

    made = NoisyDataset.make(tmp_path, 240, 24)
    before = made.raw_labels()
    shares: list[float] = []
    settings = Settings(n_rounds=2, epochs=20)  # few images, few batches an epoch
    watcher = ProgressWatcher(lambda share, label: shares.append(share))
    results = find_label_issues(made.dataset, "ground_truth", settings=settings, watcher=watcher)
    flagged = set(made.dataset.match(fo.ViewField(FIELDS.is_issue)).values("id"))
    found = len(flagged & set(made.wrong_ids))
    assert found >= 12  # of 24
    assert len(flagged) - found <= 5
    assert made.raw_labels() == before
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1
    assert results.config.settings["n_rounds"] == 2
    made.dataset.delete()


@pytest.mark.slow
def test_heads_on_an_embeddings_field_find_them_too(noisy: Any) -> None:
    with_embeddings(noisy)
    results = find_label_issues(noisy.dataset, "ground_truth", settings=QUICK, embeddings_field="embedding")
    found = {noisy.ids[i] for i in results.issues.worst_first()[:12]}
    assert len(found & set(noisy.wrong_ids)) >= 10


@pytest.mark.slow
def test_a_killed_run_leaves_the_labels_and_goes_on_where_it_was(noisy: Any) -> None:
    with_embeddings(noisy)
    before, schema = noisy.raw_labels(), set(noisy.dataset.get_field_schema())
    options = {"settings": QUICK, "embeddings_field": "embedding"}
    with pytest.raises(KeyboardInterrupt):
        find_label_issues(noisy.dataset, "ground_truth", watcher=Killer(), **options)
    assert noisy.raw_labels() == before
    assert set(noisy.dataset.get_field_schema()) == schema
    recorder = Recorder()
    find_label_issues(noisy.dataset, "ground_truth", watcher=recorder, **options)
    assert recorder.states.count("kept") >= 1
    recorder = Recorder()
    find_label_issues(noisy.dataset, "ground_truth", watcher=recorder, overwrite=True, **options)
    assert recorder.states.count("kept") == 0  # a finished run leaves nothing behind


def test_samples_without_label_or_file_are_left_out_and_counted(noisy: Any) -> None:
    ids = noisy.ids
    sample = noisy.dataset[ids[0]]
    sample["ground_truth"] = None
    sample.save()
    Path(noisy.dataset[ids[1]].filepath).unlink()
    data = read_labels(noisy.dataset, "ground_truth")
    assert [sample_id.decode() for sample_id in data.ids] == ids[2:]
    assert data.notes == ["1 sample without a label was left out.", "1 sample whose file is missing was left out."]


@pytest.mark.parametrize(
    ("prepare", "field", "message"),
    [
        (lambda d: d.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections),
         "boxes", r"boxes holds Detections; only labels of whole images \(Classification\) are checked"),
        (lambda d: None, "ground_thruth", "there is no field 'ground_thruth'; did you mean ground_truth"),
        (lambda d: None, "filepath", "filepath holds String; it takes a Classification field"),
        (lambda d: d.set_values("ground_truth", [None] * len(d)), "ground_truth", "no sample has a label"),
        (lambda d: d.set_values("ground_truth.label", ["ring"] * len(d)), "ground_truth", r"one class only \(ring\)"),
        (lambda d: d.delete_samples(d.values("id")), "ground_truth", "the view is empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_refused_in_a_sentence(noisy: Any, prepare: Any, field: str, message: str) -> None:
    prepare(noisy.dataset)
    with pytest.raises(InputError, match=message):
        find_label_issues(noisy.dataset, field)
    assert noisy.dataset.list_brain_runs() == []


def test_embeddings_that_are_not_there_are_refused(noisy: Any) -> None:
    with pytest.raises(InputError, match="'nothing' is no field of vectors"):
        find_label_issues(noisy.dataset, "ground_truth", embeddings_field="nothing")
    noisy.dataset.add_sample_field("empty", fo.VectorField)
    with pytest.raises(InputError, match="no labelled sample has a vector in 'empty'"):
        find_label_issues(noisy.dataset, "ground_truth", embeddings_field="empty")


def test_all_files_missing_is_said_once(noisy: Any) -> None:
    for path in noisy.dataset.values("filepath"):
        Path(path).unlink()
    with pytest.raises(InputError, match="no file of the 60 samples is there"):
        find_label_issues(noisy.dataset, "ground_truth")
    assert runs.keys(noisy.dataset) == []


@pytest.mark.slow
def test_notes_name_classes_as_the_samples_do(noisy: Any) -> None:
    with_embeddings(noisy)
    noisy.dataset.set_values("ground_truth.label", {noisy.ids[0]: "1 lonely"}, key_field="id")
    noisy.dataset.set_values("embedding", {noisy.ids[1]: None}, key_field="id")
    watcher = ProgressWatcher(lambda share, label: None)
    results = find_label_issues(
        noisy.dataset, "ground_truth", settings=Settings(n_rounds=2), embeddings_field="embedding", watcher=watcher
    )
    assert results.info["notes"] == watcher.notes
    assert results.info["notes"][0] == "1 sample without an embedding was left out."
    assert results.info["notes"][1].startswith("59 images, 4 classes")
    assert results.info["notes"][2].startswith("class '1 lonely' has 1 image, fewer than the 2 folds")


@pytest.mark.slow
def test_an_error_of_the_run_speaks_of_the_dataset_not_of_a_file_nobody_knows(noisy: Any) -> None:
    for path in noisy.dataset.values("filepath"):
        Path(path).write_bytes(b"no image")
    with pytest.raises(InputError, match=f"none of 60 images looked at in {re.escape(noisy.dataset.name)} can be read"):
        find_label_issues(noisy.dataset, "ground_truth", settings=QUICK)


@pytest.mark.slow
def test_images_changed_since_a_run_was_killed_make_it_begin_anew(noisy: Any) -> None:
    settings = Settings(n_rounds=2, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        find_label_issues(noisy.dataset, "ground_truth", settings=settings, watcher=Killer())
    file = Path(noisy.dataset.first().filepath)
    Image.fromarray(np.full((12, 12), 7, np.uint8)).save(file)
    recorder = Recorder()
    results = find_label_issues(noisy.dataset, "ground_truth", settings=settings, watcher=recorder)
    assert recorder.states.count("kept") == 0
    assert "The images have changed since the run that was broken off, so it begins anew." in results.info["notes"]


@pytest.mark.slow
def test_a_class_without_any_embedding_is_no_class_of_the_run(noisy: Any) -> None:
    with_embeddings(noisy)
    bars = {i: None for i, label in zip(noisy.ids, noisy.labels(), strict=True) if label == "bar"}
    noisy.dataset.set_values("embedding", bars, key_field="id")
    results = find_label_issues(noisy.dataset, "ground_truth", settings=QUICK, embeddings_field="embedding")
    assert results.issues.class_names == ("cross", "ring")
    assert len(results.ids) == 60 - len(bars)
