"""Do the readout's intervals contain the truth? 100 simulated noisy sets and the five human ones of CIFAR-10N.

    python examples/benchmarks/intervals.py

For every set: given labels, 5-fold out-of-sample probabilities of a linear head on the frozen features, the posterior's
flags, and the nominal 90 % intervals of precision and recall - from the posterior alone, and from 100 reviews, drawn
by `review_sample` (ten samples a set) and answered from the true labels. Prints how often they contain the truth and
how wide they are. The deviations that the first kind allows for were set with a look at random2 and aggre.
About three minutes on one core, two of them for the probabilities, which are kept.
"""

from __future__ import annotations

import itertools

import data
import numpy as np
import numpy.typing as npt
import torch

from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.issues.precision_recall import Interval, Readout, expected_precision_recall
from cvcoteach.issues.reviews import measured_precision_recall, review_sample
from cvcoteach.noise_model import simulate as noise

N_FOLDS, N_REVIEWS, N_SAMPLES, LEVEL = 5, 100, 10, 0.9
RATES, SPARSITIES = (0.02, 0.1, 0.2, 0.4, 0.6), (0.0, 0.2, 0.4, 0.6)
FLIPPED = data.BUILD / "intervals.npz"


def noisy_sets(true: npt.NDArray[np.int64], features: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.int64]]:
    """A hundred sets of given labels (n,), by name: 80 class-dependent, 8 of published protocols, 12 by features."""
    sets = {}
    for rate, sparsity, seed in itertools.product(RATES, SPARSITIES, range(4)):
        rng = np.random.default_rng([seed, int(rate * 100), int(sparsity * 10)])
        transition = noise.class_dependent(rate, 10, sparsity, rng)
        sets[f"class {rate} {sparsity} {seed}"] = noise.flip_labels(true, transition, rng)
    for protocol, rate in itertools.product(("symmetric", "asymmetric"), (0.05, 0.2, 0.3, 0.4)):
        rng = np.random.default_rng(int(rate * 100))
        sets[f"{protocol} {rate}"] = noise.flip_labels(true, noise.transition(protocol, rate, 10), rng)
    for rate, seed in itertools.product((0.1, 0.2, 0.4), range(4)):
        rng = np.random.default_rng([seed, int(rate * 100)])
        sets[f"features {rate} {seed}"] = noise.flip_by_features(true, features, rate, rng)
    return sets


def cross_validated(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], seed: int = 0
) -> npt.NDArray[np.float32]:
    """(s, n, 10) probabilities of linear heads for s sets of labels (s, n), trained side by side, 5 folds."""
    torch.manual_seed(seed)
    s, n = labels.shape
    x = torch.from_numpy(features)
    x = (x - x.mean(dim=0)) / (x.std(dim=0) + 1e-6)
    x = x @ torch.pca_lowrank(x, q=256, niter=2)[2]
    x = torch.cat([x / x.std(), torch.ones(n, 1)], dim=1)
    y = torch.from_numpy(labels)
    part = torch.from_numpy(np.random.default_rng(seed).permutation(n) % N_FOLDS)
    result = np.empty((s, n, 10), np.float32)
    for fold in range(N_FOLDS):
        train, held_out = torch.nonzero(part != fold)[:, 0], torch.nonzero(part == fold)[:, 0]
        weight = torch.zeros(x.shape[1], s * 10, requires_grad=True)
        adam = torch.optim.Adam([weight], lr=3e-3)
        n_epochs, size = 8, 500
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-2, total_steps=n_epochs * -(-len(train) // size))
        for _ in range(n_epochs):
            for rows in train[torch.randperm(len(train))].split(size):
                logits = (x[rows] @ weight).view(len(rows) * s, 10)
                loss = torch.nn.functional.cross_entropy(logits, y[:, rows].T.reshape(-1), reduction="sum") / len(rows)
                adam.zero_grad()
                loss.backward()
                adam.step()
                schedule.step()
        with torch.inference_mode():
            logits = (x[held_out] @ weight).view(len(held_out), s, 10)
            result[:, held_out.numpy()] = logits.softmax(dim=2).permute(1, 0, 2).numpy()
    return result


def probabilities() -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Names, given labels (105, n), probabilities (105, n, 10), true labels (n,); computed once, kept in build/."""
    if not FLIPPED.exists():
        images = data.load_cifar10n()
        true = images.true_labels
        features = data.frozen_features()[: len(true)]
        sets = noisy_sets(true, features) | {f"human {name}": given for name, given in images.given.items()}
        given = np.stack(list(sets.values()))
        probs = np.concatenate([cross_validated(features, part) for part in np.array_split(given, 5)])
        np.savez(FLIPPED, names=list(sets), given=given, probs=probs, true=true)
    with np.load(FLIPPED) as kept:
        return kept["names"].tolist(), kept["given"], kept["probs"], kept["true"]


def readouts(
    given: npt.NDArray[np.int64], probs: npt.NDArray[np.float32], true: npt.NDArray[np.int64]
) -> tuple[list[Readout], list[Readout], tuple[float, float]]:
    """Without reviews; with them, from several samples; and the true precision and recall."""
    issues = posterior_issues(given, probs)
    wrong = given != true
    hits = (wrong & issues.is_label_issue).sum()
    truth = float(hits / max(issues.n_issues, 1)), float(hits / wrong.sum())
    samples = [review_sample(issues, N_REVIEWS, seed=seed) for seed in range(N_SAMPLES)]
    measured = [measured_precision_recall(issues, sample, wrong[sample.indices]) for sample in samples]
    return [expected_precision_recall(issues)], measured, truth


def contains(interval: Interval | None, true: float) -> bool:
    """Whether the truth lies in it; rounding apart."""
    return interval is not None and interval.low - 1e-9 <= true <= interval.high + 1e-9


def main() -> None:
    """Print the table."""
    names, given, probs, true = probabilities()
    kinds = np.array([name.split()[0] for name in names])
    found = [readouts(given[i], probs[i], true) for i in range(len(names))]
    print(f"nominal {LEVEL:.0%}: share of intervals with the truth inside ± mean half width; numbers refused")
    print(f"{'sets':18}{'reviews':>8}{'precision':>20}{'refused':>9}{'recall':>20}{'refused':>9}")
    groups = {"all": np.arange(len(names))} | {kind: np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds)}
    for kind, rows in groups.items():
        for j, reviews in enumerate((0, N_REVIEWS)):
            line = f"{kind + f' ({len(rows)})':18}{reviews:8}"
            for k, what in enumerate(("precision", "recall")):
                told = [(getattr(readout, what), found[i][2][k]) for i in rows for readout in found[i][j]]
                known = [(interval, truth) for interval, truth in told if interval is not None]
                covered = np.mean([contains(*pair) for pair in known]) if known else np.nan
                half_width = np.mean([interval.width for interval, _ in known]) / 2 if known else np.nan
                line += f"{covered:>10.1%} ± {half_width:6.1%} {len(told) - len(known):9}"
            print(line)
    print("\nhuman sets, without reviews and with the first sample of them")
    for i in groups["human"]:
        before, after, truth = found[i]
        print(f"{names[i]:18}precision {truth[0]:.0%}: {before[0].precision}, {after[0].precision}", end="  ")
        print(f"recall {truth[1]:.0%}: {before[0].recall}, {after[0].recall}")


if __name__ == "__main__":
    main()
