"""Slow, obvious versions straight from the papers, to hold the fast ones against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from cvcoteach.crossval import FoldTrainer


def incv(
    trainer: FoldTrainer,
    labels: Sequence[int],
    n_classes: int,
    n_rounds: int,
    remove_ratio: float,
    split: Callable[[list[int], int], list[list[int]]],
    fold_seed: Callable[[int, int], int],
) -> tuple[set[int], set[int], set[int], list[float]]:
    """INCV, algorithm 1, one image at a time: S, C, the dropped, the agreement of each round.

    split(candidates, round) gives the parts, fold_seed(round, part) the seed of a training.
    """
    selected: set[int] = set()
    candidates: set[int] = set(range(len(labels)))
    dropped: set[int] = set()
    agreements = []
    for number in range(1, n_rounds + 1):
        parts = split(sorted(candidates), number)
        if any(len(part) == 0 for part in parts):
            break
        round_kept: set[int] = set()
        round_dropped: set[int] = set()
        for which, part in enumerate(parts, start=1):
            rest = [i for other in parts if other is not part for i in other]
            train = sorted(selected | set(rest))
            answer = trainer.fit_predict(
                np.array(train), np.array([labels[i] for i in train]), np.array(part), fold_seed(number, which)
            )
            kept, losses = set(), []
            for i, probs in zip(part, answer, strict=True):
                best = 0
                for k in range(n_classes):
                    if probs[k] > probs[best]:
                        best = k
                if best == labels[i]:
                    kept.add(i)
                p = float(probs[labels[i]])
                losses.append((math.inf if p == 0 else -math.log(p), -i, i))
            n_drop = round(remove_ratio * len(kept))
            losses.sort(reverse=True)
            for _, _, i in losses[:n_drop]:
                if i not in kept:
                    round_dropped.add(i)
            round_kept |= kept
        agreements.append(len(round_kept) / len(candidates))
        selected |= round_kept
        dropped |= round_dropped
        candidates -= round_kept | round_dropped
    return selected, candidates, dropped, agreements
