"""Features of clusters, and folds of them."""

from __future__ import annotations

import numpy as np

from cvcoteach.crossval.trainer import Fold

K = 4


def clusters(n=600, d=12, seed=0):
    """Features (n, d) of K overlapping clusters, and which one each came from."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    return (rng.normal(0, 1, (K, d))[labels] + rng.normal(0, 1, (n, d))).astype(np.float32), labels


def folds_of(labels, n_folds=3, seed=7):
    """Folds 0, 1, …: every n_folds-th image is held out."""
    index = np.arange(len(labels))
    return [
        Fold(train := index[index % n_folds != part], labels[train], index[index % n_folds == part], seed + part)
        for part in range(n_folds)
    ]
