"""Compare the posterior with cleanlab on the same probabilities: average precision of the ranking, F1 of the flags.

    python examples/benchmarks/posterior.py    # about ten minutes on two cores

Probabilities: 5-fold cross-validation of one linear head on the frozen features, 20,000 images. cleanlab's column is
the best of its three scores and of its seven filters, picked for each label set with the true labels in hand: no user
could. Class-dependent noise is as in Northcutt et al. (2021), noise by features as in Xia et al. (2020).

Developed on probabilities of another head on these features, with other draws of class-dependent and feature-dependent
noise, other draws of low noise, and the human label sets: their rows, alone, are not of unseen data.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from data import BUILD, HUMAN_LABELS, N_TRAIN, frozen_features, load_cifar10n
from sklearn.metrics import average_precision_score, f1_score
from tables import markdown, publish

from cvcoteach.cleanlab.filter import CLEANLAB_FILTERS
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.issues.flags import flags_of
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.posterior import fit_posterior
from cvcoteach.training.head_trainer import HeadTrainer

RATES, SPARSITIES, SEEDS = (0.2, 0.4, 0.6), (0.0, 0.2, 0.4, 0.6), (0, 1, 2)
LOW_RATES, LOW_SEEDS = (0.02, 0.005), (3, 4, 5)  # on seeds 0-2 the prior of the transition was chosen
FEATURE_RATES = (0.2, 0.4)
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
Labels = npt.NDArray[np.int64]


def main() -> None:
    """Measure and publish."""
    data, features = load_cifar10n(), frozen_features()[:N_TRAIN]
    trainer = HeadTrainer(features, 10)
    measured: dict[str, list[tuple[float, ...]]] = {}
    for group, seed, given in label_sets(data.true_labels, dict(data.given), features):
        probs = cached_probabilities(trainer, f"{group} {seed}", given)
        measured.setdefault(group, []).append(compared(given, probs, given != data.true_labels))
        print(group, seed, *(f"{x:.3f}" for x in measured[group][-1]), flush=True)
    header = ["labels", "wrong", "AP cleanlab", "AP posterior", "gain", "F1 cleanlab", "F1 posterior", "gain"]
    table = markdown(header, (row(group, runs) for group, runs in measured.items()))
    publish("posterior", table + "\n\n" + summary(measured))


def label_sets(
    true: Labels, human: dict[str, Labels], features: npt.NDArray[np.float32]
) -> Iterator[tuple[str, int, Labels]]:
    """Group, seed and given labels (n,) of every set."""
    for rate, sparsity, seed in itertools.product(RATES, SPARSITIES, SEEDS):
        yield f"class-dependent {rate:.0%}, sparsity {sparsity:g}", seed, flipped(true, rate, sparsity, seed)
    for name in HUMAN_LABELS:
        yield f"human: {name}", 0, human[name]
    for rate, seed in itertools.product(LOW_RATES, LOW_SEEDS):
        yield f"low noise {rate:.1%}", seed, flipped(true, rate, 0.4, seed)
    for rate, seed in itertools.product(FEATURE_RATES, SEEDS):
        rng = np.random.default_rng([seed, round(rate * 1000)])
        yield f"by features {rate:.0%}", seed, noise.flip_by_features(true, features, rate, rng)


def flipped(true: Labels, rate: float, sparsity: float, seed: int) -> Labels:
    """Class-dependent noise, (n,)."""
    rng = np.random.default_rng([seed, round(rate * 1000), round(sparsity * 10)])
    return noise.flip_labels(true, noise.class_dependent(rate, 10, sparsity, rng), rng)


def cached_probabilities(trainer: HeadTrainer, name: str, given: Labels) -> npt.NDArray[np.float32]:
    """(n, 10) out-of-sample; computed once, kept in build/."""
    path = BUILD / "posterior" / f"{name}.npz"
    if path.exists():
        with np.load(path) as arrays:
            if np.array_equal(arrays["given"], given):
                return arrays["probs"]
    probs = cross_validate(trainer, given, n_folds=5, n_classes=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, given=given, probs=probs)
    return probs


def compared(given: Labels, probs: npt.NDArray[np.float32], wrong: npt.NDArray[np.bool_]) -> tuple[float, ...]:
    """Share of wrong labels, average precision and F1 of cleanlab's best and of the posterior, seconds of both."""
    rankings = [get_label_quality_scores(given, probs, method=score) for score in SCORES]
    flags = [find_label_issues(given, probs, filter_by=rule, n_jobs=1) for rule in CLEANLAB_FILTERS]
    start = time.process_time()
    posterior = fit_posterior(given, probs)
    seconds = time.process_time() - start
    return (
        wrong.mean(),
        max(average_precision_score(wrong, -ranking) for ranking in rankings),
        average_precision_score(wrong, -posterior.label_quality),
        max(f1_score(wrong, flagged) for flagged in flags),
        f1_score(wrong, flags_of(posterior)),
        seconds,
    )


def row(group: str, runs: list[tuple[float, ...]]) -> list[object]:
    """A line of the table: means over the seeds, and the least gain of a seed where there are several."""
    wrong, ap, our_ap, f1, our_f1, _ = np.array(runs).T

    def gain(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> str:
        least = f" (least {np.min(ours - theirs):+.3f})" if len(runs) > 1 else ""
        return f"{np.mean(ours - theirs):+.3f}{least}"

    means = [float(x.mean()) for x in (ap, our_ap, f1, our_f1)]
    return [group, f"{wrong.mean():.1%}", *means[:2], gain(our_ap, ap), *means[2:], gain(our_f1, f1)]


def summary(measured: dict[str, list[tuple[float, ...]]]) -> str:
    """One sentence a kind of noise."""
    lines = []
    for kind in ("class-dependent", "human", "low noise", "by features"):
        means = np.array([np.mean(runs, axis=0) for group, runs in measured.items() if group.startswith(kind)])
        ap, f1 = means[:, 2] - means[:, 1], means[:, 4] - means[:, 3]
        lines.append(
            f"- {kind}: average precision {ap.mean():+.3f} in the mean of {len(means)} settings, {ap.min():+.3f} in "
            f"the worst; F1 {f1.mean():+.3f} and {f1.min():+.3f}."
        )
    seconds = np.mean([run[5] for runs in measured.values() for run in runs])
    return "\n".join([*lines, f"- The posterior of 20,000 images takes {seconds:.1f} s of one processor."])


if __name__ == "__main__":
    main()
