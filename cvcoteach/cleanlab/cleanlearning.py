"""cleanlab's CleanLearning, for any scikit-learn classifier, with our filters among its `find_label_issues_kwargs`."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from cleanlab.classification import CleanLearning as _CleanLearning
from cleanlab.internal.util import force_two_dimensions
from cleanlab.internal.validation import assert_valid_inputs, labels_to_array

from cvcoteach._validation import InputError, counted, near
from cvcoteach._working_folder import unsearched
from cvcoteach.cleanlab.limits import limited_flags
from cvcoteach.data.sources.source import some
from cvcoteach.data.splits import as_splits, held_out
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.noise_model.sparse_transition import dense
from cvcoteach.pipeline.in_memory import label_issues
from cvcoteach.pipeline.settings import RULES
from cvcoteach.training.sklearn_trainer import SklearnTrainer

if TYPE_CHECKING:
    import pandas as pd

_LIMITS = {"frac_noise", "num_to_remove_per_class", "min_examples_per_class"}
_INCV = {"n_rounds", "n_folds", "groups", "splits", "progress"}
_TO_FIND = ("pred_probs", "thresholds", "noise_matrix", "inverse_noise_matrix", "clf_kwargs", "validation_func")
_NOISE_KNOWN = ("thresholds", "noise_matrix", "inverse_noise_matrix")


class CleanLearning(_CleanLearning):
    """Works as `cleanlab.classification.CleanLearning`, unless find_label_issues_kwargs names a filter of ours.

    One difference: the only image of a class, which cleanlab has its own model learn, has no quality (NaN), not 1.

    With filter_by="posterior" or "incv", clones of the classifier are trained in rounds of cross-validation, as by
    `cvcoteach.label_issues` with a `SklearnTrainer`; n_rounds, n_folds, groups and splits can stand beside it, and
    cv_n_folds is not used. Of several splits all are judged, and nothing but train is learned from, by `fit`
    neither. `pred_probs`, where given, are flagged without training. `fit` then learns without the flagged,
    weighted by our estimate of the noise; to learn from all images instead,
    `clf.fit(X, labels, sample_weight=sample_weights(self.issues))`.
    """

    issues: LabelIssues
    """What the last `find_label_issues` with a filter of ours found."""

    def fit(self, X: Any, labels: Any = None, **options: Any) -> Self:
        """Learn as cleanlab's does, from what is neither flagged nor held out; arguments are cleanlab's.

        Raises what cleanlab raises, and InputError for splits that do not fit.
        """
        splits = self.find_label_issues_kwargs.get("splits")
        given = options.get("y") if labels is None else labels
        if splits is None or given is None or self.find_label_issues_kwargs.get("filter_by") not in RULES:
            super().fit(X, labels, **options)
            return self
        out = held_out(as_splits(splits, len(given)))
        if out is None:
            super().fit(X, labels, **options)
            return self
        if options.get("label_issues") is None:
            found = self.find_label_issues(X, given, **{name: options[name] for name in _TO_FIND if name in options})
        else:
            found = self._process_label_issues_arg(options["label_issues"], given)
        flags = found["is_label_issue"].to_numpy()
        # cleanlab leaves out what is flagged: so what is held out is, while it learns
        super().fit(X, labels, **{**options, "label_issues": found.assign(is_label_issue=flags | out)})
        assert self.label_issues_df is not None
        self.label_issues_df["is_label_issue"] = flags
        self.label_issues_mask = self.label_issues_df["is_label_issue"]
        return self

    def find_label_issues(self, X: Any = None, labels: Any = None, **options: Any) -> pd.DataFrame:
        """Find label issues; arguments and the first four columns are cleanlab's, more follow (`LabelIssues.to_frame`).

        Raises InputError for arguments without meaning for a filter of ours, and what cleanlab raises.
        """
        rule = self.find_label_issues_kwargs.get("filter_by")
        if rule not in RULES:
            with unsearched():  # by its processes, where the system does not fork them
                frame = super().find_label_issues(X, labels, **options)
            return frame if options.get("pred_probs") is not None else _without_quality(frame)
        settings = {name: value for name, value in self.find_label_issues_kwargs.items() if name != "filter_by"}
        for name in settings:
            if name not in _LIMITS | _INCV:
                raise InputError(
                    f"find_label_issues_kwargs holds {name!r}, which has no meaning with filter_by={rule!r}; "
                    f"{near(name, _LIMITS | _INCV)}"
                )
        for name in _NOISE_KNOWN:
            if options.get(name) is not None:
                raise InputError(f"{name} is given, but filter_by={rule!r} estimates the noise itself; leave it out.")
        found = self._found(X, labels, rule, options, {name: settings[name] for name in settings if name in _INCV})
        limits = {"min_examples_per_class": 10} | {name: settings[name] for name in settings if name in _LIMITS}
        flags = limited_flags(found.labels, found.label_quality, found.is_label_issue, found.n_classes, **limits)
        self.issues = replace(found, is_label_issue=flags)
        self._adopt(self.issues)
        frame = self.issues.to_frame()
        if not options.get("save_space", False):
            self.label_issues_df, self.label_issues_mask = frame, frame["is_label_issue"]
        return frame

    def _found(self, X: Any, labels: Any, rule: str, options: dict[str, Any], incv: dict[str, Any]) -> LabelIssues:
        pred_probs = options.get("pred_probs")
        assert_valid_inputs(X, labels, pred_probs)
        y = labels_to_array(labels)
        self.clf_kwargs = options.get("clf_kwargs") or {}
        if pred_probs is not None:
            return label_issues(y, pred_probs, filter_by=rule, splits=incv.get("splits"))
        if self._default_clf:
            X = force_two_dimensions(X)
        if self.clf_kwargs or options.get("validation_func") is not None:
            raise InputError(
                f"clf_kwargs and validation_func do not reach the folds of filter_by={rule!r}; leave them out."
            )
        trainer = SklearnTrainer(self.clf, X, int(y.max()) + 1)
        return label_issues(y, trainer=trainer, filter_by=rule, seed=self.seed or 0, **{"progress": False} | incv)

    def _adopt(self, issues: LabelIssues) -> None:
        """Put our estimate of the noise where `fit` looks for cleanlab's."""
        self.num_classes = issues.n_classes
        counts = np.bincount(issues.labels, minlength=issues.n_classes)
        self.ps, self.py = counts / counts.sum(), issues.prior
        transition = dense(issues.transition)
        self.noise_matrix = transition.T
        self.confident_joint = issues.confident_joint
        joint = issues.prior[:, None] * transition
        self.inverse_noise_matrix = joint / np.maximum(joint.sum(axis=0), np.finfo(float).tiny)


def _without_quality(frame: pd.DataFrame) -> pd.DataFrame:
    """Return cleanlab's table with NaN as the quality of the only image of a class, and warn of it.

    cleanlab puts such an image into the training of the very model that judges it.
    """
    counts = frame["given_label"].value_counts()
    lone = counts.index[counts == 1]
    if len(lone):
        warnings.warn(
            f"{counted(len(lone), 'class', 'classes')} with 1 image only ({some(map(str, lone))}): no model can "
            "judge its label, so its label_quality is NaN.",
            stacklevel=3,
        )
        frame.loc[frame["given_label"].isin(lone), "label_quality"] = np.nan
    return frame
