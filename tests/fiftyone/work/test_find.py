"""Finding and importing label issues of a FiftyOne dataset, without the App."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from cvcoteach._progress import Progress
from cvcoteach._validation import InputError
from cvcoteach.crossval.trainer import FoldKey
from cvcoteach.fiftyone.app.progress import ProgressWatcher
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.store.labelled import read_labels
from cvcoteach.fiftyone.work.find import find_label_issues, source_of
from cvcoteach.fiftyone.work.retrain import retrain
from cvcoteach.pipeline.settings import Machine, Settings
from cvcoteach.training.head_trainer import HeadTrainer

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")
QUICK = Settings(n_rounds=2, epochs=4)


def with_embeddings(noisy: Any) -> Any:
    rng = np.random.default_rng(0)
    vectors = np.eye(3)[noisy.true] * 8 + rng.normal(size=(len(noisy.true), 3))
    noisy.dataset.add_sample_field("embedding", fo.VectorField)
    noisy.dataset.set_values("embedding", list(vectors))
    return noisy


class Killer:
    """Stops the run once a third of the training is done, when the first folds are finished."""

    def note(self, sentence: str) -> None:
        """Nothing to do with it."""

    def progress(self, update: Progress) -> None:
        """Die as a killed process would."""
        if update.stage == "training" and update.done / update.total > 1 / 3:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_networks_find_the_wrong_labels_of_images(tmp_path: Path) -> None:
    from tests.fiftyone.conftest import NoisyDataset

    made = NoisyDataset.make(tmp_path, 240, 24)
    before = made.raw_labels()
    shares: list[float] = []
    settings = Settings(n_rounds=2, epochs=20)  # few images, few batches an epoch
    machine = Machine(precision="bfloat16", threads=1)  # a busy machine would measure, and choose, another
    watcher = ProgressWatcher(lambda share, label: shares.append(share))
    results = find_label_issues(made.dataset, "ground_truth", settings=settings, machine=machine, watcher=watcher)
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
def test_a_killed_run_leaves_the_labels_and_resumes_where_it_was(noisy: Any, trained_folds: list[FoldKey]) -> None:
    with_embeddings(noisy)
    before, schema = noisy.raw_labels(), set(noisy.dataset.get_field_schema())
    options = {"settings": QUICK, "embeddings_field": "embedding"}
    with pytest.raises(KeyboardInterrupt):
        find_label_issues(noisy.dataset, "ground_truth", watcher=Killer(), **options)
    assert noisy.raw_labels() == before
    assert set(noisy.dataset.get_field_schema()) == schema
    kept = set(trained_folds)
    assert len(kept) >= 1
    trained_folds.clear()
    find_label_issues(noisy.dataset, "ground_truth", **options)
    rest = set(trained_folds)
    assert len(rest) >= 1
    assert not kept & rest
    trained_folds.clear()
    find_label_issues(noisy.dataset, "ground_truth", overwrite=True, **options)
    assert set(trained_folds) == kept | rest  # a finished run leaves nothing behind


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
    with pytest.raises(InputError, match="'nothing' is not a field of vectors"):
        find_label_issues(noisy.dataset, "ground_truth", embeddings_field="nothing")
    noisy.dataset.add_sample_field("empty", fo.VectorField)
    with pytest.raises(InputError, match="no labelled sample has a vector in 'empty'"):
        find_label_issues(noisy.dataset, "ground_truth", embeddings_field="empty")


def test_all_files_missing_is_said_once(noisy: Any) -> None:
    for path in noisy.dataset.values("filepath"):
        Path(path).unlink()
    with pytest.raises(InputError, match="none of the files of 60 samples exists"):
        find_label_issues(noisy.dataset, "ground_truth")
    assert runs.keys(noisy.dataset) == []


@pytest.mark.slow
def test_notes_name_classes_as_the_samples_do(noisy: Any) -> None:
    with_embeddings(noisy)
    noisy.dataset.set_values("ground_truth.label", {noisy.ids[0]: "1 lonely"}, key_field="id")
    noisy.dataset.set_values("embedding", {noisy.ids[1]: None}, key_field="id")
    watcher = ProgressWatcher(lambda share, label: None)
    results = find_label_issues(
        noisy.dataset,
        "ground_truth",
        settings=Settings(n_rounds=2, select="agreement"),
        embeddings_field="embedding",
        watcher=watcher,
    )
    assert results.info["notes"] == watcher.notes
    assert results.info["notes"][0] == "1 sample without an embedding was left out."
    assert results.info["notes"][1].startswith(
        "class '1 lonely' has 1 image: the models that score it never see the class"
    )


@pytest.mark.slow
def test_an_error_of_the_run_speaks_of_the_dataset_not_of_a_file_nobody_knows(noisy: Any) -> None:
    for path in noisy.dataset.values("filepath"):
        Path(path).write_bytes(b"no image")
    with pytest.raises(InputError, match=f"none of 60 images looked at in {re.escape(noisy.dataset.name)} can be read"):
        find_label_issues(noisy.dataset, "ground_truth", settings=QUICK)


@pytest.mark.slow
def test_images_changed_since_a_run_was_killed_make_it_start_over(noisy: Any, trained_folds: list[FoldKey]) -> None:
    settings = Settings(n_rounds=2, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        find_label_issues(noisy.dataset, "ground_truth", settings=settings, watcher=Killer())
    file = Path(noisy.dataset.first().filepath)
    Image.fromarray(np.full((12, 12), 7, np.uint8)).save(file)
    before = set(trained_folds)
    trained_folds.clear()
    results = find_label_issues(noisy.dataset, "ground_truth", settings=settings)
    assert before <= set(trained_folds)
    assert results.info["notes"].count("The images have changed since the interrupted run, so it starts over.") == 1
    assert len(results.info["notes"]) == len(set(results.info["notes"]))


@pytest.mark.slow
def test_a_class_without_any_embedding_is_no_class_of_the_run(noisy: Any) -> None:
    with_embeddings(noisy)
    bars = {i: None for i, label in zip(noisy.ids, noisy.labels(), strict=True) if label == "bar"}
    noisy.dataset.set_values("embedding", bars, key_field="id")
    results = find_label_issues(noisy.dataset, "ground_truth", settings=QUICK, embeddings_field="embedding")
    assert results.issues.class_names == ("cross", "ring")
    assert len(results.ids) == 60 - len(bars)


def test_samples_become_a_source_with_their_own_classes_and_files(noisy: Any) -> None:
    source = source_of(read_labels(noisy.dataset, "ground_truth"), noisy.dataset.name)
    assert source.class_names == CLASSES
    assert source.files == tuple(noisy.dataset.values("filepath"))
    assert [source.class_names[k] for k in source.labels] == noisy.labels()
    assert source.notes == ()


def test_a_file_shown_by_two_samples_is_noted(noisy: Any) -> None:
    noisy.dataset.add_sample(noisy.dataset.first().copy())
    [note] = source_of(read_labels(noisy.dataset, "ground_truth"), "photos").notes
    assert note.startswith("1 sample shows the file of another sample; a wrong label is hard to see")


@pytest.mark.slow
@pytest.mark.parametrize("names", [CLASSES, ("10", "9", "n/a")])
def test_the_summary_of_a_run_names_classes_whatever_they_are_called(noisy: Any, names: tuple[str, ...]) -> None:
    with_embeddings(noisy)
    noisy.dataset.set_values("ground_truth.label", [names[CLASSES.index(label)] for label in noisy.labels()])
    results = find_label_issues(noisy.dataset, "ground_truth", settings=QUICK, embeddings_field="embedding")
    assert results.issues.class_names == tuple(sorted(names))
    confusions = results.info["summary"]["confusions"]
    assert len(confusions) >= 1
    assert {pair["given"] for pair in confusions} | {pair["suggested"] for pair in confusions} <= set(names)


@pytest.mark.slow
def test_every_label_flagged_by_incv_gets_another_suggestion(noisy: Any) -> None:
    with_embeddings(noisy)
    options = {"settings": Settings(n_rounds=1), "embeddings_field": "embedding"}
    issues = find_label_issues(noisy.dataset, "ground_truth", filter_by="incv", **options).issues
    assert issues.filter_by == "incv"
    assert issues.n_issues >= 12
    assert (issues.suggested != issues.labels)[issues.is_label_issue].all()


@pytest.mark.slow
def test_samples_of_a_group_stay_in_one_fold(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_embeddings(noisy)
    names = [f"patient {i % 10}" for i in range(60)]
    noisy.dataset.set_values("patient", names)
    seen: list[Any] = []
    train = HeadTrainer.fit_predict_many

    def watched(trainer: HeadTrainer, folds: Any) -> Any:
        seen.extend(folds)
        return train(trainer, folds)

    monkeypatch.setattr(HeadTrainer, "fit_predict_many", watched)
    options = {"settings": QUICK, "embeddings_field": "embedding", "group_field": "patient"}
    results = find_label_issues(noisy.dataset, "ground_truth", **options)
    assert len(results.issues.labels) == 60
    assert len(seen) == 7
    group = np.arange(60) % 10
    for fold in seen:
        assert not np.intersect1d(group[fold.train_idx], group[fold.eval_idx]).size
    assert noisy.dataset.get_brain_info("label_issues").config.settings["group_field"] == "patient"


@pytest.mark.slow
def test_no_model_learns_from_test_and_retraining_does_not_either(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_embeddings(noisy)
    noisy.dataset.select(noisy.ids[::4]).tag_samples("test")
    noisy.dataset.exclude(noisy.ids[::4]).tag_samples("train")
    seen: list[Any] = []
    train = HeadTrainer.fit_predict_many

    def watched(trainer: HeadTrainer, folds: Any) -> Any:
        seen.extend(folds)
        return train(trainer, folds)

    monkeypatch.setattr(HeadTrainer, "fit_predict_many", watched)
    options = {"settings": QUICK, "embeddings_field": "embedding", "split_field": "tags"}
    results = find_label_issues(noisy.dataset, "ground_truth", **options)
    splits = results.issues.splits
    assert splits is not None
    assert (splits == "test").sum() == 15
    for fold in seen:
        assert (splits[fold.train_idx] == "train").all()
        assert np.isin(np.flatnonzero(splits == "test"), fold.eval_idx).all()
    again = runs.load(noisy.dataset)
    assert (again.issues.splits == splits).all()
    done = retrain(noisy.dataset, embeddings_field="embedding", epochs=1)
    assert (done.n_train, done.n_test) == (45, 15)


def test_samples_of_no_split_are_refused(noisy: Any) -> None:
    noisy.dataset.limit(59).tag_samples("train")
    with pytest.raises(InputError, match="1 sample of 60 has no tag, or several, such as train or test"):
        find_label_issues(noisy.dataset, "ground_truth", split_field="tags")


def test_groups_that_do_not_fit_are_refused(noisy: Any) -> None:
    with pytest.raises(InputError, match="'tags' is not a field of groups; choose one of text or numbers"):
        find_label_issues(noisy.dataset, "ground_truth", group_field="tags")
    noisy.dataset.set_values("patient", [*["a"] * 59, None])
    with pytest.raises(InputError, match="1 sample of 60 has no value in 'patient'"):
        find_label_issues(noisy.dataset, "ground_truth", group_field="patient")


@pytest.mark.slow
def test_ray_finds_what_one_process_finds(noisy: Any) -> None:
    with_embeddings(noisy)
    machine = Machine("cpu", threads=1)
    here = find_label_issues(
        noisy.dataset, "ground_truth", "here", settings=QUICK, machine=machine, embeddings_field="embedding"
    )
    there = find_label_issues(
        noisy.dataset,
        "ground_truth",
        "there",
        settings=QUICK,
        machine=machine,
        embeddings_field="embedding",
        engine="ray",
    )
    np.testing.assert_array_equal(there.issues.label_quality, here.issues.label_quality)
