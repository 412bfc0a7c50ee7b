"""What a posterior knows survives where annotators, splits and many classes meet overlap and strangers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from cvcoteach import fit_posterior
from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.by_split import fit_by_split
from cvcoteach.noise_model.consensus import with_annotators
from cvcoteach.noise_model.posterior import Posterior


def split_class(n: int = 900) -> tuple[IntArray, FloatArray]:
    """Return labels of three classes, one of them split in two at random, and probabilities that know the three."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), true] += 5
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    part = rng.uniform(0.3, 0.7, n)
    labels = np.where((true == 1) & (rng.random(n) < 0.5), 3, true)
    return labels, np.column_stack([probs[:, 0], probs[:, 1] * (1 - part), probs[:, 2], probs[:, 1] * part])


def sums(found: Posterior) -> FloatArray:
    """Return what the given label and the best other one have together; at most 1."""
    return found.label_quality + found.alternative_prob


def test_annotators_forget_neither_overlaps_nor_strangers() -> None:
    labels, probs = split_class()
    stranger = np.zeros(len(labels))
    stranger[0] = 0.9
    base = fit_posterior(labels, probs).with_strangers(stranger)
    votes = np.zeros(probs.shape)
    votes[np.arange(len(labels)), labels] = 1.0
    found = with_annotators(base, csr_array(votes))
    assert found.overlaps.tolist() == base.overlaps.tolist() == [[1, 3]]
    assert found.label_quality[0] <= 0.1
    halves = np.isin(labels, (1, 3))
    assert (found.wrong[halves] < 0.5).mean() > 0.95
    assert not np.isin(found.alternative[halves], (1, 3)).any()
    assert sums(found).max() < 1 + 1e-9


def test_splits_count_overlapping_classes_as_one_in_each() -> None:
    labels, probs = split_class()
    found = fit_by_split(labels, probs, [np.arange(600), np.arange(600, 900)])
    assert found.overlaps.tolist() == [[1, 3]]
    late = np.arange(900) >= 600
    assert (found.wrong[late & np.isin(labels, (1, 3))] < 0.5).mean() > 0.95
    assert sums(found).max() < 1 + 1e-9


@pytest.mark.parametrize("kind", ["splits", "annotators"])
def test_many_classes_are_judged_by_the_posterior_that_was_asked(kind: str) -> None:
    rng = np.random.default_rng(1)
    k, n = 40, 2000
    true = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), true] += 4
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(rng.random(n) < 0.2, rng.integers(0, k, n), true)
    if kind == "splits":
        found: Posterior = fit_by_split(labels, probs, [np.arange(1500), np.arange(1500, n)])
    else:
        votes = np.zeros((n, k))
        votes[np.arange(n), labels] = 2.0
        found = with_annotators(fit_posterior(labels, probs), csr_array(votes))
    assert sums(found).max() < 1 + 1e-6
