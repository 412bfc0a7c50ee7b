"""The paper's theory beside measurements: what two-fold cross-validation sees of label noise, on handwritten digits.

    python examples/theory.py [--output build/theory]    # theory.png and theory.csv, about a minute

If the model of a fold reproduces the noise that it was trained on (its confusions equal the noise transition), three
formulas follow (Chen et al., ICML 2019, section 3): how often model and given label agree (the test accuracy on noisy
labels), how many of the labels on which they agree are right (label precision), and how many of the right ones they
agree on (label recall). A nearest neighbor reproduces the noise, since it repeats the label of another image; a
regularized model agrees more than the theory says, so that the noise rate which the formulas read off its agreement is
too low.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from cvcoteach import SklearnTrainer, cross_validate
from cvcoteach._csv import write_csv
from cvcoteach._files import replacing
from cvcoteach.crossval import agreement as theory
from cvcoteach.noise_model import simulate

K = 10
RATES = {"symmetric": np.arange(0, 0.81, 0.1), "asymmetric": np.arange(0, 0.46, 0.05)}
MODELS = {
    "nearest neighbor": KNeighborsClassifier(n_neighbors=1),
    "logistic regression": LogisticRegression(C=0.01, max_iter=300),
}
FIGURES = ("test_accuracy", "label_precision", "label_recall")
COLUMNS = ("pattern", "model", "noise_rate", *FIGURES, "noise_rate_estimate")
_COLORS, _MARKS = ("#2156b8", "#d9661f"), ("o", "s")


def formulas(pattern: str, rates: Sequence[float]) -> pd.DataFrame:
    """Return the paper's three figures for each noise rate."""
    return pd.DataFrame(
        {
            "noise_rate": rates,
            "test_accuracy": [theory.agreement(rate, K, pattern) for rate in rates],
            "label_precision": [theory.label_precision(rate, K, pattern) for rate in rates],
            "label_recall": [theory.label_recall(rate) for rate in rates],
        }
    )


def measured(rates: dict[str, Sequence[float]], seed: int = 0) -> pd.DataFrame:
    """Return the same figures as measured, for each pattern, model and rate: columns as in `COLUMNS`."""
    X, true = load_digits(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    rows = []
    for pattern, several in rates.items():
        for rate in several:
            labels = simulate.flip_labels(true, simulate.transition(pattern, rate, K), np.random.default_rng(seed))
            clean = labels == true
            for name, model in MODELS.items():
                probs = cross_validate(SklearnTrainer(model, X, K), labels, n_folds=2, seed=seed)
                agree = probs.argmax(axis=1) == labels
                figures = (agree.mean(), clean[agree].mean(), agree[clean].mean())
                estimate = theory.noise_rate_from_agreement(float(agree.mean()), K, pattern)
                rows.append((pattern, name, float((~clean).mean()), *figures, estimate))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def draw(table: pd.DataFrame) -> Figure:
    """Draw the measured figures as points beside the formulas as lines, a row of plots per pattern."""
    patterns = table["pattern"].unique()
    figure = Figure(figsize=(9, 2.8 * len(patterns)), layout="constrained")
    grid: Any = figure.subplots(len(patterns), len(FIGURES), sharex="row", sharey=True, squeeze=False)
    for row, pattern in zip(grid, patterns, strict=True):
        own = table[table["pattern"] == pattern]
        line = formulas(pattern, np.linspace(0, own["noise_rate"].max(), 100).tolist())
        for axes, name in zip(row, FIGURES, strict=True):
            axes.plot(line["noise_rate"], line[name], color="black", label="theory")
            for (model, points), color, mark in zip(own.groupby("model", sort=False), _COLORS, _MARKS, strict=True):
                axes.plot(points["noise_rate"], points[name], mark, color=color, label=model, markersize=4)
            axes.set_title(f"{name.replace('_', ' ')}, {pattern} noise", fontsize=10)
            axes.set_ylim(0, 1.03)
            axes.grid(alpha=0.25)
    for axes in grid[-1]:
        axes.set_xlabel("noise rate")
    grid[0][0].legend(fontsize=8)
    return figure


def main() -> None:
    """Measure, write the table and the picture."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", type=Path, default=Path("build/theory"), help="folder (%(default)s)")
    output = options.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    table = measured({pattern: rates.tolist() for pattern, rates in RATES.items()})
    write_csv(output / "theory.csv", table, float_format="%.4f")
    with replacing(output / "theory.png") as file:
        draw(table).savefig(file, format="png", dpi=80)
    print(table.round(3).to_string(index=False))
    print(f"\nPicture: {output / 'theory.png'}")


if __name__ == "__main__":
    main()
