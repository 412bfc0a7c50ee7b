"""How fast heads on features are: all at once against one after the other, and what INCV adds to their training.

    python examples/benchmarks/heads_speed.py

Ratios of processor time, measured in turn on the same cores: what other programs take of a busy machine is not counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tables import markdown, publish

from cvcoteach import HeadTrainer, IterativeCV
from cvcoteach._validation import IntArray, PredProbs
from cvcoteach.crossval.kfold import stratified_parts
from cvcoteach.crossval.trainer import Fold

K = 10
REPEATS = 3


def noisy_clusters(n: int, d: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Features (n, d) around K centres, and labels (n,) of which a fifth are wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, K, n)
    features = (rng.normal(0, 2 / np.sqrt(d), (K, d))[true] + rng.normal(0, 1, (n, d))).astype(np.float32)
    return features, np.where(rng.random(n) < 0.2, rng.integers(0, K, n), true)


@dataclass
class Timed:
    """A trainer that adds up the processor seconds spent inside another."""

    trainer: HeadTrainer
    seconds: float = 0.0

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """As the trainer."""
        return self.fit_predict_many([Fold(train_idx, train_labels, eval_idx, seed)])[0]

    def fit_predict_many(self, folds: Sequence[Fold]) -> list[PredProbs]:
        """As the trainer."""
        began = time.process_time()
        answers = self.trainer.fit_predict_many(folds)
        self.seconds += time.process_time() - began
        return answers


def bookkeeping(n: int = 10_000, d: int = 256) -> tuple[float, float]:
    """Processor seconds of four rounds of published INCV on linear heads, and the share spent outside the trainer."""
    features, labels = noisy_clusters(n, d)
    trainer = HeadTrainer(features, K)
    IterativeCV("agreement", n_rounds=1).run(trainer, labels)  # the first training of a process is slower
    runs = []
    for _ in range(REPEATS):
        timed = Timed(trainer)
        began = time.process_time()
        IterativeCV("agreement", n_rounds=4).run(timed, labels)
        total = time.process_time() - began
        runs.append((total, 1 - timed.seconds / total))
    return statistics.median(total for total, _ in runs), statistics.median(share for _, share in runs)


def folds_for(labels: npt.NDArray[np.int64], n_heads: int) -> list[Fold]:
    """The folds of one cross-validation, and of further ones by other seeds: `n_heads` in all."""
    n_folds = min(n_heads, 5)
    folds = []
    for seed in range(n_heads // n_folds):
        parts = stratified_parts(labels, n_folds, np.random.default_rng(seed))
        for part in range(n_folds):
            train = np.flatnonzero(parts != part)
            folds.append(Fold(train, labels[train], np.flatnonzero(parts == part), 5 * seed + part))
    return folds


def together_and_in_turn(trainer: HeadTrainer, folds: Sequence[Fold]) -> tuple[float, float]:
    """Median processor seconds of all heads at once, and of one after the other, measured in alternation."""
    together, in_turn = [], []
    for _ in range(REPEATS):
        began = time.process_time()
        trainer.fit_predict_many(folds)
        together.append(time.process_time() - began)
        began = time.process_time()
        for fold in folds:
            trainer.fit_predict(*fold)
        in_turn.append(time.process_time() - began)
    return statistics.median(together), statistics.median(in_turn)


def main() -> None:
    """Measure and publish."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; seconds of processor time")
    seconds, share = bookkeeping()
    incv = f"INCV, 10,000 × 256, four rounds of linear heads: {seconds:.2f} s, {share:.2%} of it outside the trainer."
    features, labels = noisy_clusters(10_000, 768)
    rows = []
    for head in ("linear", "mlp"):
        trainer = HeadTrainer(features, K, head)
        for n_heads in (2, 5, 10, 20):
            together, in_turn = together_and_in_turn(trainer, folds_for(labels, n_heads))
            rows.append([f"{n_heads} {head}", together, in_turn, in_turn / together])
            print(*rows[-1], flush=True)
    header = ["heads (10,000 × 768)", "together, s", "one after the other, s", "ratio"]
    where = f"{torch.get_num_threads()} threads; seconds of processor time. {incv}\n\n"
    publish("heads-speed", where + markdown(header, rows))


if __name__ == "__main__":
    main()
