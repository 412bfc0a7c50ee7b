"""Independent views of the same images: probabilities of several kinds of models, fused into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logsumexp

from cvcoteach._validation import FloatArray, InputError, IntArray, PredProbs, as_labels, as_pred_probs
from cvcoteach.crossval.trainer import Finished, FoldTrainer
from cvcoteach.noise_model.base import chunks
from cvcoteach.noise_model.top_probs import Answer, many

_FLOOR = 0.01
"""Times 1/K: below this, a probability says no more than that the class is out of the question."""
_MOST_ROWS, _MOST_NUMBERS = 20_000, 4_000_000
"""What the weights of views are fitted to, at most: rows, and probabilities of a view."""


@dataclass(frozen=True, eq=False)
class View:
    """What the models of one trainer said."""

    pred_probs: PredProbs
    """(n, K) out-of-sample probabilities."""
    weight: float
    """Its exponent in the weighted geometric mean of all views; these sum to 1."""


def fuse_pred_probs(labels: npt.ArrayLike, views: Sequence[npt.ArrayLike]) -> PredProbs:
    """Fuse out-of-sample probabilities of models that err differently: their geometric mean, weighted by evidence.

    The weights are those with which the mean explains the given labels best. A view that knows nothing gets none.

    Args:
        labels: (n,) given, whole numbers 0..K-1.
        views: (n, K) probabilities of each view.

    Returns:
        (n, K) probabilities, rows sum to 1.

    Raises:
        InputError: For no views, for labels or probabilities that do not fit, and for views of different shapes.
    """
    if not len(views):
        raise InputError("views is empty; it takes the probabilities of at least one view.")
    shapes = [np.shape(view) for view in views]
    for number, shape in enumerate(shapes, start=1):
        if len(shape) != 2:
            raise InputError(f"view {number} has shape {shape}; each view has one row per image, shape (n, K).")
        for axis, what in enumerate(("images", "classes")):
            if shape[axis] != shapes[0][axis]:
                raise InputError(
                    f"view {number} has {shape[axis]:,} {what}, but view 1 has {shapes[0][axis]:,}; all views give the "
                    "probabilities of the same images and classes, in the same order."
                )
    y, k = as_labels(labels, shapes[0][1])
    checked = [as_pred_probs(view, (len(y), k), f"view {i}") for i, view in enumerate(views, start=1)]
    return np.asarray(fused(checked, y, slice(None))[0])


def fused(views: Sequence[Answer], labels: IntArray, inside: IntArray | slice) -> tuple[Answer, FloatArray]:
    """Return the weighted geometric mean (n, K) of the views (n, K), and their weights (v,); see `fuse_pred_probs`.

    inside: the images that models may learn from, to which the weights are fitted.
    """
    if len(views) == 1:
        return views[0], np.ones(1)
    arrays = [np.asarray(view) for view in views]
    weights = _weights(labels[inside], [array[inside] for array in arrays])
    return geometric_mean(arrays, weights), weights


def geometric_mean(views: Sequence[PredProbs], weights: FloatArray) -> PredProbs:
    """Return the geometric mean (n, K) of views (n, K) with weights (v,), rows sum to 1."""
    n, k = views[0].shape
    result = np.empty((n, k), np.float32)
    for rows in chunks(n, k):
        log = _log_mean(weights, [_logs(view[rows]) for view in views])
        result[rows] = np.exp(log - logsumexp(log, axis=1, keepdims=True))
    return result


def _weights(labels: IntArray, views: Sequence[PredProbs]) -> FloatArray:
    """Return the exponents, at least 0 and with sum 1, under which the given labels are most likely."""
    n, k = views[0].shape
    most = max(1, min(_MOST_ROWS, _MOST_NUMBERS // k))
    rows = np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)
    each, given = np.arange(len(rows)), labels[rows]
    logs = [_logs(view[rows]) for view in views]
    of_given = np.array([log[each, given].mean() for log in logs])

    def loss(exponents: FloatArray) -> tuple[float, FloatArray]:  # convex
        total = _log_mean(exponents, logs)
        norm = logsumexp(total, axis=1, keepdims=True)
        probs = np.exp(total - norm)
        slope = np.array([(probs * log).sum(axis=1).mean() for log in logs]) - of_given
        return float(norm.mean() - exponents @ of_given), slope

    start = np.full(len(views), 1 / len(views))
    found: FloatArray = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(views)).x
    return found / found.sum() if np.isfinite(found).all() and found.sum() > 0 else start


def _logs(probs: PredProbs) -> FloatArray:
    return np.log(np.maximum(probs, _FLOOR / probs.shape[1], dtype=np.float64))


def _log_mean(weights: FloatArray, logs: Sequence[FloatArray]) -> FloatArray:
    total: FloatArray = np.sum([weight * log for weight, log in zip(weights, logs, strict=True)], axis=0)
    return total


def as_trainers(trainer: Any, n_images: int) -> tuple[FoldTrainer, ...]:
    """Return the trainers of all views: one, or those of a list.

    Raises:
        InputError: For what is no trainer, for none at all, and for one of another number of images.
    """
    trainers = tuple(trainer) if isinstance(trainer, list | tuple) else (trainer,)
    if not trainers:
        raise InputError("trainer is an empty list; it takes a FoldTrainer, or one for each view.")
    for number, each in enumerate(trainers, start=1):
        what = "trainer" if len(trainers) == 1 else f"trainer {number}"
        if not callable(getattr(each, "fit_predict", None)):
            raise InputError(
                f"{what} is a {type(each).__name__} without fit_predict; it takes a FoldTrainer, such as "
                "TorchTrainer, HeadTrainer or SklearnTrainer(estimator, X)."
            )
        n_rows = getattr(each, "n_images", None)
        if len(trainers) > 1 and isinstance(n_rows, int) and n_rows != n_images:
            raise InputError(f"{what} has {n_rows:,} images, but there are {n_images:,} labels; each view sees all.")
    return trainers


def check_views(n_views: int, n_images: int, n_classes: int, select: str) -> None:
    """Raise InputError where several trainers have no place."""
    several = f"{n_views} trainers are given"
    if n_views > 1 and select == "agreement":
        raise InputError(f"{several}, but select agreement is algorithm 1, which takes a single one.")
    if n_views > 1 and many(n_images, n_classes):
        raise InputError(
            f"{several}, but {n_classes:,} classes of {n_images:,} images are too many probabilities to fuse; give one."
        )


def finished_of(finished: Finished | Sequence[Finished] | None, n_views: int) -> tuple[Finished | None, ...]:
    """Return the finished folds of each view. Raises InputError where a list of them has another length."""
    if finished is None:
        return (None,) * n_views
    each = tuple(finished) if isinstance(finished, list | tuple) else (finished,)
    if len(each) != n_views:
        raise InputError(f"finished has folds of {len(each)} views; there are {n_views} trainers.")
    return each
