"""Any scikit-learn classifier as a fold trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

from cvcoteach._validation import InputError, IntArray, PredProbs, check_at_least


class SklearnTrainer:
    """A `FoldTrainer` that fits a clone of a scikit-learn classifier to each fold."""

    def __init__(self, estimator: Any, X: Any, n_classes: int) -> None:
        """Take the classifier and what it is fitted to.

        Args:
            estimator: Has `predict_proba`; it stays unfitted.
            X: What its `fit` takes, one row per image: an array, a sparse matrix or a data frame.
            n_classes: K, at least 2.

        Raises:
            InputError: The estimator has no `predict_proba`.
        """
        if not hasattr(estimator, "predict_proba"):
            name = type(estimator).__name__
            raise InputError(f"estimator is {name}, which has no predict_proba; CalibratedClassifierCV adds one.")
        check_at_least("n_classes", n_classes, 2)
        self._estimator, self._n_classes = estimator, n_classes
        self._X = X if hasattr(X, "shape") else np.asarray(X)
        self.features = self._X if isinstance(self._X, np.ndarray) and self._X.dtype.kind == "f" else None

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Fit a clone to `train_idx` with `train_labels` (m,), and return the probabilities (e, K) of `eval_idx`.

        Every `random_state` of the estimator and its parts comes from `seed`. A class that is not among the labels
        gets probability 0.
        """
        answer = np.zeros((len(eval_idx), self._n_classes), np.float32)
        present = np.unique(train_labels)
        if len(present) == 1:  # many classifiers refuse a single class
            answer[:, present] = 1
            return answer
        model = clone(self._estimator)
        states = [name for name in model.get_params() if name == "random_state" or name.endswith("__random_state")]
        model.set_params(**dict.fromkeys(states, seed % 2**32))
        model.fit(self._take(train_idx), train_labels)
        probs = np.asarray(model.predict_proba(self._take(eval_idx)))
        answer[:, self._columns(model, probs.shape, present)] = probs
        return answer

    @property
    def n_images(self) -> int:
        """The number of rows to train on."""
        return int(self._X.shape[0])

    def _columns(self, model: Any, shape: tuple[int, ...], present: IntArray) -> IntArray:
        """Return the class of each column of an answer: of all K, of those the model names, or of those it saw.

        Raises InputError where the columns are neither.
        """
        named = np.asarray(getattr(model, "classes_", present))
        if len(shape) == 2:
            for classes in (named, np.arange(self._n_classes), present):
                if shape[1] == len(classes) and classes.dtype.kind in "iu":
                    return classes.astype(np.int64)
        raise InputError(
            f"{type(model).__name__}.predict_proba gives shape {shape}; it takes a column for each of the "
            f"{self._n_classes} classes, or for each of the {len(present)} that were trained on."
        )

    def _take(self, idx: IntArray) -> Any:
        return self._X.iloc[idx] if hasattr(self._X, "iloc") else self._X[idx]
