"""Which labels are wrong: ours, plain INCV and cleanlab on the same frozen features, with the same head.

    python examples/benchmarks/detection.py [--head mlp] [--noises aggre random2] [--seeds 0]

Every figure measured is kept in build/benchmarks/detection-HEAD.csv, and not measured again; delete it to start anew.
Choices were made on aggre and random2, on parts of random2, and on other draws of synthetic noise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from data import BUILD, HUMAN_LABELS, N_TRAIN, frozen_features, load_cifar10n
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score
from tables import markdown, publish

from cvcoteach.cleanlab.filter import CLEANLAB_FILTERS
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.issues.flags import flags_of
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.posterior import fit_posterior
from cvcoteach.training.head_trainer import HeadTrainer

K = 10
N_FOLDS = 5
TUNED_ON = ("aggre", "random2")
SYNTHETIC = (
    "symmetric .2",
    "symmetric .5",
    "symmetric .8",
    "asymmetric .4",
    "symmetric-dividemix .5",
    "asymmetric-dividemix .4",
    "class-dependent .3",
    "feature-dependent .3",
)
OURS, INCV, CLEANLAB = "ours", "INCV, not in S", "cleanlab, self-confidence"
FIGURES = ("AP", "AUROC", "precision", "recall", "F1", "ECE", "CPU seconds")
PLOT = Path(__file__).with_suffix(".svg")

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]


def main() -> None:
    """Measure what is missing, publish what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", choices=["linear", "mlp"], default="mlp")
    parser.add_argument("--noises", nargs="*", default=[*HUMAN_LABELS, *SYNTHETIC])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--ceiling", action="store_true", help="what heads could reach that know the true labels")
    args = parser.parse_args()
    if args.ceiling:
        publish("detection-ceiling", ceiling())
        return

    data = load_cifar10n()
    features = frozen_features()[:N_TRAIN]
    trainer = HeadTrainer(features, K, args.head, threads=1)
    file = BUILD / f"detection-{args.head}.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["noise", "seed", "method", *FIGURES])
    for seed in args.seeds:
        for name in args.noises:
            if ((table.noise == name) & (table.seed == seed)).any():
                continue
            given = data.given[name] if name in HUMAN_LABELS else flipped(name, data.true_labels, features, seed)
            rows = [[name, seed, *row] for row in measured(trainer, given, given != data.true_labels, seed)]
            table = pd.concat([table, pd.DataFrame(rows, columns=table.columns)], ignore_index=True)
            table.to_csv(file, index=False)
            print(table.tail(len(rows))[["noise", "seed", "method", "AP", "F1", "ECE", "CPU seconds"]].to_string())
    if args.head == "mlp":
        plot(table)
    publish("detection" if args.head == "mlp" else f"detection-{args.head}", text(table, args.head))


def flipped(name: str, true: Labels, features: Floats, seed: int) -> Labels:
    """The labels after synthetic noise, e.g. "symmetric .5"."""
    kind, rate = name.split()
    rng = np.random.default_rng(seed)
    if kind == "feature-dependent":
        return noise.flip_by_features(true, features, float(rate), rng)
    if kind == "class-dependent":
        return noise.flip_labels(true, noise.class_dependent(float(rate), K, 0.5, rng), rng)
    return noise.flip_labels(true, noise.transition(kind, float(rate), K), rng)


def measured(trainer: HeadTrainer, given: Labels, wrong: Bools, seed: int) -> Iterator[list[Any]]:
    """One row a method: its name, then `FIGURES`. Where it flags nothing itself, or gives no probability, NaN."""
    clock = Clock()
    probs = cross_validate(trainer, given, n_folds=N_FOLDS, seed=seed)
    folds = clock.lap()

    for score in ("self_confidence", "normalized_margin"):
        quality = get_label_quality_scores(given, probs, method=score)
        flags = find_label_issues(given, probs, n_jobs=1)
        seconds = folds + clock.lap()
        yield [f"cleanlab, {score.replace('_', '-')}", *figures(wrong, 1 - quality, flags), np.nan, seconds]
    for rule in CLEANLAB_FILTERS:
        flags = find_label_issues(given, probs, filter_by=rule, n_jobs=1)
        yield [f"cleanlab, {rule}", np.nan, np.nan, *flag_figures(wrong, flags), np.nan, folds + clock.lap()]

    posterior = fit_posterior(given, probs)
    doubt, flags = posterior.wrong, flags_of(posterior)
    seconds = folds + clock.lap()
    yield ["posterior of the same folds", *figures(wrong, doubt, flags), calibration(wrong, doubt), seconds]

    result = IterativeCV(seed=seed).run(trainer, given)
    doubt, seconds = result.posterior.wrong, clock.lap()
    yield [OURS, *figures(wrong, doubt, result.flags), calibration(wrong, doubt), seconds]

    result = IterativeCV("agreement", seed=seed).run(trainer, given)
    seconds = clock.lap()
    quality = result.pred_probs[np.arange(len(given)), given]
    rank = np.lexsort((-quality, ~result.selected)).argsort()  # those that never joined S are the most doubtful
    yield [INCV, *figures(wrong, rank, ~result.selected), np.nan, seconds]


