"""What more evidence could be had from the same frozen features: other last rounds, and discriminants for rare classes.

    python examples/benchmarks/evidence.py           # other last rounds, on the label sets that choices are made on
    python examples/benchmarks/evidence.py --rare    # linear discriminants beside heads, on the tuning draws

Nothing here is part of the package. A last round is trained in place of the third one, on what the second selected, and
averaged with the second. Rare classes are made as in rare_classes.py.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cleanlab.filter import find_label_issues
from data import N_TRAIN, frozen_features, load_cifar10n
from rare_classes import draw_of_rare
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.metrics import average_precision_score, f1_score
from tables import markdown, publish
from torch.nn import functional

from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate, parts_of_round
from cvcoteach.issues.flags import FlagRule, flags_of
from cvcoteach.noise_model.posterior import Posterior, fit_posterior, label_posterior
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.heads import Heads, schedule

K, N_FOLDS = 10, 5
NOISES = ("aggre", "random2")
DRAWS = range(10, 20)
N_AXES, SHRINKAGE = 256, 0.3
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LastRound:
    """How the heads of a last round are trained."""

    soft: bool = False
    """On all images, with the posterior as target; otherwise on the selected ones as they are given."""
    hidden: int = 128
    """Units of the hidden layer."""
    epochs: int = 5
    """Passes."""
    dropped: float = 0.0
    """Share of the features hidden at random."""
    mixed: float = 0.0
    """Parameter of the beta distribution by which pairs of images are mixed (mixup); 0: none are."""


LAST_ROUNDS = {
    "as it is": LastRound(),
    "linear heads": LastRound(hidden=0),
    "the posterior as target, all images": LastRound(soft=True),
    "the same, 30 % of the features hidden": LastRound(soft=True, dropped=0.3, epochs=7),
    "mixup": LastRound(mixed=0.4, epochs=8),
    "mixup, the posterior as target": LastRound(soft=True, mixed=0.4, epochs=8),
}


def main() -> None:
    """Measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rare", action="store_true", help="rare classes instead")
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=NOISES, help="label sets of the last rounds")
    args = parser.parse_args()
    if args.rare:
        publish("discriminants", rare())
    else:
        publish("last-rounds", last_rounds(args.noises))


def last_rounds(noises: Sequence[str]) -> str:
    """Return a table of all last rounds on these label sets."""
    data, features = load_cifar10n(), frozen_features()[:N_TRAIN]
    standard = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    trainer, rows = HeadTrainer(features, K, "mlp", threads=1), []
    for noise in noises:
        given = data.given[noise]
        wrong = given != data.true_labels
        result = IterativeCV().run(trainer, given)
        second = np.asarray(result.rounds[1].pred_probs)
        posterior = label_posterior(given, second)
        for name, how in LAST_ROUNDS.items():
            began = time.process_time()
            third = scored(how, standard, given, posterior, result.rounds[1].selected)
            seconds = time.process_time() - began
            found = fit_posterior(given, ((second + third) / 2).astype(np.float32))
            rows.append([noise, name, *figures(wrong, found), f"{seconds:.0f}"])
            print(*rows[-1], flush=True)
    return markdown(["labels", "last round", "AP", "F1", "noise rate said", "its CPU seconds"], rows)


def figures(wrong: Bools, posterior: Posterior) -> list[float]:
    """Average precision, F1 of the flags, and the noise rate."""
    flags = flags_of(posterior)
    return [
        float(average_precision_score(wrong, posterior.wrong)),
        float(f1_score(wrong, flags)),
        float(posterior.wrong.mean()),
    ]


def scored(how: LastRound, standard: Floats, given: Labels, posterior: Floats, selected: Bools) -> Floats:
    """Probabilities (n, K): of an image learned from by the head that left it out, of any other by all heads."""
    parts = parts_of_round(given, N_FOLDS, 0, 3)
    inside = np.ones_like(selected) if how.soft else selected
    targets = posterior if how.soft else np.eye(K, dtype=np.float32)[given]
    learned = np.stack([inside & (parts != part) for part in range(N_FOLDS)], axis=1)
    x = torch.from_numpy(standard)
    heads = trained(how, x, torch.from_numpy(targets), torch.from_numpy(learned))
    with torch.no_grad():
        probs = torch.cat([heads.logits(rows).softmax(dim=-1) for rows in x.split(4000)]).numpy()
    judged = (~learned & (parts[:, None] == np.arange(N_FOLDS))) | ~inside[:, None]
    mean: Floats = (probs * judged[..., None]).sum(axis=1) / judged.sum(axis=1)[:, None]
    return mean


