"""Classifiers of scikit-learn as fold trainers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from cvcoteach._validation import InputError
from cvcoteach.training.sklearn_trainer import SklearnTrainer
from tests.features import K, clusters, folds_of


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
