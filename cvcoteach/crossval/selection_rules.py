"""Which images a round selects: by agreement, as published, or by the posterior."""

from __future__ import annotations

import numpy as np

from cvcoteach._validation import BoolArray, FloatArray, IntArray
from cvcoteach.issues.flags import PROBABLY_WRONG
from cvcoteach.noise_model.posterior import Posterior
from cvcoteach.noise_model.top_probs import Answer, probs_at, rows_of

MOSTLY_WRONG = 0.5
"""Above this share of wrong labels, those that are probably right are too few to learn from, and others are corrected.
"""

SURE = 0.6
"""Where most labels are wrong, models learn the most probable class of every image with at least this probability.

Chosen on symmetric noise of 80 %: at .5, the wrong labels that remain in S spoil the next posterior.
"""


def keep_and_drop(labels: IntArray, pred_probs: Answer, remove_ratio: float) -> tuple[IntArray, IntArray]:
    """Apply INCV's rule to one held-out part: what joins S, what is dropped (algorithm 1, steps 3 and 4).

    Args:
        labels: (m,) given labels.
        pred_probs: (m, K) out-of-sample probabilities.
        remove_ratio: r >= 0.

    Returns:
        The kept, whose prediction is the given label, and the dropped: among the round(r·|kept|) of largest
        cross-entropy those that were not kept. Both as positions 0..m-1, ascending.
    """
    agrees = pred_probs.argmax(axis=1) == labels
    n_drop = round(min(remove_ratio * int(agrees.sum()), len(labels)))
    # -log is monotone: least probability of the given label first. Counted from the front: order[-0:] is everything
    worst = np.argsort(probs_at(pred_probs, labels), kind="stable")[:n_drop]
    return np.flatnonzero(agrees), np.sort(worst[~agrees[worst]])


def keep_and_drop_by_part(
    labels: IntArray, pred_probs: Answer, parts: IntArray, remove_ratio: float
) -> tuple[IntArray, IntArray]:
    """Apply `keep_and_drop` to each of the parts (m,); return positions 0..m-1, ascending."""
    kept, dropped = [], []
    for part in range(int(parts.max()) + 1):
        held_out = np.flatnonzero(parts == part)
        keep, drop = keep_and_drop(labels[held_out], rows_of(pred_probs, held_out), remove_ratio)
        kept.append(held_out[keep])
        dropped.append(held_out[drop])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(dropped))


def what_to_learn(posterior: Posterior, n_best: int) -> tuple[IntArray, BoolArray]:
    """Decide what the next models learn: a class for each image, and whether it is learned at all.

    That is the given label, wherever it is more probably right than wrong; where most labels are wrong
    (`MOSTLY_WRONG`), the most probable class, wherever the posterior is `SURE` of it. The least doubtful images of each
    class always stay in S with their given label, so that no class is lost. Without a signal, everything is learned as
    given.

    Args:
        posterior: Of the evidence so far.
        n_best: Number of images of each class that stay in any case.

    Returns:
        The class that each image is learned as, (n,), and S, (n,).
    """
    if not posterior.has_signal:
        return posterior.labels, np.ones(len(posterior.labels), np.bool_)
    best = _rank_in_class(posterior.labels, posterior.wrong) < n_best
    if posterior.wrong.mean() <= MOSTLY_WRONG:
        return posterior.labels, (posterior.wrong <= PROBABLY_WRONG) | best
    learned = np.where(best, posterior.labels, posterior.suggested)
    return learned, (posterior.suggested_prob >= SURE) | best


def _rank_in_class(labels: IntArray, doubt: FloatArray) -> IntArray:
    """Return the rank (n,) of each image among those of its given class, by ascending doubt, from 0."""
    order = np.lexsort((doubt, labels))
    counts = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
