"""Python's doors: labels and what belongs to them must match, and what comes back fits what was given."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from cvcoteach import SklearnTrainer, find_label_issues, label_issues
from cvcoteach._validation import InputError
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.pipeline import in_memory_images
from cvcoteach.training.auto_preset import choose
from cvcoteach.training.backbones import Backbone
from tests.backbones import Colours, backbone_of
from tests.fakes import clouds

FEATURES, TRUE, GIVEN = clouds(120, 3, 0.1, seed=0)
CONFIDENCE = np.random.default_rng(0).uniform(0.6, 0.99, 120)
PROBS = np.repeat((1 - CONFIDENCE)[:, None] / 2, 3, axis=1)
PROBS[np.arange(120), TRUE] = CONFIDENCE


@pytest.mark.parametrize("function", [find_label_issues, label_issues])
@pytest.mark.parametrize(
    "data",
    [
        {"features": FEATURES},
        {"images": np.zeros((120, 8, 8, 1), np.uint8)},
        {"images": np.zeros((120, 8, 8), np.uint16)},
        {"pred_probs": PROBS},
        {"trainer": SklearnTrainer(LogisticRegression(), FEATURES, 3)},
    ],
    ids=["features", "images", "16 bits", "pred_probs", "trainer"],
)
def test_labels_one_row_short_are_refused_by_every_door(function: Any, data: dict[str, Any]) -> None:
    kind = next(iter(data))
    with pytest.raises(InputError, match=f"labels has 119 rows, but {kind} has 120"):
        function(GIVEN[1:], **data, filter_by="posterior", progress=False)


@pytest.mark.parametrize("function", [find_label_issues, label_issues])
def test_names_without_a_class_do_not_shift_the_columns(function: Any) -> None:
    four = np.column_stack([PROBS[:, :2], np.zeros(120), PROBS[:, 2]])
    names = np.array(["a", "b", "d"])[GIVEN]
    with pytest.raises(InputError, match="labels holds 3 different names, but pred_probs has 4 columns; class_names"):
        function(names, four, filter_by="posterior")
    by_number = function(np.array([0, 1, 3])[GIVEN], four, filter_by="posterior")
    by_name = function(names, four, filter_by="posterior", class_names=["a", "b", "c", "d"])
    for one, other in ((by_number, by_name),):
        flags = [found.is_label_issue if isinstance(found, LabelIssues) else found for found in (one, other)]
        np.testing.assert_array_equal(*flags)
    with pytest.raises(InputError, match="class_names holds 3 names, but pred_probs has 4 columns"):
        function(names, four, filter_by="posterior", class_names=["a", "b", "d"])


def test_numerals_are_in_the_order_of_their_value() -> None:
    names = np.array(["1", "2", "10"])[GIVEN]
    expected = find_label_issues(GIVEN, PROBS, filter_by="posterior")
    np.testing.assert_array_equal(find_label_issues(names, PROBS, filter_by="posterior"), expected)


def test_the_index_of_a_series_of_labels_is_kept() -> None:
    index = np.random.default_rng(0).permutation(120)
    labels = pd.Series(GIVEN, index=index)
    issues = label_issues(labels, PROBS)
    frame = issues.to_frame()
    assert frame.index.tolist() == index.tolist()
    mask = find_label_issues(labels, PROBS, filter_by="posterior")
    assert isinstance(mask, pd.Series)
    assert mask.index.tolist() == index.tolist()
    np.testing.assert_array_equal(mask, issues.is_label_issue)
    table = pd.DataFrame({"given": labels, "true": pd.Series(TRUE, index=index)}).sort_index()
    flagged = table.loc[mask]  # aligned by pandas, whatever the order of the table
    assert (flagged["given"] != flagged["true"]).mean() > 0.8
    ranked = find_label_issues(labels, PROBS, filter_by="posterior", return_indices_ranked_by="posterior")
    assert isinstance(ranked, np.ndarray)
    assert mask.iloc[ranked].all()


def test_an_array_of_labels_gets_an_array_and_numbered_rows(tmp_path: Path) -> None:
    assert isinstance(find_label_issues(GIVEN, PROBS, filter_by="posterior"), np.ndarray)
    issues = label_issues(pd.Series(GIVEN, index=np.arange(120) + 5), PROBS)
    issues.save(tmp_path / "issues")
    assert LabelIssues.load(tmp_path / "issues").to_frame().index.tolist() == list(range(120))


def test_cleanlabs_own_answer_stays_as_cleanlab_gives_it() -> None:
    assert isinstance(find_label_issues(pd.Series(GIVEN), PROBS), np.ndarray)


def test_names_that_differ_by_a_space_are_warned_of() -> None:
    names = np.array(["a", "b", "c"])[GIVEN].astype(object)
    names[:5] = "a "
    with pytest.warns(UserWarning, match="classes that may be meant as one: 'a' and 'a '"):
        label_issues(names, features=FEATURES, progress=False)


@pytest.mark.parametrize("labels", [[*GIVEN[:-1].tolist(), None], [*GIVEN[:-1].astype(str).tolist(), None]])
def test_a_missing_label_is_no_class(labels: list[Any]) -> None:
    for data in ({"features": FEATURES}, {"pred_probs": PROBS}):
        with pytest.raises(InputError, match=r"labels\[119\]"):
            label_issues(pd.Series(labels), **data, progress=False)


def test_ids_are_not_taken_for_numbers_of_classes() -> None:
    with pytest.raises(InputError, match="labels go up to 2,000,000, but only 3 different ones occur"):
        label_issues(GIVEN * 1_000_000, features=FEATURES, progress=False)


def test_features_of_different_lengths_get_a_sentence() -> None:
    with pytest.raises(InputError, match="features has rows of different lengths"):
        label_issues([0, 1], features=[[1, 2], [3]], progress=False)


class Watching(SklearnTrainer):
    """Remembers which images each model trained on and judged."""

    asked: list[tuple[np.ndarray, np.ndarray]]

    def fit_predict(self, train_idx: Any, train_labels: Any, eval_idx: Any, seed: int) -> Any:
        self.asked = [*getattr(self, "asked", []), (train_idx, eval_idx)]
        return super().fit_predict(train_idx, train_labels, eval_idx, seed)


@pytest.mark.parametrize("filter_by", ["posterior", "incv"])
@pytest.mark.parametrize("function", [find_label_issues, label_issues])
def test_groups_stay_in_one_fold_by_every_door(function: Any, filter_by: str) -> None:
    trainer, groups = Watching(LogisticRegression(), FEATURES, 3), pd.Series([f"video {i % 20}" for i in range(120)])
    function(GIVEN, trainer=trainer, groups=groups, filter_by=filter_by, progress=False)
    assert len(trainer.asked) > 3
    for trained, judged in trainer.asked:
        assert not set(groups[trained]) & set(groups[judged])


@pytest.mark.parametrize("function", [find_label_issues, label_issues])
def test_groups_need_something_to_train_on(function: Any) -> None:
    with pytest.raises(InputError, match="groups are given with pred_probs, which models have made already"):
        function(GIVEN, PROBS, groups=np.arange(120))


@pytest.mark.parametrize("function", [label_issues, find_label_issues])
@pytest.mark.parametrize("filter_by", ["posterior", "incv"])
def test_no_model_learns_from_test_by_any_door(function: Any, filter_by: str) -> None:
    trainer, splits = Watching(LogisticRegression(), FEATURES, 3), np.where(np.arange(120) % 4, "train", "test")
    function(GIVEN, trainer=trainer, splits=splits, filter_by=filter_by, progress=False)
    assert trainer.asked
    for trained, judged in trainer.asked:
        assert (splits[trained] == "train").all()
        assert np.isin(np.flatnonzero(splits == "test"), judged).all()


def test_the_noise_of_each_split_is_told_from_probabilities_too() -> None:
    splits = np.where(np.arange(120) % 4, "train", "test")
    issues = label_issues(GIVEN, PROBS, splits=splits)
    assert issues.by_split()["split"].tolist() == ["train", "test"]
    alone = label_issues(GIVEN[splits == "train"], PROBS[splits == "train"])
    assert np.allclose(issues.label_quality[splits == "train"], alone.label_quality)


def test_photographs_are_judged_by_features_unless_another_preset_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loaded(name: str, size: int | None = None) -> Backbone:
        return replace(backbone_of(Colours(), size or 8), name=name)

    monkeypatch.setattr(in_memory_images, "choose", partial(choose, load=loaded))
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 120, (120, 40, 40, 3)).astype(np.uint8)
    photos[np.arange(120), :, :, TRUE] += 100
    found = label_issues(GIVEN, images=photos)
    assert ((found.is_label_issue) == (GIVEN != TRUE)).mean() > 0.95
    said = capsys.readouterr().err
    assert "preset auto takes heads on features of torchvision:mobilenet_v3_large at 8 pixels, since the 120" in said
    with pytest.raises(InputError, match="preset is 'fats'; did you mean fast"):
        label_issues(GIVEN, images=photos, preset="fats")
    with pytest.raises(InputError, match="preset is 'fast', which is for images; leave it out with features"):
        find_label_issues(GIVEN, features=FEATURES, preset="fast")


def test_several_trainers_are_views_of_the_same_images() -> None:
    one, other = (SklearnTrainer(LogisticRegression(C=c), FEATURES, 3) for c in (0.01, 1.0))
    both = label_issues(GIVEN, trainer=[one, other], progress=False)
    assert ((both.is_label_issue) == (GIVEN != TRUE)).mean() > 0.9
    mask = find_label_issues(GIVEN, trainer=[one, other], progress=False)
    np.testing.assert_array_equal(mask, both.is_label_issue)
    with pytest.raises(InputError, match="trainer is an empty list"):
        label_issues(GIVEN, trainer=[], progress=False)


def test_thousands_of_classes_have_one_model_of_the_noise_for_all_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("fitted by split")

    monkeypatch.setattr("cvcoteach.pipeline.in_memory.fit_by_split", never)
    k = 2100
    labels = np.arange(2 * k) % k
    probs = np.full((2 * k, k), 0.2 / k, np.float32)
    probs[np.arange(2 * k), labels] += 0.8
    issues = label_issues(labels, probs, splits=np.where(np.arange(2 * k) < k, "train", "test"))
    assert issues.by_split()["split"].tolist() == ["train", "test"]
