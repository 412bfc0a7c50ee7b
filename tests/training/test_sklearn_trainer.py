"""Classifiers of scikit-learn as fold trainers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from cvcoteach._validation import InputError
from cvcoteach.training.sklearn_trainer import SklearnTrainer
from tests.features import K, clusters, folds_of

X = np.arange(12.0).reshape(6, 2)
ROWS = np.arange(6)


class Columns(BaseEstimator):
    """Answers so many columns, the first of them sure; lacks classes_, as wrapped networks may."""

    def __init__(self, n_columns: int = 3) -> None:
        """n_columns: of its answers."""
        self.n_columns = n_columns

    def fit(self, X: Any, y: Any) -> Columns:
        """Learn nothing."""
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Sure of the first column."""
        return np.eye(self.n_columns)[np.zeros(len(X), int)]


def test_it_answers_as_the_classifier_fitted_by_hand():
    X, labels = clusters()
    fold = folds_of(labels)[0]
    by_hand = LogisticRegression().fit(X[fold.train_idx], fold.train_labels).predict_proba(X[fold.eval_idx])
    answer = SklearnTrainer(LogisticRegression(), X, K).fit_predict(*fold)
    np.testing.assert_allclose(answer, by_hand, atol=1e-6)
    assert answer.dtype == np.float32


def test_a_class_that_is_missing_gets_nothing_and_the_others_their_own_column():
    X, labels = clusters()
    train = np.flatnonzero(labels != 1)
    answer = SklearnTrainer(GaussianNB(), X, K).fit_predict(train, labels[train], train, 0)
    assert (answer[:, 1] == 0).all()
    assert (answer.argmax(axis=1) == labels[train]).mean() > 0.9


def test_a_single_class_is_certain_whatever_the_classifier_thinks_of_it():
    X, _ = clusters(20)
    answer = SklearnTrainer(LogisticRegression(), X, K).fit_predict(np.arange(10), np.full(10, 2), np.arange(10, 20), 0)
    np.testing.assert_array_equal(answer, np.eye(K)[np.full(10, 2)])


def test_the_seed_reaches_every_random_state():
    X, labels = clusters(200)
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(10))
    trainer = SklearnTrainer(pipeline, X, K)
    fold = folds_of(labels)[0]
    np.testing.assert_array_equal(trainer.fit_predict(*fold), trainer.fit_predict(*fold))
    assert not np.array_equal(trainer.fit_predict(*fold), trainer.fit_predict(*fold._replace(seed=2**32 - 1)))
    assert pipeline[-1].random_state is None  # the caller's own is left alone


def test_an_estimator_without_probabilities_is_a_sentence():
    with pytest.raises(InputError, match="estimator is LinearSVC, which has no predict_proba"):
        SklearnTrainer(LinearSVC(), np.zeros((4, 2)), 2)


def test_frames_are_taken_by_row():
    X, labels = clusters(100)
    fold = folds_of(labels)[0]
    frame = pd.DataFrame(X, index=np.arange(100, 200)[::-1])
    answers = [SklearnTrainer(GaussianNB(), each, K).fit_predict(*fold) for each in (X, frame)]
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_a_class_that_is_not_among_the_labels_gets_nothing() -> None:
    probs = SklearnTrainer(LogisticRegression(), X, 3).fit_predict(ROWS, np.array([0, 0, 0, 2, 2, 2]), ROWS, 0)
    assert (probs[:, 1] == 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("n_columns", [3, 2])
def test_an_estimator_without_classes_answers_for_all_or_for_those_it_saw(n_columns: int) -> None:
    labels = np.array([1, 1, 1, 2, 2, 2])
    probs = SklearnTrainer(Columns(n_columns), X, 3).fit_predict(ROWS, labels, ROWS, 0)
    assert probs.argmax(axis=1).tolist() == [0 if n_columns == 3 else 1] * 6


def test_columns_that_fit_nothing_get_a_sentence() -> None:
    with pytest.raises(
        InputError, match=r"Columns\.predict_proba gives shape \(6, 5\); it takes a column for each of the 3"
    ):
        SklearnTrainer(Columns(5), X, 3).fit_predict(ROWS, np.array([0, 0, 1, 1, 2, 2]), ROWS, 0)
