"""Out-of-sample probabilities: the contract of a trainer, plain K-fold, Iterative Noisy Cross-Validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cvcoteach import noise
from cvcoteach._checks import (
    BoolArray,
    InputError,
    IntArray,
    PredProbs,
    as_labels,
    as_pred_probs,
    check_at_least,
)

MAX_REMOVE_RATIO = 2.0  # min(2, ε / (1 - ε)), INCV algorithm 1


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


@dataclass(frozen=True, eq=False)
class Round:
    """What one round of INCV saw and decided."""

    scored: IntArray
    """(m,) indices of the candidates this round scored, ascending."""
    pred_probs: PredProbs
    """(m, K) their probabilities, each by the fold model that did not train on it."""
    kept: IntArray
    """Indices that joined S: the prediction is the given label."""
    dropped: IntArray
    """Indices that left for good: the largest cross-entropies."""
    agreement: float
    """Share of the scored on which prediction and given label agree, in [0, 1]."""
    noise_rate: float
    """ε̂ of the scored, from the agreement, in [0, 1]; in round 1 that of the whole dataset."""
    selected: BoolArray
    """(n,) S after the round."""
    candidate: BoolArray
    """(n,) C after the round."""


@dataclass(frozen=True, eq=False)
class CrossValResult:
    """The outcome of INCV: S, C, what was dropped, and every round's out-of-sample probabilities."""

    labels: IntArray
    """(n,) given labels."""
    pred_probs: PredProbs
    """(n, K) out-of-sample probabilities of the last round that scored the image."""
    last_round: IntArray
    """(n,) that round, from 1."""
    rounds: tuple[Round, ...]
    remove_ratio: float
    """r as used: images dropped for each one kept, at most."""

    @property
    def selected(self) -> BoolArray:
        """(n,) S: taken for clean."""
        return self.rounds[-1].selected

    @property
    def candidate(self) -> BoolArray:
        """(n,) C: neither kept nor dropped."""
        return self.rounds[-1].candidate

    @property
    def dropped(self) -> BoolArray:
        """(n,) taken for wrong beyond use."""
        return ~(self.selected | self.candidate)

    @property
    def noise_rate(self) -> float:
        """ε̂ from the agreement of round 1, in [0, 1]; biased low under structured or heavy noise."""
        return self.rounds[0].noise_rate

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.pred_probs.shape[1])


def stratified_parts(labels: IntArray, n_parts: int, rng: np.random.Generator) -> IntArray:
    """A part 0..n_parts-1 for each image, (n,): at random, with each class spread evenly over the parts.

    Sizes differ by one at most, of the parts as of a class within them.
    """
    # numpy sorts 16 bits by radix, several times as fast
    keys = labels.astype(np.uint16) if labels.max(initial=0) < 1 << 16 else labels
    order = rng.permutation(len(labels))
    order = order[np.argsort(keys[order], kind="stable")]
    parts = np.empty(len(labels), np.int64)
    parts[order] = np.arange(len(labels)) % n_parts  # dealt like cards, on across the classes
    return parts


def keep_and_drop(labels: IntArray, pred_probs: PredProbs, remove_ratio: float) -> tuple[IntArray, IntArray]:
    """INCV's rule on one held-out part: what joins S, what is dropped (algorithm 1, steps 3 and 4).

    labels: (m,) given; pred_probs: (m, K) out of sample; remove_ratio: r >= 0.

    Kept: the prediction is the given label. Dropped: among the round(r·|kept|) of largest
    cross-entropy those that were not kept. Both as positions 0..m-1, ascending.
    """
    agrees = pred_probs.argmax(axis=1) == labels
    n_drop = min(round(remove_ratio * int(agrees.sum())), len(labels))
    # -log is monotone: least probability of the given label first. Counted from the front: order[-0:] is everything
    worst = np.argsort(pred_probs[np.arange(len(labels)), labels], kind="stable")[:n_drop]
    return np.flatnonzero(agrees), np.sort(worst[~agrees[worst]])


def cross_validate(
    trainer: FoldTrainer,
    labels: npt.ArrayLike,
    *,
    n_folds: int = 5,
    seed: int = 0,
    n_classes: int | None = None,
    finished: Finished | None = None,
    on_fold: OnFold | None = None,
) -> PredProbs:
    """Plain stratified K-fold cross-validation: (n, K) probabilities, each by a model that never saw the image.

    labels: (n,) whole numbers 0..K-1. finished: results of earlier folds, filled as folds finish.

    Raises InputError for labels that do not fit and for a trainer whose answer is no probability.
    """
    y, k = as_labels(labels, n_classes)
    check_at_least("n_folds", n_folds, 2)
    everything = np.arange(len(y))
    nothing = np.zeros(len(y), np.bool_)
    parts = _parts(y, n_folds, seed, 1)
    return _score(trainer, y, k, nothing, everything, parts, n_folds, seed, 1, 1, finished, on_fold)


