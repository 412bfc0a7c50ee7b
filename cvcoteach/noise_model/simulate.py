"""Label noise: seeded flips, by both papers' names, and the theory of what folds see of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray, InputError, IntArray, as_labels, near

# DivideMix (Li et al., ICLR 2020), CIFAR-10: truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog
CIFAR10_LOOKALIKES = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}

PROTOCOLS = ("symmetric", "asymmetric", "symmetric-dividemix", "asymmetric-dividemix")


def transition(protocol: str, rate: float, n_classes: int) -> FloatArray:
    """Noise transition T[i, j] = P(given = j | true = i), shape (K, K), of a published protocol.

    protocol: "symmetric" flips to the K-1 other classes and "asymmetric" every class i to i+1 (both as
        in INCV, Chen et al. 2019); "symmetric-dividemix" draws from all K classes, so that `rate`·(K-1)/K are
        wrong, and "asymmetric-dividemix" flips five look-alike pairs of CIFAR-10 (Li et al. 2020).
    rate: share of the images drawn for flipping, in [0, 1].

    Raises InputError for an unknown protocol, a rate outside [0, 1], or look-alikes without ten classes.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"rate is {rate}; a noise rate lies between 0 and 1.")
    k = n_classes
    keep = (1 - rate) * np.eye(k)
    if protocol == "symmetric":
        return keep + rate / (k - 1) * (1 - np.eye(k))
    if protocol == "asymmetric":
        return keep + rate * np.roll(np.eye(k), 1, axis=1)
    if protocol == "symmetric-dividemix":
        return keep + np.full((k, k), rate / k)
    if protocol == "asymmetric-dividemix":
        if k != 10:
            raise InputError(f"n_classes is {k}; the look-alikes of asymmetric-dividemix are CIFAR-10's ten classes.")
        result = np.eye(k)
        for true, given in CIFAR10_LOOKALIKES.items():
            result[true, true], result[true, given] = 1 - rate, rate
        return result
    raise InputError(f"protocol is {protocol!r}; {near(protocol, PROTOCOLS)}")


def class_dependent(rate: float, n_classes: int, sparsity: float, rng: np.random.Generator) -> FloatArray:
    """A random transition T (K, K) with mean noise `rate`, as in Confident Learning (Northcutt et al. 2021).

    sparsity: share of the off-diagonal entries that are zero, in [0, 1); every class keeps one at least.
    The rates of the classes differ: drawn uniformly, then scaled to the mean.

    Raises InputError where rate or sparsity lie outside [0, 1).
    """
    for name, value in (("rate", rate), ("sparsity", sparsity)):
        if not 0 <= value < 1:
            raise InputError(f"{name} is {value}; it lies in [0, 1).")
    k = n_classes
    weights = rng.random((k, k))
    np.fill_diagonal(weights, 0)
    off = np.argwhere(~np.eye(k, dtype=bool))
    zeros = off[rng.permutation(len(off))[: round(sparsity * len(off))]]
    strongest = weights.argmax(axis=1)
    weights[zeros[:, 0], zeros[:, 1]] = 0
    bare = weights.sum(axis=1) == 0
    weights[bare, strongest[bare]] = 1
    rates = rng.uniform(0.5, 1.5, k)
    # a class may not be more wrong than .95, or its name would mean nothing; the rest share what is cut off
    rates *= rate / rates.mean()
    for _ in range(k):
        over = rates > 0.95
        if not over.any() or over.all():
            break
        rates[over] = 0.95
        rates[~over] += (rate * k - rates.sum()) / (~over).sum()
    return weights / weights.sum(axis=1, keepdims=True) * rates[:, None] + np.diag(1 - rates)


def flip_labels(true_labels: npt.ArrayLike, transition: FloatArray, rng: np.random.Generator) -> IntArray:
    """Given labels drawn from T[true_label], shape (n,)."""
    labels, k = as_labels(true_labels, len(transition))
    cumulative = np.cumsum(transition, axis=1)
    cumulative[:, -1] = 1  # rounding must not leave a gap above the last class
    return (rng.random(len(labels))[:, None] >= cumulative[labels]).sum(axis=1).astype(np.int64).clip(max=k - 1)


def flip_by_features(
    true_labels: npt.ArrayLike, features: npt.ArrayLike, rate: float, rng: np.random.Generator
) -> IntArray:
    """Feature-dependent flips: an image's own look decides how probably, and to which class, it is flipped.

    Part-dependent noise of Xia et al. (NeurIPS 2020): each image's rate is drawn from a normal distribution
    around `rate` (deviation 0.1, cut to [0, 1]), its other class from a softmax of a random projection of its features.

    true_labels: (n,); features: (n, d), finite. Returns (n,).
    """
    labels, k = as_labels(true_labels)
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(labels):
        raise InputError(f"features has shape {x.shape}; {len(labels)} labels need ({len(labels)}, d).")
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-12)
    rates = np.clip(rng.normal(rate, 0.1, len(labels)), 0, 1)
    # one projection a class, so that two images of a class with the same look go the same way
    projections = rng.standard_normal((k, x.shape[1], k)) / np.sqrt(x.shape[1])
    scores = np.empty((len(labels), k))
    for true in range(k):
        rows = labels == true
        scores[rows] = x[rows] @ projections[true]
    scores[np.arange(len(labels)), labels] = -np.inf
    scores += rng.gumbel(size=scores.shape)  # a draw from the softmax
    return np.where(rng.random(len(labels)) < rates, scores.argmax(axis=1), labels).astype(np.int64)
