"""From labels, with probabilities, images, features or any trainer, to LabelIssues."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._validation import (
    BoolArray,
    FloatArray,
    InputError,
    IntArray,
    as_array,
    check_at_least,
    check_columns,
    check_rows,
    encode_labels,
    lookalikes,
    near,
)
from cvcoteach.crossval.final_scoring import HEAD_PASSES, FinalScores, FinalScoring
from cvcoteach.crossval.incv import CrossValResult, IterativeCV
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.crossval.trainer import FoldProgress, FoldTrainer, OnFold
from cvcoteach.issues.label_issues import LabelIssues, flags_of, issues_of
from cvcoteach.noise_model.posterior import Posterior, fit_posterior

RULES = ("posterior", "incv")
SOURCES = ("pred_probs", "images", "features", "trainer")


def label_issues(
    labels: npt.ArrayLike,
    pred_probs: npt.ArrayLike | None = None,
    *,
    images: Any = None,
    features: npt.ArrayLike | None = None,
    trainer: FoldTrainer | None = None,
    filter_by: str = "posterior",
    class_names: Sequence[str] | None = None,
    n_rounds: int = 4,
    n_folds: int | None = None,
    seed: int = 0,
    progress: bool | OnFold = True,
) -> LabelIssues:
    """All that `find_label_issues` knows, in one object: qualities, flags, suggestions, the transition.

    labels: (n,) class numbers 0..K-1, or names; the index of a pandas Series is that of `LabelIssues.to_frame`.
    class_names: (K,), in the order of the numbers, or of the columns.
    pred_probs: (n, K) out-of-sample probabilities. Instead of them one of
    images: (n, H, W) or (n, H, W, C) pixels, paths, or a torch Dataset: networks are trained on them, fold by fold;
    features: (n, d) embeddings, on which linear heads are trained;
    trainer: a `FoldTrainer`.
    filter_by: "posterior" flags what is probably wrong - with anything to train on, after a last scoring by models that
        learned only from labels taken for right, or corrected (`FinalScoring`); "incv" what Iterative Noisy
        Cross-Validation did not select - on `pred_probs`, with nothing to iterate: where the prediction is another
        class.
    n_rounds: of INCV. n_folds: 2 for INCV as in the paper, else 5. seed: of splits and trainings.
    progress: a bar on stderr, nothing, or a function told of every fold.

    Raises InputError for what does not fit, and where not exactly one source is given.
    """
    sources = {"pred_probs": pred_probs, "images": images, "features": features, "trainer": trainer}
    issues = judge(labels, sources, filter_by, class_names, Plan(n_rounds, n_folds, seed, progress)).issues()
    return replace(issues, index=labels.index) if isinstance(labels, pd.Series) else issues


def label_issues_from(
    result: CrossValResult, *, filter_by: str = "posterior", class_names: Sequence[str] | None = None
) -> LabelIssues:
    """The label issues of a finished INCV run.

    Qualities and suggestions are the posterior's, from the probabilities of round 1: those of all images, each by
    a model of the same kind. Flags: "posterior", or "incv" for every image that INCV did not select.
    """
    check_rule(filter_by)
    posterior = fit_posterior(result.labels, result.rounds[0].pred_probs)
    return Verdict(posterior, None, None if filter_by == "posterior" else ~result.selected, class_names).issues()


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was found out about every label, before the suggestions and tables of LabelIssues are made of it."""

    posterior: Posterior
    scores: FinalScores | None = None
    """Of the final scoring, where there was a trainer to train them."""
    incv_flags: BoolArray | None = None
    """(n,) INCV's flags, where these were asked for."""
    class_names: Sequence[str] | None = None

    @property
    def label_quality(self) -> FloatArray:
        """(n,) probability that the given label is right, in [0, 1]."""
        return self.posterior.label_quality if self.scores is None else self.scores.label_quality

    @property
    def flags(self) -> BoolArray:
        """(n,) flagged as wrong."""
        if self.incv_flags is not None:
            return self.incv_flags
        return flags_of(self.posterior) if self.scores is None else self.scores.is_label_issue

    def issues(self) -> LabelIssues:
        """All of it."""
        if self.scores is not None:
            return self.scores.issues(self.class_names)
        rule = "posterior" if self.incv_flags is None else "incv"
        return issues_of(self.posterior, class_names=self.class_names, flags=self.flags, filter_by=rule)


