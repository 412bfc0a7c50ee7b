"""CleanLearning: cleanlab's own where cleanlab is asked; our filters through its keyword arguments and its fit."""

from __future__ import annotations

import cleanlab.classification
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from cvcoteach._validation import InputError
from cvcoteach.cleanlab.cleanlearning import CleanLearning
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.issues.label_issues import sample_weights
from cvcoteach.pipeline.in_memory import label_issues
from cvcoteach.training.sklearn_trainer import SklearnTrainer

from ..issues.test_label_issues import noisy_data
from .test_filter import blobs


@pytest.mark.slow
def test_without_a_filter_of_ours_it_is_cleanlabs():
    x, given, _ = blobs()
    for kwargs in ({}, {"filter_by": "both"}):
        theirs = cleanlab.classification.CleanLearning(LogisticRegression(), seed=0, find_label_issues_kwargs=kwargs)
        ours = CleanLearning(LogisticRegression(), seed=0, find_label_issues_kwargs=kwargs)
        assert ours.find_label_issues(x, given).equals(theirs.find_label_issues(x, given))


@pytest.mark.parametrize("filter_by", ["posterior", "incv"])
def test_our_filters_find_and_fit_without_the_flagged(filter_by):
    x, given, true = blobs(800)
    learner = CleanLearning(LogisticRegression(), seed=0, find_label_issues_kwargs={"filter_by": filter_by})
    frame = learner.find_label_issues(x, given)
    theirs = cleanlab.classification.CleanLearning(LogisticRegression(), seed=0).find_label_issues(x, given)
    assert frame.columns[:4].tolist() == theirs.columns.tolist()
    assert frame.dtypes[:4].tolist() == theirs.dtypes.tolist()
    assert (frame["is_label_issue"] == (given != true)).mean() > 0.9
    learner.fit(x, given, label_issues=frame)
    assert (learner.predict(x) == true).mean() > 0.97
    weights = learner.get_label_issues()["sample_weight"]
    assert (weights[frame["is_label_issue"]] == 0).all()
    assert (weights[~frame["is_label_issue"]] > 1).all()


def test_fit_alone_finds_by_our_filter():
    x, given, true = blobs(800, 0.3)
    learner = CleanLearning(LogisticRegression(), seed=0, find_label_issues_kwargs={"filter_by": "posterior"})
    learner.fit(x, given)
    assert learner.get_label_issues().columns[4] == "suggested_label"
    assert (learner.predict(x) == true).mean() > 0.97


def test_on_given_probabilities_it_flags_what_label_issues_flags():
    given, probs, _ = noisy_data()
    learner = CleanLearning(find_label_issues_kwargs={"filter_by": "posterior", "frac_noise": 0.5})
    frame = learner.find_label_issues(labels=given, pred_probs=probs)
    everything = label_issues(given, probs)
    assert frame["is_label_issue"].sum() == round(everything.n_issues / 2)
    assert np.array_equal(learner.issues.label_quality, everything.label_quality)


def test_cleanlabs_own_class_takes_our_frame_weights_and_joint():
    x, given, true = blobs(800, seed=1)
    issues = posterior_issues(given, cross_val_predict(LogisticRegression(), x, given, method="predict_proba"))
    assert issues.has_signal
    learner = cleanlab.classification.CleanLearning(LogisticRegression())
    learner.fit(x, given, label_issues=issues.to_frame(), sample_weight=sample_weights(issues))
    assert (learner.predict(x) == true).mean() > 0.97
    joined = cleanlab.classification.CleanLearning(
        LogisticRegression(), seed=0, find_label_issues_kwargs={"confident_joint": issues.confident_joint}
    )
    frame = joined.find_label_issues(x, given)
    assert np.array_equal(joined.confident_joint, issues.confident_joint)
    doubted = issues.confident_joint.sum() - np.trace(issues.confident_joint)
    assert 0.8 * doubted < frame["is_label_issue"].sum() <= doubted  # cleanlab flags as many as our joint has wrong


def test_a_classifier_learns_better_from_all_labels_with_our_weights():
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=4000)
    x = 1.5 * true[:, None] + rng.normal(size=(4000, 2))
    given = np.where((true == 0) & (rng.random(4000) < 0.45), 1, true)
    plain = LogisticRegression().fit(x, given)
    issues = posterior_issues(given, plain.predict_proba(x))
    weighted = LogisticRegression().fit(x, given, sample_weight=sample_weights(issues))
    assert (weighted.predict(x) == true).mean() > (plain.predict(x) == true).mean() + 0.05


