"""The pictures of the documentation, from a real run on scikit-learn's handwritten digits with planted errors.

    python examples/pictures.py    # writes docs/pictures/*.webp; a few minutes, run by `make pictures`

The screenshot of the report needs a Chromium and playwright (extra `test`); CVCOTEACH_CHROMIUM names a binary.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import theory
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits

import cvcoteach
from cvcoteach._files import replacing
from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.noise_model import simulate
from cvcoteach.pipeline.results import RunResults

ROOT = Path(__file__).resolve().parents[1]
OUTPUT, BUILD = ROOT / "docs" / "pictures", ROOT / "build" / "docs-pictures"
K = 10
SHOWN = 30
WIDTH, HEIGHT = 1000, 1000


def planted_transition() -> FloatArray:
    """Return T (K, K): 8 % of the labels at random, and a quarter of the threes given as eights."""
    transition = simulate.transition("symmetric", 0.08, K)
    transition[3] = 0.0
    transition[3, [3, 8]] = 0.75, 0.25
    return transition


def plant(folder: Path) -> tuple[IntArray, IntArray]:
    """Write the digits into class folders by their given labels; return the true and the given labels (n,)."""
    digits = load_digits()
    true = digits.target.astype(np.int64)
    given = simulate.flip_labels(true, planted_transition(), np.random.default_rng(0))
    shutil.rmtree(folder, ignore_errors=True)
    for number, (image, label) in enumerate(zip(digits.images, given.tolist(), strict=True)):
        file = folder / str(label) / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * (255 / 16)).astype(np.uint8)).save(file)
    return true, given


def saved(figure: Figure, name: str, dpi: int = 90) -> None:
    """Write a figure as a small WebP."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    webp(Image.open(png), name)


def webp(picture: Image.Image, name: str) -> None:
    """Write a picture as a small WebP."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with replacing(OUTPUT / f"{name}.webp") as file:
        picture.convert("RGB").save(file, "WEBP", quality=70, method=6)


def most_doubtful(run: RunResults, true: IntArray, folder: Path) -> Figure:
    """Draw the most doubtful images, given -> suggested."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    grid: Any = figure.subplots(3, SHOWN // 3)
    for axes, row in zip(grid.ravel(), run.worst_first()[:SHOWN].tolist(), strict=True):
        axes.imshow(np.asarray(Image.open(folder / run.paths[row])), cmap="gray_r")
        given, suggested = run.class_names[run.labels[row]], run.class_names[run.found.suggested[row]]
        axes.set_title(
            f"{given} → {suggested}", fontsize=10, color="#a3330b" if run.labels[row] != true[row] else "black"
        )
        axes.set_axis_off()
    return figure


def transitions(run: RunResults) -> Figure:
    """Draw the planted noise transition beside what the posterior finds: expected images by true and given class."""
    found = np.zeros((K, K))
    np.add.at(found, run.labels, cvcoteach.label_posterior(run.labels, run.pred_probs))
    found = (found / found.sum(axis=0)).T
    figure = Figure(figsize=(8, 3.9), layout="constrained")
    for axes, (title, matrix) in zip(
        figure.subplots(1, 2), (("planted", planted_transition()), ("found by the posterior", found)), strict=True
    ):
        axes.imshow(np.where(np.eye(K, dtype=bool), np.nan, matrix), cmap="Oranges", vmin=0, vmax=0.27)
        for i, j in np.argwhere((matrix > 0.02) & ~np.eye(K, dtype=bool)).tolist():
            axes.text(j, i, f"{matrix[i, j]:.2f}".lstrip("0"), ha="center", va="center", fontsize=8)
        axes.set_xticks(range(K))
        axes.set_yticks(range(K))
        axes.set_xlabel("given")
        axes.set_ylabel("true")
        axes.set_title(f"{title}: P(given | true)", fontsize=10)
    return figure


def judged(run: RunResults, wrong: FloatArray) -> Figure:
    """Draw the probability that models give to the given label, in round 1 and at the end, of right and wrong ones."""
    rows = np.arange(len(run.labels))
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    views: Iterable[tuple[str, FloatArray]] = (
        ("round 1: learned from all labels", run.pred_probs_round_1[rows, run.labels]),
        ("later rounds: from labels probably right", run.pred_probs[rows, run.labels]),
        ("posterior: the noise undone", run.found.label_quality),
    )
    for axes, (title, values) in zip(figure.subplots(1, 3, sharey=True), views, strict=True):
        axes.hist(
            [values[wrong > 0], values[wrong == 0]],
            bins=np.linspace(0, 1, 26).tolist(),
            stacked=True,
            color=["#d9661f", "#2156b8"],
            label=["planted errors", "right labels"],
        )
        axes.set_yscale("log")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("probability of the given label")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.axes[0].set_ylabel("images")
    return figure


def screenshot(page: Path) -> Image.Image:
    """Return the report as a browser shows it."""
    from playwright.sync_api import sync_playwright

    from tests.chromium import OPTIONS, find_chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=OPTIONS)
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        tab.goto(page.as_uri())
        tab.wait_for_selector(".card img")
        data = tab.screenshot()
        browser.close()
    return Image.open(io.BytesIO(data))


def main() -> None:
    """Run, draw, write."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    os.chdir(BUILD)
    folder = BUILD / "digits"
    true, _ = plant(folder)
    machine = cvcoteach.Machine("cpu", 1, "float32", cache_dir=BUILD / "cache")
    run = cvcoteach.find_issues("digits", "digits-issues", machine=machine)
    numbers = np.array([int(Path(path).stem) for path in run.paths])
    truth = true[numbers]
    wrong = (run.labels != truth).astype(np.float64)
    saved(most_doubtful(run, truth, folder), "most-doubtful")
    saved(transitions(run), "transition")
    saved(judged(run, wrong), "rounds")
    saved(cvcoteach.plot_confusions(run), "confusions")
    saved(cvcoteach.plot_reliability(run, wrong, n_bins=20), "reliability", dpi=80)
    flags = run.found.is_label_issue
    expected = cvcoteach.expected_precision_recall(run.found)
    facts = {
        "images": len(true), "wrong": int(wrong.sum()), "flagged": int(flags.sum()), "found": int(wrong[flags].sum()),
        "noise rate": round(run.found.noise_ratio, 4),
        "precision": str(expected.precision), "recall": str(expected.recall),
    }  # fmt: skip
    print(pd.Series(facts).to_string())
    measured = theory.measured({pattern: rates.tolist() for pattern, rates in theory.RATES.items()})
    saved(theory.draw(measured), "theory", dpi=80)
    webp(screenshot(run.folder.absolute() / "issues.html"), "report")


if __name__ == "__main__":
    main()
