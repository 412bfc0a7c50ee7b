"""Find the wrong labels in an image dataset, by Iterative Noisy Cross-Validation.

Importing this loads neither torch nor fiftyone: each public name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "CoTeaching": "training.coteaching_estimator",
    "cross_validate": "crossval",
    "CrossValResult": "crossval",
    "expected_precision_recall": "readout",
    "find_issues": "runs",
    "find_label_issues": "dropin",
    "fit_posterior": "transition",
    "FoldTrainer": "crossval",
    "get_label_quality_scores": "dropin",
    "HeadTrainer": "training.features",
    "how_many_reviews": "reviews",
    "InputError": "_checks",
    "IterativeCV": "crossval",
    "label_issues": "detection",
    "label_posterior": "transition",
    "LabelIssues": "issues",
    "Machine": "runs",
    "measured_precision_recall": "reviews",
    "noise_transition": "transition",
    "review_sample": "reviews",
    "sample_weights": "issues",
    "Settings": "runs",
    "SklearnTrainer": "training.features",
    "TorchTrainer": "training.folds",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cvcoteach' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cvcoteach.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]


if TYPE_CHECKING:
    from cvcoteach._checks import InputError as InputError
    from cvcoteach.crossval import CrossValResult as CrossValResult
    from cvcoteach.crossval import FoldTrainer as FoldTrainer
    from cvcoteach.crossval import IterativeCV as IterativeCV
    from cvcoteach.crossval import cross_validate as cross_validate
    from cvcoteach.detection import label_issues as label_issues
    from cvcoteach.dropin import find_label_issues as find_label_issues
    from cvcoteach.dropin import get_label_quality_scores as get_label_quality_scores
    from cvcoteach.issues import LabelIssues as LabelIssues
    from cvcoteach.issues import sample_weights as sample_weights
    from cvcoteach.readout import expected_precision_recall as expected_precision_recall
    from cvcoteach.reviews import how_many_reviews as how_many_reviews
    from cvcoteach.reviews import measured_precision_recall as measured_precision_recall
    from cvcoteach.reviews import review_sample as review_sample
    from cvcoteach.runs import Machine as Machine
    from cvcoteach.runs import Settings as Settings
    from cvcoteach.runs import find_issues as find_issues
    from cvcoteach.training.coteaching_estimator import CoTeaching as CoTeaching
    from cvcoteach.training.features import HeadTrainer as HeadTrainer
    from cvcoteach.training.features import SklearnTrainer as SklearnTrainer
    from cvcoteach.training.folds import TorchTrainer as TorchTrainer
    from cvcoteach.transition import fit_posterior as fit_posterior
    from cvcoteach.transition import label_posterior as label_posterior
    from cvcoteach.transition import noise_transition as noise_transition
