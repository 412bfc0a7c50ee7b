"""Out-of-sample probabilities: the contract of a trainer, plain K-fold, Iterative Noisy Cross-Validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import (
    BoolArray,
    InputError,
    IntArray,
    PredProbs,
    as_labels,
    check_at_least,
)
from cvcoteach.crossval import agreement as agreement_theory
from cvcoteach.crossval.kfold import parts_of, score_parts
from cvcoteach.crossval.trainer import Finished, FoldTrainer, OnFold

MAX_REMOVE_RATIO = 2.0  # min(2, ε / (1 - ε)), INCV algorithm 1


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
        """ε̂ from the agreement of round 1, in [0, 1]; biased low under structured or heavy agreement_theory."""
        return self.rounds[0].noise_rate

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.pred_probs.shape[1])


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
            parts = parts_of(y[scored], self.n_folds, self.seed, number)
            probs = score_parts(
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
            pattern = agreement_theory.observed_concentration(y[scored], predicted, k)
            noise_rate = agreement_theory.noise_rate_from_agreement(agreement, k, pattern)
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
