"""The contract of whatever trains, and how the folds of a round are trained through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import InputError, IntArray, PredProbs, as_pred_probs, counted
from cvcoteach.noise_model.top_probs import Answer, Rows, TopProbs, many, top_probs


class FoldTrainer(Protocol):
    """Trains a model and answers for images that it did not see.

    Everything that trains stands behind this. Labels travel with `train_idx`: no other label is in reach.
    """

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Train afresh on `train_idx` with `train_labels` (m,); return the probabilities of `eval_idx`, (e, K)."""
        ...

    # A trainer on features may show them as an attribute `features`, an array (n, d): images that belong to none of the
    # classes are told by them.


class Fold(NamedTuple):
    """The arguments of one `fit_predict`."""

    train_idx: IntArray
    train_labels: IntArray
    eval_idx: IntArray
    seed: int


@runtime_checkable
class BatchFoldTrainer(FoldTrainer, Protocol):
    """A trainer that gains by training all folds of a round at once."""

    def fit_predict_many(self, folds: Sequence[Fold]) -> Sequence[PredProbs | Rows]:
        """Answer as `fit_predict`, once per fold. A fold's answer may depend on its neighbours by rounding only.

        Of thousands of classes an answer may be computed as its rows are read (`Rows`).
        """
        ...


@runtime_checkable
class ParallelFoldTrainer(FoldTrainer, Protocol):
    """A trainer that trains several folds at the same time, each as if it were alone."""

    def fit_predict_each(self, folds: Sequence[Fold]) -> Iterator[tuple[int, PredProbs]]:
        """Yield the position in `folds` and the answer of each, in the order in which they are ready.

        A fold's answer does not depend on which others are trained beside it, save by rounding: whatever is ready is
        kept, and only the rest is asked for again.
        """
        ...


class FoldKey(NamedTuple):
    """Names a training of a run. Plain K-fold is round 1."""

    round: int
    """From 1."""
    fold: int
    """From 1."""


@dataclass(frozen=True)
class FoldProgress:
    """Reports one training of a run."""

    key: FoldKey
    """Which training."""
    n_rounds: int
    """Number of rounds of the run, at most."""
    n_folds: int
    """Number of folds of this round."""
    n_train: int
    """Number of images to train on."""
    n_eval: int
    """Number of images to answer for."""
    state: Literal["start", "done", "kept"]
    """Before the training, after it, or its answer was there already."""
    view: int = 1
    """Which of several trainers, from 1."""


Finished = MutableMapping[FoldKey, Answer]
"""Answers by fold, (len(eval_idx), K)."""

OnFold = Callable[[FoldProgress], None]


def seed_of(*path: int) -> int:
    """Return a seed for one training of a run: other numbers, an unrelated seed."""
    return int(np.random.SeedSequence(path).generate_state(1)[0])


def train_folds(
    trainer: FoldTrainer,
    folds: Mapping[FoldKey, Fold],
    n_classes: int,
    *,
    n_rounds: int,
    given: IntArray | None = None,
    finished: Finished | None = None,
    on_fold: OnFold | None = None,
    view: int = 1,
) -> dict[FoldKey, Answer]:
    """Train the folds of a round that are not in `finished`.

    A `BatchFoldTrainer` gets all folds of the round at once or none, a `ParallelFoldTrainer` all that are missing.

    Args:
        trainer: Trains and answers.
        folds: What each training gets.
        n_classes: K.
        n_rounds: Number of rounds of the run, for `on_fold`.
        given: (n,) labels given to all images, which no trainer sees; with them answers are kept as `TopProbs` where
            there are `many`.
        finished: Answers by fold; each new one lands there the moment it exists.
        on_fold: Called before and after each training.
        view: Which of several trainers it is, from 1.

    Returns:
        The answer of each fold, (len(eval_idx), K).

    Raises:
        InputError: For an answer without a probability of each of K classes for every image, and for a batch with
            another number of answers than folds. The answers before it are in `finished`.
    """
    finished = {} if finished is None else finished

    def tell(key: FoldKey, state: Literal["start", "done", "kept"]) -> None:
        if on_fold is not None:
            fold = folds[key]
            on_fold(FoldProgress(key, n_rounds, len(folds), len(fold.train_idx), len(fold.eval_idx), state, view))

    def checked(key: FoldKey, answer: Any) -> Answer:
        whose = "the trainer's answer" if view == 1 else f"the answer of trainer {view}"
        where = f"{whose} for fold {key.fold} of round {key.round}"
        shape = (len(folds[key].eval_idx), n_classes)
        if given is None or not many(len(given), n_classes):
            return _as_answer(answer, shape, where)
        if isinstance(answer, TopProbs) and answer.shape == shape:
            return answer
        if getattr(answer, "shape", None) != shape:
            answer = _as_answer(answer, shape, where)
        return top_probs(_Checked(answer, where), given[folds[key].eval_idx])

    answers: dict[FoldKey, Answer] = {}
    # all or none: a batch of fewer folds could differ by rounding from the unbroken run's
    if isinstance(trainer, BatchFoldTrainer) and not all(key in finished for key in folds):
        for key in folds:
            tell(key, "start")
        batch = list(trainer.fit_predict_many(list(folds.values())))
        if len(batch) != len(folds):
            number = next(iter(folds)).round
            raise InputError(
                f"the trainer gave {counted(len(batch), 'answer')} in round {number}; {len(folds)} folds need one each."
            )
        for key, answer in zip(folds, batch, strict=True):
            answers[key] = finished[key] = checked(key, answer)
            tell(key, "done")
        return answers
    for key in folds:
        if key in finished:
            answers[key] = checked(key, finished[key])
            tell(key, "kept")
    missing = [key for key in folds if key not in answers]
    if isinstance(trainer, ParallelFoldTrainer):
        for key in missing:
            tell(key, "start")
        for position, answer in trainer.fit_predict_each([folds[key] for key in missing]) if missing else ():
            key = missing[position]
            answers[key] = finished[key] = checked(key, answer)
            tell(key, "done")
        if unanswered := [key for key in missing if key not in answers]:
            first = unanswered[0]
            raise InputError(f"the trainer gave no answer for fold {first.fold} of round {first.round}.")
        return {key: answers[key] for key in folds}
    for key in missing:
        tell(key, "start")
        answers[key] = finished[key] = checked(key, trainer.fit_predict(*folds[key]))
        tell(key, "done")
    return {key: answers[key] for key in folds}


@dataclass(frozen=True)
class _Checked:
    """An answer that is checked as it is read."""

    answer: Rows
    where: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.answer.shape

    def __getitem__(self, rows: slice) -> PredProbs:
        block = self.answer[rows]
        return _as_answer(block, (rows.stop - rows.start, self.shape[1]), self.where)


def _as_answer(answer: npt.ArrayLike, shape: tuple[int, int], where: str) -> PredProbs:
    """Return a trainer's answer as float32 probabilities of that shape. Raises InputError where it is none."""
    try:
        array = np.asarray(answer)
    except (TypeError, ValueError) as error:  # rows of different length
        raise InputError(f"{where} is not an array; {shape[0]} images and {shape[1]} classes need {shape}.") from error
    if array.shape == shape and array.dtype.kind == "f" and not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        value = array[row, column]
        raise InputError(f"{where}[{row}] is {value} for class {column}; probabilities lie between 0 and 1.")
    return as_pred_probs(array, shape, where)