@pytest.mark.parametrize(
    ("kwargs", "options", "sentence"),
    [
        ({"n_jobs": 1}, {}, "find_label_issues_kwargs holds 'n_jobs', which has no meaning with filter_by='posterior'"),
        ({"frac_nois": 1}, {}, "did you mean frac_noise"),
        (
            {},
            {"noise_matrix": np.eye(4)},
            "noise_matrix is given, but filter_by='posterior' estimates the noise itself",
        ),
    ],
)
def test_what_has_no_meaning_for_our_filters_is_refused(kwargs, options, sentence):
    x, given, _ = blobs()
    learner = CleanLearning(LogisticRegression(), find_label_issues_kwargs={"filter_by": "posterior"} | kwargs)
    with pytest.raises(InputError, match=sentence):
        learner.find_label_issues(x, given, **options)


def test_groups_stay_in_one_fold():
    x, given, _ = blobs(200)
    groups = np.arange(200) % 25
    kwargs = {"filter_by": "posterior", "groups": groups}
    learner = CleanLearning(LogisticRegression(), seed=0, find_label_issues_kwargs=kwargs)
    frame = learner.find_label_issues(x, given)
    trainer = SklearnTrainer(LogisticRegression(), x, int(given.max()) + 1)
    expected = label_issues(given, trainer=trainer, groups=groups, progress=False)
    assert (frame["label_quality"] == expected.label_quality).all()
    without = label_issues(given, trainer=trainer, progress=False)
    assert (expected.label_quality != without.label_quality).any()


class Watched(LogisticRegression):
    """Keeps what it is trained on."""

    seen: list[np.ndarray] = []  # noqa: RUF012 (clones share it)

    def fit(self, X, y, sample_weight=None):
        Watched.seen.append(X)
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("named", ["labels", "y"])
def test_nothing_is_learned_from_test_rows_which_are_judged_all_the_same(named):
    x, given, _ = blobs(400)
    splits = np.where(np.arange(400) % 4 == 0, "test", "train")
    Watched.seen = []
    kwargs = {"filter_by": "posterior", "splits": splits}
    learner = CleanLearning(Watched(), seed=0, find_label_issues_kwargs=kwargs)
    learner.fit(x, **{named: given})
    held_out = {row.tobytes() for row in x[splits == "test"]}
    assert len(Watched.seen) > 5
    assert not any(held_out & {row.tobytes() for row in seen} for seen in Watched.seen)
    frame = learner.get_label_issues()
    assert (frame["is_label_issue"] == learner.issues.is_label_issue).all()
    assert learner.issues.by_split()["split"].tolist() == ["train", "test"]
    assert len(Watched.seen[-1]) == ((splits == "train") & ~learner.issues.is_label_issue).sum()
    before = len(Watched.seen)
    learner.fit(x, given, label_issues=frame)
    assert len(Watched.seen) == before + 1
    assert len(Watched.seen[-1]) == len(Watched.seen[before - 1])


def test_splits_of_another_length_get_a_sentence():
    x, given, _ = blobs(100)
    kwargs = {"filter_by": "posterior", "splits": ["train"] * 99}
    with pytest.raises(InputError, match="splits has 99 rows, but labels has 100"):
        CleanLearning(LogisticRegression(), find_label_issues_kwargs=kwargs).fit(x, given)


@pytest.mark.filterwarnings("ignore:The least populated class", "ignore:Duplicated some data", "ignore:May not flag")
def test_the_only_image_of_a_class_has_no_quality():
    x, given, _ = blobs()
    given = np.r_[given, given.max() + 1]
    x = np.r_[x, x[:1]]
    learning = CleanLearning(LogisticRegression(), seed=0)
    with pytest.warns(UserWarning, match=r"^1 class with 1 image only \(\d\): .* so its label_quality is NaN\.$"):
        found = learning.find_label_issues(x, given)
    assert np.isnan(found["label_quality"]).tolist() == [False] * (len(given) - 1) + [True]
    assert learning.label_issues_df["label_quality"].isna().sum() == 1
