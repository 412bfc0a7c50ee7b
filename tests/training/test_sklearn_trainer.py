"""Any scikit-learn classifier as a trainer, also one that does not know all classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression

from cvcoteach._validation import InputError
from cvcoteach.training.sklearn_trainer import SklearnTrainer

X = np.arange(12.0).reshape(6, 2)
ALL = np.arange(6)


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


def test_a_class_that_is_not_among_the_labels_gets_nothing() -> None:
    probs = SklearnTrainer(LogisticRegression(), X, 3).fit_predict(ALL, np.array([0, 0, 0, 2, 2, 2]), ALL, 0)
    assert (probs[:, 1] == 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("n_columns", [3, 2])
def test_an_estimator_without_classes_answers_for_all_or_for_those_it_saw(n_columns: int) -> None:
    labels = np.array([1, 1, 1, 2, 2, 2])
    probs = SklearnTrainer(Columns(n_columns), X, 3).fit_predict(ALL, labels, ALL, 0)
    assert probs.argmax(axis=1).tolist() == [0 if n_columns == 3 else 1] * 6


def test_columns_that_fit_nothing_get_a_sentence() -> None:
    with pytest.raises(
        InputError, match=r"Columns\.predict_proba gives shape \(6, 5\); it takes a column for each of the 3"
    ):
        SklearnTrainer(Columns(5), X, 3).fit_predict(ALL, np.array([0, 0, 1, 1, 2, 2]), ALL, 0)