@dataclass(frozen=True)
class Plan:
    """How models are trained where there is a trainer."""

    n_rounds: int = 4
    """Of INCV."""
    n_folds: int | None = None
    """None: the paper's 2 for INCV, 5 for the posterior."""
    seed: int = 0
    progress: bool | OnFold = True


def judge(
    labels: npt.ArrayLike,
    sources: Mapping[str, Any],
    filter_by: str,
    class_names: Sequence[str] | None,
    plan: Plan,
) -> Verdict:
    """As `label_issues`. sources: pred_probs, images, features and trainer by name, None for those not given."""
    kind = one_source(sources)
    check_rule(filter_by)
    if kind == "pred_probs":
        return _judge_pred_probs(labels, sources[kind], filter_by, class_names)
    y, names = encode_labels(labels, class_names)
    if class_names is None:
        _warn_of_lookalikes(names)
    names = names or tuple(map(str, range(int(y.max()) + 1)))
    trainer = trainer_of(kind, sources[kind], len(names))
    n_rows = getattr(trainer, "n_images", None)
    if isinstance(n_rows, int):
        check_rows(len(y), kind, n_rows)
    if filter_by == "incv":
        incv = IterativeCV(plan.n_rounds, plan.n_folds or 2, seed=plan.seed)
        with _Progress(plan.progress, incv.n_rounds * incv.n_folds) as on_fold:
            result = incv.run(trainer, y, n_classes=len(names), on_fold=on_fold)
        return Verdict(fit_posterior(y, result.rounds[0].pred_probs), None, ~result.selected, names)

    n_folds = 5 if plan.n_folds is None else plan.n_folds
    # heads cost seconds: more passes are worth them
    scoring = FinalScoring(n_folds=n_folds, passes=HEAD_PASSES if kind == "features" else 1, seed=plan.seed)
    with _Progress(plan.progress, n_folds + scoring.n_trainings) as on_fold:
        probs = cross_validate(trainer, y, n_folds=n_folds, seed=plan.seed, n_classes=len(names), on_fold=on_fold)
        scores = scoring.run(trainer, y, probs, on_fold=on_fold)
    return Verdict(scores.posterior, scores, None, names)


def _judge_pred_probs(
    labels: npt.ArrayLike, pred_probs: npt.ArrayLike, filter_by: str, class_names: Sequence[str] | None
) -> Verdict:
    # neither is converted here: a copy of something large is what memory runs out of
    probs, array = as_array(pred_probs, "pred_probs"), as_array(labels, "labels")
    if probs.ndim == 2 and array.ndim == 1:
        check_rows(len(array), "pred_probs", len(probs))
    if array.dtype.kind not in "iuf":
        array, names = encode_labels(array, class_names)
        if class_names is None:
            _warn_of_lookalikes(names)
            if names is not None and probs.ndim == 2:
                check_columns(names, probs.shape[1], from_labels=True)
        class_names = names
    if class_names is not None and probs.ndim == 2:
        check_columns(class_names, probs.shape[1], from_labels=False)
    posterior = fit_posterior(array, probs)
    y = posterior.labels
    disagrees = probs[np.arange(len(y)), y] < probs.max(axis=1) if filter_by == "incv" else None
    return Verdict(posterior, None, disagrees, class_names)


def _warn_of_lookalikes(names: Sequence[str] | None) -> None:
    for note in lookalikes(names or ()):
        warnings.warn(note, stacklevel=4)


