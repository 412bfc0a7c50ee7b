"""From labels, with probabilities, images, features or any trainer, to LabelIssues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._checks import BoolArray, InputError, IntArray, PredProbs, as_labels, check_at_least, near
from cvcoteach.crossval import (
    BatchFoldTrainer,
    CrossValResult,
    Fold,
    FoldProgress,
    FoldTrainer,
    IterativeCV,
    OnFold,
    cross_validate,
)
from cvcoteach.issues import LabelIssues, posterior_issues

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
    n_folds: int = 2,
    seed: int = 0,
    progress: bool | OnFold = True,
) -> LabelIssues:
    """All that `find_label_issues` knows, in one object: qualities, flags, suggestions, the transition.

    labels: (n,) class numbers 0..K-1, or names. class_names: (K,), in the order of the numbers.
    pred_probs: (n, K) out-of-sample probabilities. Instead of them one of
    images: (n, H, W, C) uint8 pixels, on which networks are trained, fold by fold;
    features: (n, d) embeddings, on which linear heads are trained;
    trainer: a `FoldTrainer`.
    filter_by: "posterior" flags what is more probably wrong than right, see `selected_by_posterior`; "incv" what
        Iterative Noisy Cross-Validation did not select - on `pred_probs`, with nothing to iterate: where the prediction
        is another class.
    n_rounds, n_folds, seed: of either; n_rounds · n_folds models are trained.
    progress: a bar on stderr, nothing, or a function told of every fold.

    Raises InputError for what does not fit, and where not exactly one source is given.
    """
    sources = {"pred_probs": pred_probs, "images": images, "features": features, "trainer": trainer}
    return issues_and_probs(
        labels, sources, filter_by, class_names, IterativeCV(n_rounds, n_folds, seed=seed), progress
    )[0]


def label_issues_from(
    result: CrossValResult, *, filter_by: str = "posterior", class_names: Sequence[str] | None = None
) -> LabelIssues:
    """The label issues of a finished INCV run.

    Qualities and suggestions are the posterior's, from the probabilities of round 1: those of all images, each by
    a model of the same kind. Flags: "posterior", or "incv" for every image that INCV did not select.
    """
    check_rule(filter_by)
    issues = posterior_issues(result.labels, result.rounds[0].pred_probs, class_names=class_names)
    return issues if filter_by == "posterior" else _flagged_by_incv(issues, ~result.selected)


def limited_flags(
    issues: LabelIssues,
    *,
    frac_noise: float = 1.0,
    num_to_remove_per_class: Iterable[int] | None = None,
    min_examples_per_class: int = 1,
) -> BoolArray:
    """The flags (n,) that remain under cleanlab's options; the most doubtful go first.

    frac_noise: in [0, 1], share of the flags that stays.
    num_to_remove_per_class: (K,) flags so many of the images given each class, instead of the rule's.
    min_examples_per_class: so many of each class stay unflagged, all if it has fewer.

    Raises InputError where an option does not fit, or frac_noise and num_to_remove_per_class contradict each other.
    """
    if not 0 <= frac_noise <= 1:
        raise InputError(f"frac_noise is {frac_noise}; it is the share of the flags that stays, from 0 to 1.")
    check_at_least("min_examples_per_class", min_examples_per_class, 0)
    rank = _rank_in_class(issues)
    counts = np.bincount(issues.labels, minlength=issues.n_classes)
    room = np.maximum(counts - min_examples_per_class, 0)
    if num_to_remove_per_class is not None:
        if frac_noise != 1:
            raise InputError("frac_noise and num_to_remove_per_class are both given; the second says how many already.")
        numbers = np.asarray(list(num_to_remove_per_class))
        if numbers.shape != (issues.n_classes,) or numbers.dtype.kind not in "iu" or (numbers < 0).any():
            raise InputError(
                f"num_to_remove_per_class is {numbers.tolist()}; it takes one whole number from 0 on for each of the "
                f"{issues.n_classes} classes."
            )
        return rank < np.minimum(numbers, room)[issues.labels]
    flags = issues.is_label_issue
    if frac_noise < 1:
        worst = issues.worst_first()
        flags = np.zeros(len(flags), np.bool_)
        flags[worst[: round(frac_noise * len(worst))]] = True
    # the flagged of a class need not be its worst ("incv"), so they are counted among themselves
    position = _rank_in_class(replace(issues, label_quality=np.where(flags, issues.label_quality, np.inf)))
    return flags & (position < room[issues.labels])


def issues_and_probs(
    labels: npt.ArrayLike,
    sources: Mapping[str, Any],
    filter_by: str,
    class_names: Sequence[str] | None,
    incv: IterativeCV,
    progress: bool | OnFold,
) -> tuple[LabelIssues, npt.NDArray[np.floating]]:
    """As `label_issues`, with the out-of-sample probabilities (n, K) that it read. sources: by name, None for none."""
    kind = one_source(sources)
    check_rule(filter_by)
    y, names = encode_labels(labels, class_names)
    if kind == "pred_probs":
        probs = np.asarray(sources[kind])  # not converted: a copy of a large one is what memory runs out of
        issues = posterior_issues(y, probs, class_names=names)
        if filter_by == "posterior":
            return issues, probs
        return _flagged_by_incv(issues, probs[np.arange(len(y)), y] < probs.max(axis=1)), probs

    names = names or tuple(map(str, range(int(y.max()) + 1)))
    trainer = trainer_of(kind, sources[kind], len(names))
    with _Progress(progress, incv.n_rounds * incv.n_folds) as on_fold:
        if filter_by == "posterior":
            return selected_by_posterior(trainer, y, incv, class_names=names, on_fold=on_fold)
        result = incv.run(trainer, y, n_classes=len(names), on_fold=on_fold)
    return label_issues_from(result, filter_by=filter_by, class_names=names), result.rounds[0].pred_probs


def selected_by_posterior(
    trainer: FoldTrainer,
    labels: IntArray,
    incv: IterativeCV,
    *,
    class_names: Sequence[str],
    on_fold: OnFold | None = None,
) -> tuple[LabelIssues, PredProbs]:
    """INCV with the posterior as its judge: label issues, and the probabilities (n, K) of the last round.

    Round 1 is plain cross-validation on all labels. In each later round the folds train only on labels that the
    posterior of the round before takes for right, and judge every image anew: what was selected once need not stay,
    where INCV's selection by agreement gets less pure from round to round. Trainings: n_rounds · n_folds, as INCV's.

    A class keeps at least two images a fold to train on, its least doubtful ones.
    """
    n_classes = len(class_names)
    told = partial(_in_round, on_fold, incv.n_rounds) if on_fold else None
    probs = cross_validate(
        trainer,
        labels,
        n_folds=incv.n_folds,
        seed=incv.seed,
        n_classes=n_classes,
        on_fold=told and partial(told, 1),
    )
    issues = posterior_issues(labels, probs, class_names=class_names)
    for number in range(2, incv.n_rounds + 1):
        selected = ~limited_flags(issues, min_examples_per_class=2 * incv.n_folds)
        probs = cross_validate(
            _trained_on(trainer, selected),
            labels,
            n_folds=incv.n_folds,
            seed=int(np.random.SeedSequence([incv.seed, number]).generate_state(1)[0]),
            n_classes=n_classes,
            on_fold=told and partial(told, number),
        )
        issues = posterior_issues(labels, probs, class_names=class_names, trained_on="clean")
    return issues, probs


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
    """The trainer for images (n, H, W, C), features (n, d), or the trainer that was given."""
    if kind == "images":
        from cvcoteach.training.folds import TorchTrainer

        return TorchTrainer(np.asarray(source), n_classes)
    if kind == "features":
        from cvcoteach.training.features import HeadTrainer

        return HeadTrainer(np.asarray(source), n_classes)
    if not callable(getattr(source, "fit_predict", None)):
        raise InputError(f"trainer is a {type(source).__name__}; it takes an object with fit_predict, see FoldTrainer.")
    trainer: FoldTrainer = source
    return trainer


def encode_labels(
    labels: npt.ArrayLike, class_names: Sequence[str] | None = None
) -> tuple[IntArray, tuple[str, ...] | None]:
    """Labels as int64 (n,) and the class names, None where neither labels nor the caller name them.

    Whole numbers stay what they are. Names are numbered in the order of class_names, else lexicographically.

    Raises InputError for a label that is no class name, and what `as_labels` refuses.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or not len(array) or array.dtype.kind in "iuf":
        k = None if class_names is None else len(class_names)
        return as_labels(array, k)[0], None if class_names is None else tuple(class_names)
    found, index = np.unique(array.astype(str), return_inverse=True)
    names = tuple(found.tolist()) if class_names is None else tuple(map(str, class_names))
    place = {name: i for i, name in enumerate(names)}
    unknown = [name for name in found.tolist() if name not in place]
    if unknown:
        first = int(np.argmax(array.astype(str) == unknown[0]))
        raise InputError(f"labels[{first}] is {unknown[0]!r}, no class name; {near(unknown[0], names)}")
    return as_labels(np.array([place[name] for name in found.tolist()])[index], len(names))[0], names