def trained(how: LastRound, x: torch.Tensor, targets: torch.Tensor, learned: torch.Tensor) -> Heads:
    """Train a head per fold, by `HeadTrainer`'s schedule; targets (n, K), learned (n, folds)."""
    n_heads, numbers = learned.shape[1], torch.Generator().manual_seed(0)
    draws = np.random.default_rng(0)
    heads = Heads.fresh(x.shape[1], K, how.hidden, list(range(n_heads)), x.device)
    optimizer = heads.optimizer(1.25, 0.0)
    used = learned.any(dim=1).nonzero().flatten()
    used = used[torch.randperm(len(used), generator=numbers)]
    n_train = float(learned.sum(dim=0).float().mean())
    n_batches = int(2 ** round(math.log2(n_train / (2 * math.sqrt(n_train)))))
    batches = used.tensor_split(n_batches)
    for step in range(how.epochs * n_batches):
        if step % n_batches == 0:
            order = torch.randperm(n_batches, generator=numbers).tolist()
        rows = batches[order[step % n_batches]]
        batch, weight = x[rows], learned[rows].float()
        target = targets[rows][:, None] * weight[..., None]
        if how.mixed:
            other, share = torch.randperm(len(rows), generator=numbers), float(draws.beta(how.mixed, how.mixed))
            batch = share * batch + (1 - share) * batch[other]
            target = share * target + (1 - share) * target[other]
        if how.dropped:
            batch = batch * (torch.rand(batch.shape, generator=numbers) >= how.dropped) / (1 - how.dropped)
        for group in optimizer.param_groups:
            group["lr"] = group["scale"] * schedule(step / (how.epochs * n_batches))
        losses = -(target * functional.log_softmax(heads.logits(batch), dim=-1)).sum(dim=(0, 2))
        optimizer.zero_grad()
        torch.autograd.backward((losses / weight.sum(dim=0).clamp_min(1)).sum())
        optimizer.step()
    return heads


def rare() -> str:
    """Return a table of rare classes judged by heads, by discriminants, and by both."""
    features, true = frozen_features()[:N_TRAIN], load_cifar10n().true_labels
    rows: dict[str, list[list[float]]] = {}
    for seed in DRAWS:
        for name, row in of_rare(features, true, seed):
            rows.setdefault(name, []).append(row)
        print(seed, flush=True)
    header = ["rare classes judged by", "right labels flagged", "recall of wrong ones", "recall at 25 % of the right"]
    return markdown(header, ([name, *np.mean(values, axis=0).tolist()] for name, values in rows.items()))


def of_rare(features: Floats, true: Labels, seed: int) -> Iterator[tuple[str, list[float]]]:
    """Yield who judges the rare classes, and the figures of a draw."""
    rows, labels, classes = draw_of_rare(true, seed)
    wrong, given_rare = labels != true[rows], np.isin(labels, classes)
    trainer = HeadTrainer(features[rows], K, "linear", threads=1)

    def of(doubt: npt.NDArray[Any], flags: Bools) -> list[float]:
        right, found = given_rare & ~wrong, given_rare & wrong
        bound = np.sort(doubt[right])[::-1][int(0.25 * right.sum())]
        return [float(flags[right].mean()), float(flags[found].mean()), float((doubt[found] > bound).mean())]

    probs = cross_validate(trainer, labels, n_folds=N_FOLDS, seed=seed)
    yield "cleanlab", of(1 - probs[np.arange(len(labels)), labels], find_label_issues(labels, probs, n_jobs=1))
    result = IterativeCV(seed=seed).run(trainer, labels)
    heads = result.posterior.wrong
    yield "ours", of(heads, result.flags)
    parts = parts_of_round(labels, N_FOLDS, seed, 3)
    by_discriminants = discriminants(features[rows], labels, label_posterior(labels, result.pred_probs), parts)
    alone = fit_posterior(labels, by_discriminants).wrong
    for name, doubt in (("discriminants", alone), ("mean of both", (alone + heads) / 2)):
        doubt = np.where(given_rare, doubt, heads)
        yield name, of(doubt, FlagRule().flags(doubt, labels))


def discriminants(features: Floats, labels: Labels, posterior: Floats, parts: Labels) -> Floats:
    """Probabilities (n, K) by linear discriminants, out of sample: class means and one covariance, by posterior.

    Scale and class weights make the given labels likeliest.
    """
    x = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    x = x @ np.linalg.eigh(x.T @ x)[1][:, -N_AXES:]
    scores = np.empty((len(x), K))
    for part in range(int(parts.max()) + 1):
        inside, outside = parts != part, parts == part
        count = posterior[inside].sum(axis=0) + 1e-3
        means = posterior[inside].T @ x[inside] / count[:, None]
        within = (x[inside].T @ x[inside] - (means.T * count) @ means) / inside.sum()
        within = (1 - SHRINKAGE) * within + SHRINKAGE * np.trace(within) / N_AXES * np.eye(N_AXES)
        axes = np.linalg.solve(within, means.T)
        scores[outside] = x[outside] @ axes - np.einsum("kd,dk->k", means, axes) / 2
    scores /= scores.std()
    given = np.eye(K)[labels]

    def loss(of: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        logs = log_softmax(scores * math.exp(of[0]) + of[1:], axis=1)
        slope = (np.exp(logs) - given) / len(labels)
        return -float((given * logs).sum() / len(labels)), np.r_[(slope * scores).sum() * math.exp(of[0]), slope.sum(0)]

    found = minimize(loss, np.zeros(K + 1), jac=True, method="L-BFGS-B").x
    probs: Floats = softmax(scores * math.exp(found[0]) + found[1:], axis=1).astype(np.float32)
    return probs


if __name__ == "__main__":
    main()
