"""Retraining by Co-teaching on corrected labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from cvcoteach._progress import Progress
from cvcoteach._validation import InputError
from cvcoteach.coteaching.estimator import CoTeaching
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import corrections
from cvcoteach.fiftyone.work.imports import import_label_issues
from cvcoteach.fiftyone.work.retrain import retrain
from cvcoteach.issues.from_posterior import posterior_issues
from tests.fiftyone.calls import in_the_app, toasts
from tests.fiftyone.store.test_runs import imported
from tests.fiftyone.work.test_find import with_embeddings


@pytest.mark.slow
def test_retraining_tells_accuracy_before_and_after_on_test_samples(noisy: Any) -> None:
    with_embeddings(noisy)
    imported(noisy)
    corrections.accept_suggestions(noisy.dataset, noisy.wrong_ids)
    test = noisy.dataset.select(noisy.ids[::4])
    test.tag_samples("test")
    told: list[Progress] = []
    done = retrain(noisy.dataset, on_progress=told.append, test_tag="test", embeddings_field="embedding")
    assert (done.n_train, done.n_test) == (45, 15)
    assert done.accuracy_after >= 0.9
    shares = [update.done / update.total for update in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert {update.stage for update in told} == {"training"}
    assert runs.load(noisy.dataset).info["retrained"] == done.message
    noisy.dataset._brain_cache.clear()
    assert runs.load(noisy.dataset).info["retrained"] == done.message


@pytest.mark.slow
def test_excluded_samples_are_not_trained_on(noisy: Any) -> None:
    with_embeddings(noisy)
    imported(noisy)
    corrections.exclude_samples(noisy.dataset, noisy.wrong_ids)
    done = retrain(noisy.dataset, embeddings_field="embedding", epochs=2)
    assert done.n_train + done.n_test == 48


@pytest.mark.slow
def test_a_view_is_trained_on_alone_and_missing_files_are_left_out(noisy: Any) -> None:
    imported(noisy)
    for path in noisy.dataset.limit(5).values("filepath"):
        Path(path).unlink()
    done = retrain(noisy.dataset.limit(40), epochs=1)
    assert (done.n_train + done.n_test, done.without_file) == (35, 5)
    assert "5 samples whose file is missing were left out." in done.message


@pytest.mark.slow
def test_the_operator_tells_before_and_after(noisy: Any) -> None:
    with_embeddings(noisy)
    imported(noisy)
    corrections.accept_suggestions(noisy.dataset, noisy.wrong_ids)
    noisy.dataset.select(noisy.ids[::4]).tag_samples("test")
    params, before = {"test_tag": "test", "embeddings_field": "embedding", "seed": 3}, noisy.raw_labels()
    told = in_the_app("retrain_coteaching", noisy.dataset, params=params)
    [(variant, message)] = toasts(told)
    assert variant == "success"
    figures = runs.load(noisy.dataset).info["accuracy"]
    assert message == (
        f"Accuracy {figures['after']:.1%} after (Co-teaching on the corrected labels), {figures['before']:.1%} before "
        "(plain training on the labels as they were given), on 15 samples that were not trained on."
    )
    assert noisy.raw_labels() == before
    assert any("epoch" in params["label"] for what, params in told if what == "set_progress")


def test_a_tag_nobody_has_is_refused(noisy: Any) -> None:
    imported(noisy)
    with pytest.raises(InputError, match="no sample of the run has the tag 'tset'"):
        retrain(noisy.dataset, test_tag="tset")


def test_with_everything_excluded_there_is_nothing_to_train_on(noisy: Any) -> None:
    imported(noisy)
    corrections.exclude_samples(noisy.dataset, noisy.ids)
    with pytest.raises(InputError, match="no sample of the run can be trained on"):
        retrain(noisy.dataset)


def test_where_nothing_can_be_learned_or_measured_a_sentence_says_so(noisy: Any) -> None:
    with_embeddings(noisy)
    bars = np.array([label == "bar" for label in noisy.labels()])
    for key, mask in (("bars", bars), ("all", np.ones(60, bool)), ("none", np.zeros(60, bool))):
        import_label_issues(noisy.dataset, "ground_truth", mask, key)
    noisy.dataset.tag_samples("everything")
    on = {"embeddings_field": "embedding"}
    with pytest.raises(InputError, match="no label of class 'bar' is trusted; review some of its samples first"):
        retrain(noisy.dataset, "bars", **on)
    with pytest.raises(InputError, match="no label is trusted yet, so there is nothing to measure on"):
        retrain(noisy.dataset, "all", **on)
    with pytest.raises(InputError, match="every sample of the run has the tag 'everything'"):
        retrain(noisy.dataset, "none", test_tag="everything", **on)
    with pytest.raises(InputError, match=r"all of one class \(ring\)"):
        retrain(noisy.dataset.match(fo.ViewField("ground_truth.label") == "ring"), "none", **on)
    with pytest.raises(InputError, match="'filepath' is not a field of vectors"):
        retrain(noisy.dataset, "none", embeddings_field="filepath")


def test_a_folder_in_use_is_refused(noisy: Any, tmp_path: Any) -> None:
    imported(noisy)
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="is not empty; name a new folder"):
        retrain(noisy.dataset, output=str(tmp_path))


@pytest.mark.slow
def test_a_model_of_images_is_kept_where_asked(noisy: Any, tmp_path: Any) -> None:
    from cvcoteach.coteaching.model_files import load_model

    imported(noisy)
    corrections.accept_suggestions(noisy.dataset, noisy.wrong_ids)
    done = retrain(noisy.dataset, output=str(tmp_path / "model"), epochs=1)
    assert done.folder == str(tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.class_names == ("bar", "cross", "ring")
    assert np.isfinite(done.accuracy_after)


def test_the_noise_rate_is_that_of_the_samples_trained_on_reviews_included(
    noisy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All noise lies in the test split, but for two labels, of which one is kept."""
    with_embeddings(noisy)
    issues = posterior_issues(noisy.given, noisy.pred_probs, class_names=("bar", "cross", "ring"))
    wrong = np.flatnonzero(noisy.true != noisy.given)
    splits = np.full(60, "train", dtype=object)
    splits[wrong[2:]] = "test"
    import_label_issues(noisy.dataset, "ground_truth", replace(issues, splits=splits.astype(str)))
    corrections.keep_labels(noisy.dataset, [noisy.ids[wrong[0]]])
    told: list[float | None] = []

    def fit(self: CoTeaching, x: Any, y: Any, *, noise_rate: float | None = None, **sets: Any) -> CoTeaching:
        told.append(noise_rate)
        return self

    monkeypatch.setattr(CoTeaching, "fit", fit)
    monkeypatch.setattr(CoTeaching, "predict", lambda self, x: np.full(len(x), "bar"))
    retrain(noisy.dataset, embeddings_field="embedding")
    expected = issues.wrong.copy()
    expected[wrong[0]] = 0
    assert told == [0.0, pytest.approx(expected[splits == "train"].mean())]
    assert told[1] < 0.5 * issues.noise_ratio
