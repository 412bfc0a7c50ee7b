"""Parts and plain K-fold."""

from __future__ import annotations

import numpy as np

from cvcoteach.crossval.kfold import stratified_parts


def test_parts_are_even_and_each_class_is_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=1003)
    parts = stratified_parts(labels, 4, rng)
    sizes = np.bincount(parts, minlength=4)
    assert sizes.max() - sizes.min() <= 1
    for label in range(7):
        within = np.bincount(parts[labels == label], minlength=4)
        assert within.max() - within.min() <= 1
