"""The contract of whatever trains, and how the folds of a round are trained through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import IntArray, PredProbs, as_pred_probs


class FoldTrainer(Protocol):
    """Everything that trains stands behind this. Labels travel with `train_idx`: no other label is in reach."""

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Train afresh on `train_idx` with `train_labels` (m,), give the probabilities of `eval_idx`: (e, K)."""
        ...


class Fold(NamedTuple):
    """The arguments of one `fit_predict`."""

    train_idx: IntArray
    train_labels: IntArray
    eval_idx: IntArray
    seed: int


@runtime_checkable
class BatchFoldTrainer(FoldTrainer, Protocol):
    """A trainer that gains by training all folds of a round at once."""

    def fit_predict_many(self, folds: Sequence[Fold]) -> Sequence[PredProbs]:
        """As `fit_predict`, one answer a fold. A fold's answer may depend on its neighbours by rounding only."""
        ...


class FoldKey(NamedTuple):
    """Which training of a run: round and fold count from 1; plain K-fold is round 1."""

    round: int
    fold: int


@dataclass(frozen=True)
class FoldProgress:
    """Told before each training ("start") and after it ("done"), or when its result was there already ("kept")."""

    key: FoldKey
    n_rounds: int
    n_folds: int
    n_train: int
    n_eval: int
    state: Literal["start", "done", "kept"]


Finished = MutableMapping[FoldKey, PredProbs]


OnFold = Callable[[FoldProgress], None]


def seed_of(*path: int) -> int:
    """A seed for one training of a run: other numbers, an unrelated seed."""
    return int(np.random.SeedSequence(path).generate_state(1)[0])


def train_folds(
    trainer: FoldTrainer,
    folds: Mapping[FoldKey, Fold],
    n_classes: int,
    *,
    n_rounds: int,
    finished: Finished | None = None,
    on_fold: OnFold | None = None,
) -> dict[FoldKey, PredProbs]:
    """The answers of all folds of a round, each (len(eval_idx), K); those in `finished` are not trained again.

    A `BatchFoldTrainer` gets all folds at once. Raises InputError for a trainer whose answer is no probability.
    """
    finished = {} if finished is None else finished

    def tell(key: FoldKey, state: Literal["start", "done", "kept"]) -> None:
        if on_fold is not None:
            fold = folds[key]
            on_fold(FoldProgress(key, n_rounds, len(folds), len(fold.train_idx), len(fold.eval_idx), state))

    def checked(key: FoldKey, answer: npt.ArrayLike) -> PredProbs:
        where = f"the trainer's answer for fold {key.fold} of round {key.round}"
        return as_pred_probs(answer, (len(folds[key].eval_idx), n_classes), where)

    answers: dict[FoldKey, PredProbs] = {}
    # all or none: a batch of fewer folds could differ by rounding from the unbroken run's
    if isinstance(trainer, BatchFoldTrainer) and not all(key in finished for key in folds):
        for key in folds:
            tell(key, "start")
        for key, answer in zip(folds, trainer.fit_predict_many(list(folds.values())), strict=True):
            answers[key] = finished[key] = checked(key, answer)
            tell(key, "done")
        return answers
    for key, fold in folds.items():
        if key in finished:
            answers[key] = checked(key, finished[key])
            tell(key, "kept")
            continue
        tell(key, "start")
        answers[key] = finished[key] = checked(key, trainer.fit_predict(*fold))
        tell(key, "done")
    return answers
