"""Slow, obvious versions straight from the papers, to hold the fast ones against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.crossval.trainer import FoldTrainer


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


def coteaching_epoch(
    networks: Sequence[nn.Module],
    momenta: Sequence[Sequence[torch.Tensor]],
    X: FloatArray,
    targets: Sequence[int],
    weights: Sequence[float],
    batches: Sequence[IntArray],
    keep_rate: float,
    learning_rate: float,
) -> tuple[float, float, float]:
    """One epoch of co-teaching (INCV, algorithm 2, lines 6 to 12), one image at a time, float64.

    Two networks, which are changed, by SGD with Nesterov momentum 0.9, whose momenta are changed too.
    Mean loss of what was kept, of what was left out, share of equal predictions.
    """
    kept_losses, left_losses, agreed = [], [], []
    for batch in batches:
        images = batch.tolist()
        losses: list[list[torch.Tensor]] = [[], []]
        predictions: list[list[int]] = [[], []]
        for which, network in enumerate(networks):
            for i in images:
                logits = network(torch.tensor(X[i], dtype=torch.float64)[None])[0]
                losses[which].append(-torch.log_softmax(logits, dim=0)[targets[i]])
                predictions[which].append(int(logits.argmax()))
        agreed += [p == q for p, q in zip(*predictions, strict=True)]
        n_keep = max(1, math.floor(keep_rate * len(images) + 1e-9))
        places = range(len(images))
        easy = [sorted(places, key=lambda s: losses[which][s].item())[:n_keep] for which in (0, 1)]
        for which, network in enumerate(networks):
            taught = easy[1 - which]
            kept_losses += [losses[which][s].item() for s in taught]
            left_losses += [losses[which][s].item() for s in places if s not in taught]
            total = sum(weights[images[s]] * losses[which][s] for s in taught) / n_keep
            gradients = torch.autograd.grad(total, list(network.parameters()))
            with torch.no_grad():
                for p, g, m in zip(network.parameters(), gradients, momenta[which], strict=True):
                    m.mul_(0.9).add_(g)
                    p -= learning_rate * (g + 0.9 * m)
    left = float(np.mean(left_losses)) if left_losses else math.nan
    return float(np.mean(kept_losses)), left, float(np.mean(agreed))