@dataclass(frozen=True)
class IterativeCV:
    """Iterative Noisy Cross-Validation (Chen, Liao, Chen, Zhang, ICML 2019, algorithm 1).

    In each round the candidates C are split; a model trained from scratch on S and the rest of C judges each
    part. Those whose prediction is the given label join S, the worst of the others are dropped.

    Unlike the published code, no label of a judged image ever reaches the trainer, each training starts
    afresh, and the noise pattern need not be known: ε̂ takes it from the confusions of round 1. ε̂ pools the
    agreement of all parts of that round, where the paper reads it off the first: same expectation, less variance.
    """

    n_rounds: int = 4
    n_folds: int = 2
    remove_ratio: float | Literal["auto"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("n_rounds", self.n_rounds, 1)
        check_at_least("n_folds", self.n_folds, 2)
        if self.remove_ratio != "auto":
            if isinstance(self.remove_ratio, str):
                raise InputError(f"remove_ratio is {self.remove_ratio!r}; it takes a number from 0 on, or 'auto'.")
            check_at_least("remove_ratio", self.remove_ratio, 0)

    def run(
        self,
        trainer: FoldTrainer,
        labels: npt.ArrayLike,
        *,
        n_classes: int | None = None,
        finished: Finished | None = None,
        on_fold: OnFold | None = None,
    ) -> CrossValResult:
        """Run all rounds; fewer if the candidates run out.

        labels: (n,) given labels, whole numbers 0..K-1.
        finished: results of earlier folds, by `FoldKey`; each fold's lands there the moment it exists, and one
            that is there is not trained again. The caller sees to it that they belong to the same run.
        on_fold: told before and after each training.

        Raises InputError for labels that do not fit and for a trainer whose answer is no probability.
        """
        y, k = as_labels(labels, n_classes)
        n = len(y)
        selected = np.zeros(n, np.bool_)
        candidate = np.ones(n, np.bool_)
        pred_probs = np.zeros((n, k), np.float32)
        last_round = np.zeros(n, np.int64)
        rounds: list[Round] = []
        ratio = None if self.remove_ratio == "auto" else float(self.remove_ratio)

        for number in range(1, self.n_rounds + 1):
            scored = np.flatnonzero(candidate)
            if len(scored) < self.n_folds:
                break
            parts = _parts(y[scored], self.n_folds, self.seed, number)
            probs = _score(
                trainer,
                y,
                k,
                selected,
                scored,
                parts,
                self.n_folds,
                self.seed,
                number,
                self.n_rounds,
                finished,
                on_fold,
            )
            predicted = probs.argmax(axis=1)
            agreement = float((predicted == y[scored]).mean())
            pattern = noise.observed_concentration(y[scored], predicted, k)
            noise_rate = noise.noise_rate_from_agreement(agreement, k, pattern)
            if ratio is None:
                ratio = min(MAX_REMOVE_RATIO, noise_rate / (1 - noise_rate)) if noise_rate < 1 else MAX_REMOVE_RATIO

            kept, dropped = [], []
            for part in range(self.n_folds):
                held_out = np.flatnonzero(parts == part)
                keep, drop = keep_and_drop(y[scored[held_out]], probs[held_out], ratio)
                kept.append(scored[held_out[keep]])
                dropped.append(scored[held_out[drop]])
            joined, left = np.sort(np.concatenate(kept)), np.sort(np.concatenate(dropped))
            selected[joined] = True
            candidate[joined] = candidate[left] = False
            pred_probs[scored] = probs
            last_round[scored] = number
            rounds.append(Round(scored, probs, joined, left, agreement, noise_rate, selected.copy(), candidate.copy()))
        if ratio is None:
            raise InputError(f"{n} images are fewer than n_folds = {self.n_folds}; each part needs one.")
        return CrossValResult(y, pred_probs, last_round, tuple(rounds), ratio)


def _parts(labels: IntArray, n_folds: int, seed: int, number: int) -> IntArray:
    return stratified_parts(labels, n_folds, np.random.default_rng([seed, number]))


def _score(
    trainer: FoldTrainer,
    labels: IntArray,
    n_classes: int,
    selected: BoolArray,
    scored: IntArray,
    parts: IntArray,
    n_folds: int,
    seed: int,
    number: int,
    n_rounds: int,
    finished: Finished | None,
    on_fold: OnFold | None,
) -> PredProbs:
    """Probabilities of the images `scored` (m, K): trained on `selected` and the other `parts` (m,) of `scored`."""
    folds = {}
    for part in range(n_folds):
        in_training = selected.copy()
        in_training[scored[parts != part]] = True
        train_idx = np.flatnonzero(in_training)
        fold_seed = seed_of(seed, number, part + 1)
        folds[FoldKey(number, part + 1)] = Fold(train_idx, labels[train_idx], scored[parts == part], fold_seed)
    answers = train_folds(trainer, folds, n_classes, n_rounds=n_rounds, finished=finished, on_fold=on_fold)
    probs = np.empty((len(scored), n_classes), np.float32)
    for key, answer in answers.items():
        probs[parts == key.fold - 1] = answer
    return probs


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
