"""One algorithm behind every door: the same trainer and seed give the same answer."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cvcoteach import (
    CoTeaching,
    HeadTrainer,
    IterativeCV,
    LabelIssues,
    RunResults,
    Settings,
    SklearnTrainer,
    find_issues,
    find_label_issues,
    label_issues,
)
from cvcoteach._validation import IntArray
from cvcoteach.cleanlab.cleanlearning import CleanLearning
from cvcoteach.noise_model import simulate as noise
from cvcoteach.pipeline.settings import InMemorySettings
from cvcoteach.training.standardisation import Standardisation

N, K, SEED = 400, 4, 3
NAMES = ("ant", "bee", "cow", "dog")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, IntArray]:
    """Features (n, 8) of four clusters that overlap, and labels of which a fifth is wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=N)
    features = (2.2 * rng.normal(size=(K, 8))[true] + rng.normal(size=(N, 8))).astype(np.float32)
    return features, noise.flip_labels(true, noise.transition("symmetric", 0.2, K), rng)


def assert_same(found: LabelIssues, expected: LabelIssues) -> None:
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.predicted, expected.predicted)
    np.testing.assert_array_equal(found.label_quality, expected.label_quality)
    np.testing.assert_array_equal(found.is_label_issue, expected.is_label_issue)
    np.testing.assert_array_equal(found.suggested, expected.suggested)
    np.testing.assert_array_equal(found.suggested_prob, expected.suggested_prob)
    assert (found.filter_by, found.flag_for, found.note) == (expected.filter_by, expected.flag_for, expected.note)


@pytest.mark.slow
@pytest.mark.parametrize(("filter_by", "select"), [("posterior", "posterior"), ("incv", "agreement")])
def test_every_door_gives_the_same_answer(
    data: tuple[np.ndarray, IntArray], filter_by: str, select: str, tmp_path: Path
) -> None:
    pytest.importorskip("datasets", reason="Datalab needs cleanlab[datalab]")
    from cleanlab import Datalab

    from cvcoteach.cleanlab.datalab import INCVIssueManager

    features, labels = data
    expected = IterativeCV(select, seed=SEED).run(HeadTrainer(features, K), labels).issues(NAMES)
    assert 40 < expected.n_issues < 200

    np.save(tmp_path / "features.npy", features)
    np.savez(tmp_path / "images.npz", images=np.zeros((N, 4, 4), np.uint8), labels=np.array(NAMES)[labels])
    settings = Settings(features=tmp_path / "features.npy", seed=SEED, select=select)
    run = find_issues(tmp_path / "images.npz", tmp_path / "run", settings)
    assert_same(run.issues(), expected)
    assert_same(RunResults.load(tmp_path / "run").issues(), expected)

    options = {"filter_by": filter_by, "seed": SEED, "progress": False}
    assert_same(label_issues(labels, features=features, class_names=NAMES, **options), expected)
    assert_same(label_issues(labels, trainer=HeadTrainer(features, K), class_names=NAMES, **options), expected)
    mask = find_label_issues(labels, features=features, min_examples_per_class=0, **options)
    np.testing.assert_array_equal(mask, expected.is_label_issue)
    ranked = find_label_issues(labels, features=features, return_indices_ranked_by="posterior", **options)
    np.testing.assert_array_equal(ranked, expected.worst_first())

    lab = Datalab({"label": np.array(NAMES)[labels]}, label_name="label", verbosity=0)
    lab.find_issues(issue_types={INCVIssueManager.issue_name: {"features": features, **options}})
    frame = lab.get_issues("incv")
    np.testing.assert_array_equal(frame["is_incv_issue"], expected.is_label_issue)
    np.testing.assert_array_equal(frame["incv_score"], expected.label_quality)
    assert frame["incv_suggestion"].tolist() == np.array(NAMES)[expected.suggested].tolist()


@pytest.mark.parametrize(("filter_by", "select"), [("posterior", "posterior"), ("incv", "agreement")])
def test_clean_learning_runs_the_same_rounds(data: tuple[np.ndarray, IntArray], filter_by: str, select: str) -> None:
    features, labels = data
    classifier = LogisticRegression()
    expected = IterativeCV(select, seed=SEED).run(SklearnTrainer(classifier, features, K), labels).issues()
    limits = {"min_examples_per_class": 0}
    learner = CleanLearning(classifier, seed=SEED, find_label_issues_kwargs={"filter_by": filter_by, **limits})
    frame = learner.find_label_issues(features, labels)
    assert_same(learner.issues, expected)
    np.testing.assert_array_equal(frame["is_label_issue"], expected.is_label_issue)
    trainer = SklearnTrainer(classifier, features, K)
    assert_same(label_issues(labels, trainer=trainer, filter_by=filter_by, seed=SEED, progress=False), expected)


def test_every_door_has_the_defaults_of_the_algorithm() -> None:
    assert Settings().cross_validation == InMemorySettings().cross_validation == IterativeCV()
    for door in (label_issues, find_label_issues, CoTeaching):
        parameters = inspect.signature(door).parameters
        assert parameters["n_rounds"].default is None
        assert parameters["n_folds"].default is None
    assert CoTeaching().select == IterativeCV().select


@pytest.mark.slow
def test_co_teaching_takes_for_right_what_the_algorithm_does_not_flag(data: tuple[np.ndarray, IntArray]) -> None:
    features, labels = data
    standard = Standardisation.of(features).applied(features)
    for select in ("posterior", "agreement"):
        model = CoTeaching(select=select, epochs=1, threads=1, device="cpu", random_state=0).fit(features, labels)
        found = model.cross_validation_
        seed = int(np.random.RandomState(0).randint(2**31 - 1))
        assert found.posterior.labels.tolist() == labels.tolist()
        again = IterativeCV(select, seed=seed).run(HeadTrainer(standard, K, device="cpu", threads=1), labels)
        np.testing.assert_array_equal(model.selected_, again.selected if select == "agreement" else ~again.flags)