def limited_flags(
    labels: IntArray,
    quality: FloatArray,
    flags: BoolArray,
    n_classes: int,
    *,
    frac_noise: float = 1.0,
    num_to_remove_per_class: Iterable[int] | None = None,
    min_examples_per_class: int = 1,
) -> BoolArray:
    """The flags (n,) that remain under cleanlab's options; those of the lowest quality (n,) go first.

    frac_noise: in [0, 1], share of the flags that stays.
    num_to_remove_per_class: (K,) flags so many of the images given each class, instead of the rule's.
    min_examples_per_class: so many of each class stay unflagged, all if it has fewer.

    Raises InputError where an option does not fit, or frac_noise and num_to_remove_per_class contradict each other.
    """
    if not 0 <= frac_noise <= 1:
        raise InputError(f"frac_noise is {frac_noise}; it is the share of the flags that stays, from 0 to 1.")
    check_at_least("min_examples_per_class", min_examples_per_class, 0)
    room = np.maximum(np.bincount(labels, minlength=n_classes) - min_examples_per_class, 0)
    if num_to_remove_per_class is not None:
        if frac_noise != 1:
            raise InputError("frac_noise and num_to_remove_per_class are both given; the second says how many already.")
        numbers = np.asarray(list(num_to_remove_per_class))
        if numbers.shape != (n_classes,) or numbers.dtype.kind not in "iu" or (numbers < 0).any():
            raise InputError(
                f"num_to_remove_per_class is {numbers.tolist()}; it takes one whole number from 0 on for each of the "
                f"{n_classes} classes."
            )
        room = np.minimum(numbers, room)
        flags = np.ones(len(labels), np.bool_)
    worst = np.flatnonzero(flags)
    if frac_noise < 1 or (np.bincount(labels[worst], minlength=n_classes) > room).any():
        worst = worst[np.argsort(quality[worst], kind="stable")]
        worst = worst[: round(frac_noise * len(worst))]
        worst = worst[_place_in_class(labels[worst], n_classes) < room[labels[worst]]]
    result = np.zeros(len(labels), np.bool_)
    result[worst] = True
    return result


def one_source(sources: Mapping[str, Any]) -> str:
    """The name of the one source that is not None. Raises InputError where there is none, or more than one."""
    given = [name for name, value in sources.items() if value is not None]
    if not given:
        raise InputError("pred_probs is missing; give it, or images, features or a trainer to get it from.")
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given; the probabilities come from one of them.")
    return given[0]


def check_rule(filter_by: str) -> None:
    """Raises InputError for a rule that is not ours."""
    if filter_by not in RULES:
        raise InputError(f"filter_by is {filter_by!r}; {near(str(filter_by), RULES)}")


def trainer_of(kind: str, source: Any, n_classes: int) -> FoldTrainer:
    """Return the trainer for images, features (n, d), or the trainer that was given."""
    if kind == "images":
        from cvcoteach.data.items import pixels_of
        from cvcoteach.training.torch_trainer import TorchTrainer

        return TorchTrainer(pixels_of(source, "images"), n_classes)
    if kind == "features":
        from cvcoteach.training.head_trainer import HeadTrainer

        return HeadTrainer(as_array(source, "features"), n_classes)
    if not callable(getattr(source, "fit_predict", None)):
        raise InputError(f"trainer is a {type(source).__name__}; it takes an object with fit_predict, see FoldTrainer.")
    trainer: FoldTrainer = source
    return trainer


def _place_in_class(labels: IntArray, n_classes: int) -> IntArray:
    """(n,) how many of the same class stand before each label."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=n_classes)
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


class _Progress:
    """Whom to tell of every fold: the caller's function, a bar on stderr, or nobody."""

    def __init__(self, progress: bool | OnFold, n_trainings: int) -> None:
        self._callback = progress if callable(progress) else None
        self._bar: Any = None
        if progress is True:
            from tqdm import tqdm

            self._bar = tqdm(total=n_trainings, desc="INCV", unit="fold", leave=False)

    def __enter__(self) -> OnFold | None:
        return self._callback if self._bar is None else self._advance

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _advance(self, told: FoldProgress) -> None:
        if told.state != "start":
            self._bar.update()