def _flagged_by_incv(issues: LabelIssues, flags: BoolArray) -> LabelIssues:
    return replace(issues, is_label_issue=flags, filter_by="incv")


def _rank_in_class(issues: LabelIssues) -> IntArray:
    """(n,) place of each image among those given its class, 0 = most doubtful."""
    order = np.lexsort((issues.label_quality, issues.labels))
    counts = np.bincount(issues.labels, minlength=issues.n_classes)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def _trained_on(trainer: FoldTrainer, selected: BoolArray) -> FoldTrainer:
    kind = _BatchTrainedOn if isinstance(trainer, BatchFoldTrainer) else _TrainedOn
    return kind(trainer, selected)


class _TrainedOn:
    """A trainer that learns from the selected (n,) images of each training part only."""

    def __init__(self, trainer: Any, selected: BoolArray) -> None:
        self.trainer, self.selected = trainer, selected

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """As the trainer's, on fewer images."""
        return self.trainer.fit_predict(*self._fewer(Fold(train_idx, train_labels, eval_idx, seed)))

    def _fewer(self, fold: Fold) -> Fold:
        rows = self.selected[fold.train_idx]
        return fold._replace(train_idx=fold.train_idx[rows], train_labels=fold.train_labels[rows])


class _BatchTrainedOn(_TrainedOn):
    def fit_predict_many(self, folds: Sequence[Fold]) -> Sequence[PredProbs]:
        """As the trainer's, on fewer images."""
        return self.trainer.fit_predict_many([self._fewer(fold) for fold in folds])


def _in_round(on_fold: OnFold, n_rounds: int, number: int, told: FoldProgress) -> None:
    """Pass on what one cross-validation tells as that of round `number`."""
    on_fold(replace(told, key=told.key._replace(round=number), n_rounds=n_rounds))


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
