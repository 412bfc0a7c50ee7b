"""The contract that every model of the label noise keeps, and the arithmetic they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model.sparse_transition import Transition

Probs = npt.NDArray[np.floating]

TINY = 1e-300
FLOOR = 1e-6
"""Least probability: a predicted 1e-30 is never meant literally, and its logarithm would outweigh all others."""

_CHUNK_VALUES = 1 << 16


@runtime_checkable
class NoiseModel(Protocol):
    """A model of how given labels arise from true ones, fitted to labels and out-of-sample probabilities."""

    def posterior(self, labels: IntArray, probs: Probs) -> FloatArray:
        """Return P(true = k | image, given label).

        Args:
            labels: (m,) given labels of some rows.
            probs: (m, K) their out-of-sample probabilities.

        Returns:
            (m, K), rows sum to 1.
        """
        ...

    def before_label(self, probs: Probs) -> FloatArray:
        """Return P(true = k | image), from the image alone.

        Args:
            probs: (m, K) out-of-sample probabilities.

        Returns:
            (m, K), rows sum to 1.
        """
        ...

    def transition(self) -> Transition:
        """Return T[i, j] = P(given = j | true = i), (K, K), rows sum to 1; sparse for many classes."""
        ...

    def prior(self) -> FloatArray:
        """Return P(true = k), (K,), sums to 1."""
        ...

    def describe(self) -> str:
        """Return what was fitted, as a noun phrase."""
        ...


def chunks(n: int, n_classes: int) -> Iterator[slice]:
    """Yield slices that cover n rows, each small enough to stay in the processor's cache."""
    size = max(1, _CHUNK_VALUES // n_classes)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def most_probable(probs: Probs) -> IntArray:
    """Return the most probable class of each row, (n,), block by block: `argmax` copies an array that is read-only.

    So it is of a memory map, in NumPy 2.4.
    """
    found = np.empty(len(probs), np.int64)
    for rows in chunks(*probs.shape):
        found[rows] = probs[rows].argmax(axis=1)
    return found


def two_best(posterior: FloatArray, labels: IntArray) -> tuple[IntArray, FloatArray, IntArray, FloatArray]:
    """Return the most probable class of each row, and the most probable but the given one, with their probabilities.

    Args:
        posterior: (m, K), changed in place.
        labels: (m,) given.
    """
    each = np.arange(len(posterior))
    best, prob = posterior.argmax(axis=1), posterior.max(axis=1)
    posterior[each, labels] = -1
    other = posterior.argmax(axis=1)
    return best, prob, other, posterior[each, other]


def softmax(logits: npt.NDArray[np.floating]) -> None:
    """Replace logits by their softmax over the first axis, in place."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)


def one_hot(labels: IntArray, n_classes: int) -> FloatArray:
    """Return (K, n) with 1 at each label and 0 elsewhere."""
    result = np.zeros((n_classes, len(labels)))
    result[labels, np.arange(len(labels))] = 1
    return result


def as_transition(joint: FloatArray) -> FloatArray:
    """Turn counts (K, K) into rows that sum to 1, after adding one image to each row, half of it on the diagonal."""
    k = len(joint)
    smoothed = joint + (np.eye(k) + 1 / k) / 2
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def confident_transition(labels: IntArray, probs: Probs, weight: FloatArray) -> FloatArray:
    """Estimate T from the confident joint, its columns scaled to the given counts.

    Args:
        labels: (n,) given.
        probs: (n, K) out of sample.
        weight: (n,) how many images each row stands for.

    Returns:
        (K, K) T[i, j] = P(given = j | true = i).

    References:
        Northcutt, Jiang, Chuang, Confident Learning, JAIR 2021.
    """
    n, k = probs.shape
    counts = np.bincount(labels, minlength=k)
    own = probs[np.arange(n), labels]
    threshold = np.where(counts > 0, np.bincount(labels, own, minlength=k) / np.maximum(counts, 1), np.inf)
    above = np.where(probs >= threshold, probs, -1)
    confident = above.max(axis=1) >= 0
    cell = above.argmax(axis=1)[confident] * k + labels[confident]
    joint = np.bincount(cell, weight[confident], minlength=k * k).reshape(k, k)
    return as_transition(joint / np.maximum(joint.sum(axis=0), 1) * np.bincount(labels, weight, minlength=k))


def shrunk(transition: FloatArray, counts: FloatArray, n_uniform: float) -> FloatArray:
    """Shrink T towards uniform noise, as if `n_uniform` more images of each class had shown it.

    The share of wrong labels of a class is drawn towards that of all classes, and the classes that its labels go to
    towards all others alike. What few images say about rare confusions is mostly chance and costs more than it gains.

    Args:
        transition: (K, K) T.
        counts: (K,) images of each true class.
        n_uniform: Images.

    Returns:
        (K, K), rows sum to 1.
    """
    k = len(transition)
    joint = transition * counts[:, None]
    off = joint * (1 - np.eye(k))
    wrong = off.sum(axis=1)
    rate = (wrong + n_uniform * wrong.sum() / max(joint.sum(), TINY)) / (counts + n_uniform)
    pattern = (off + n_uniform / (k - 1)) / (wrong + n_uniform)[:, None]
    return np.where(np.eye(k, dtype=bool), 1 - rate[:, None], rate[:, None] * pattern)