def ceiling() -> str:
    """Average precision of heads trained on the true labels, out of sample, with the true noise transition.

    Nobody has these: it is about what the features and the heads allow, whatever is done about the noise.
    """
    data = load_cifar10n()
    features, true = frozen_features()[:N_TRAIN], data.true_labels
    rows = []
    for head in ("linear", "mlp"):
        trainer = HeadTrainer(features, K, head, threads=1)
        clean = cross_validate(trainer, true, n_folds=N_FOLDS)
        for name in HUMAN_LABELS:
            given = data.given[name]
            confusion = np.bincount(true * K + given, minlength=K * K).reshape(K, K)
            joint = clean * (confusion / confusion.sum(axis=1, keepdims=True))[:, given].T
            known = average_precision_score(given != true, 1 - joint[np.arange(N_TRAIN), given] / joint.sum(axis=1))
            noisy = cross_validate(trainer, given, n_folds=N_FOLDS)
            cleanlab = average_precision_score(
                given != true, 1 - get_label_quality_scores(given, noisy, method="self_confidence")
            )
            rows.append([head, name, cleanlab, known, f"{known - cleanlab:+.3f}"])
    return markdown(["head", "labels", "AP cleanlab", "AP, true labels known", "gain"], rows)


class Clock:
    """CPU seconds between laps."""

    def __init__(self) -> None:
        self.last = time.process_time()

    def lap(self) -> float:
        """Since the last one."""
        self.last, before = time.process_time(), self.last
        return self.last - before


def figures(wrong: Bools, doubt: npt.NDArray[Any], flags: Bools) -> list[float]:
    """Average precision and AUROC of the ranking, then `flag_figures`."""
    return [average_precision_score(wrong, doubt), roc_auc_score(wrong, doubt), *flag_figures(wrong, flags)]


def flag_figures(wrong: Bools, flags: Bools) -> list[float]:
    """Precision, recall and F1 of the flags."""
    return list(precision_recall_fscore_support(wrong, flags, average="binary", zero_division=0)[:3])


def calibration(wrong: Bools, probability: Floats, n_bins: int = 15) -> float:
    """Expected calibration error of P(label is wrong): 15 bins of equal width, weighted by their images."""
    place = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(place, wrong, n_bins) - np.bincount(place, probability, n_bins)
    return float(np.abs(gaps).sum() / len(wrong))


def text(table: pd.DataFrame, head: str) -> str:
    """What was to be reached, then everything."""
    best_filter = table[table.method.isin([f"cleanlab, {rule}" for rule in CLEANLAB_FILTERS])]
    best_filter = best_filter.groupby(["noise", "seed"]).F1.max().groupby("noise").mean()
    means = table.groupby(["method", "noise"])[list(FIGURES)].mean()
    ours, theirs = means.loc[OURS], means.loc[CLEANLAB]
    noises = [name for name in (*HUMAN_LABELS, *SYNTHETIC) if name in ours.index]
    target = []
    for name in noises:
        a, b = ours.loc[name], theirs.loc[name]
        row = [f"{name}{' (tuned on)' if name in TUNED_ON else ''}", b.AP, a.AP, f"{a.AP - b.AP:+.3f}"]
        row += [best_filter[name], a.F1, f"{a.F1 - best_filter[name]:+.3f}"]
        target.append([*row, a.ECE, f"{a['CPU seconds'] / b['CPU seconds']:.1f}"])
    header = ["labels", "AP cleanlab", "AP ours", "gain", "best F1 of cleanlab's filters", "F1 ours", "gain"]
    n_seeds = table.seed.nunique()
    human = [name for name in HUMAN_LABELS if name in ours.index]
    gain = (ours.AP - theirs.AP)[human].mean()
    lines = [
        f"Head: {head}. Mean of {n_seeds} seed{'s' * (n_seeds > 1)}. AP: average precision. cleanlab: "
        f"self-confidence of {N_FOLDS}-fold probabilities. Its best filter is chosen in hindsight, for each set of "
        f"labels. Mean gain in AP on the human labels: {gain:+.3f}.\n",
        markdown([*header, "ECE", "CPU seconds, ratio"], target),
        "\nEverything, mean ± standard deviation of the seeds:\n",
    ]
    rows = []
    spread = table.groupby(["method", "noise"])[list(FIGURES)].std()
    for name in noises:
        for method in table[table.noise == name].method.unique():
            mean, deviation = means.loc[method, name], spread.loc[method, name]
            rows.append([name, method, *(_cell(mean[f], deviation[f], 1 if "sec" in f else 3) for f in FIGURES)])
    return "\n".join([*lines, markdown(["labels", "method", *FIGURES], rows)])


def _cell(mean: float, deviation: float, digits: int) -> str:
    if np.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if np.isnan(deviation) else f" ± {deviation:.{digits}f}")


def plot(table: pd.DataFrame) -> None:
    """Average precision of each method, one row of dots a set of labels, into detection.svg."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    noises = [name for name in (*HUMAN_LABELS, *SYNTHETIC) if name in set(table.noise)][::-1]
    means = table.groupby(["method", "noise"]).AP.mean()
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(noises) + 1.2), layout="constrained")
    for method, marker, colour in ((CLEANLAB, "o", "#999999"), (INCV, "s", "#d08030"), (OURS, "D", "#2060c0")):
        axes.plot([means.get((method, n)) for n in noises], noises, marker, color=colour, label=method)
    axes.set_xlabel("average precision")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize="small", frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
