"""Find the wrong labels in an image dataset, by Iterative Noisy Cross-Validation.

Importing this loads neither torch nor fiftyone: each public name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cvcoteach._version import __version__ as __version__
from cvcoteach._working_folder import import_elsewhere as _import_elsewhere

_import_elsewhere("torch")  # for whoever calls from Python and in workers, too

_HOMES = {
    "CoTeaching": "coteaching.estimator",
    "cross_validate": "crossval.kfold",
    "CrossValResult": "crossval.incv",
    "expected_precision_recall": "issues.precision_recall",
    "find_issues": "pipeline.find_issues",
    "find_label_issues": "cleanlab.filter",
    "fit_posterior": "noise_model.posterior",
    "FoldTrainer": "crossval.trainer",
    "fuse_pred_probs": "crossval.views",
    "get_label_quality_scores": "cleanlab.filter",
    "HeadTrainer": "training.head_trainer",
    "how_many_reviews": "issues.reviews",
    "InputError": "_validation",
    "IterativeCV": "crossval.incv",
    "label_issues": "pipeline.in_memory",
    "label_posterior": "noise_model.posterior",
    "LabelIssues": "issues.label_issues",
    "Machine": "pipeline.settings",
    "measured_precision_recall": "issues.reviews",
    "noise_transition": "noise_model.posterior",
    "plot_confusions": "pipeline.plots",
    "plot_noise_per_class": "pipeline.plots",
    "plot_quality": "pipeline.plots",
    "plot_reliability": "pipeline.plots",
    "plot_rounds": "pipeline.plots",
    "RayCluster": "engines.cluster",
    "RayTrainer": "engines.trainer",
    "review_sample": "issues.reviews",
    "RunResults": "pipeline.results",
    "sample_weights": "issues.label_issues",
    "Settings": "pipeline.settings",
    "SklearnTrainer": "training.sklearn_trainer",
    "TorchTrainer": "training.torch_trainer",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cvcoteach' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cvcoteach.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]


if TYPE_CHECKING:
    from cvcoteach._validation import InputError as InputError
    from cvcoteach.cleanlab.filter import find_label_issues as find_label_issues
    from cvcoteach.cleanlab.filter import get_label_quality_scores as get_label_quality_scores
    from cvcoteach.coteaching.estimator import CoTeaching as CoTeaching
    from cvcoteach.crossval.incv import IterativeCV as IterativeCV
    from cvcoteach.crossval.kfold import cross_validate as cross_validate
    from cvcoteach.crossval.result import CrossValResult as CrossValResult
    from cvcoteach.crossval.trainer import FoldTrainer as FoldTrainer
    from cvcoteach.crossval.views import fuse_pred_probs as fuse_pred_probs
    from cvcoteach.engines.cluster import RayCluster as RayCluster
    from cvcoteach.engines.trainer import RayTrainer as RayTrainer
    from cvcoteach.issues.label_issues import LabelIssues as LabelIssues
    from cvcoteach.issues.label_issues import sample_weights as sample_weights
    from cvcoteach.issues.precision_recall import expected_precision_recall as expected_precision_recall
    from cvcoteach.issues.reviews import how_many_reviews as how_many_reviews
    from cvcoteach.issues.reviews import measured_precision_recall as measured_precision_recall
    from cvcoteach.issues.reviews import review_sample as review_sample
    from cvcoteach.noise_model.posterior import fit_posterior as fit_posterior
    from cvcoteach.noise_model.posterior import label_posterior as label_posterior
    from cvcoteach.noise_model.posterior import noise_transition as noise_transition
    from cvcoteach.pipeline.find_issues import find_issues as find_issues
    from cvcoteach.pipeline.in_memory import label_issues as label_issues
    from cvcoteach.pipeline.plots import plot_confusions as plot_confusions
    from cvcoteach.pipeline.plots import plot_noise_per_class as plot_noise_per_class
    from cvcoteach.pipeline.plots import plot_quality as plot_quality
    from cvcoteach.pipeline.plots import plot_reliability as plot_reliability
    from cvcoteach.pipeline.plots import plot_rounds as plot_rounds
    from cvcoteach.pipeline.results import RunResults as RunResults
    from cvcoteach.pipeline.settings import Machine as Machine
    from cvcoteach.pipeline.settings import Settings as Settings
    from cvcoteach.training.head_trainer import HeadTrainer as HeadTrainer
    from cvcoteach.training.sklearn_trainer import SklearnTrainer as SklearnTrainer
    from cvcoteach.training.torch_trainer import TorchTrainer as TorchTrainer
