"""`cvcoteach find-issues` on real human label errors, beside cleanlab with the same network and the same features.

    python examples/benchmarks/find_issues.py [--labels random1]    # about 20 minutes on two cores

20,000 CIFAR-10 images with the labels of one annotator each. From scratch (preset fast) and on frozen features,
each in a process of its own: seconds and peak memory are the whole process's. Nothing was tuned on random1. What is
measured is kept in build/benchmarks/find-issues and not measured again; delete that folder to start afresh.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from data import ARCHIVE, BUILD, frozen_features, load_cifar10n
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from tables import markdown, publish

N_FOLDS = 5  # cleanlab's usual


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", default="random1")
    parser.add_argument("--cleanlab", choices=["images", "features"], help="(used by the script itself)")
    args = parser.parse_args()
    if args.cleanlab:
        cleanlab_alone(args.labels, args.cleanlab)
        return

    source, features = prepare(args.labels)
    data = load_cifar10n()
    given, true = data.given[args.labels], data.true_labels
    rows, rounds = [], []
    for what, options in (
        ("from scratch", ["--preset", "fast"]),
        ("features, linear head", ["--features", str(features)]),
    ):
        name = f"{args.labels}-{what.split()[0].strip(',')}"
        output = BUILD / f"run-{name}"
        command = ["-m", "cvcoteach", "find-issues", str(source), "--output", str(output), "--json", *options]
        _, seconds, memory = timed(f"ours-{name}", command)
        table = (
            pd.read_csv(output / "issues.csv").set_index("path").loc[[f"train/{i:05d}.jpg" for i in range(len(true))]]
        )
        flagged, quality = table.is_label_issue.to_numpy(), table.label_quality.to_numpy()
        rows.append([what, "cvcoteach find-issues", *scores(given != true, flagged, 1 - quality), seconds, memory])
        rounds += [[what, number, *figures] for number, figures in enumerate(lp_lr(output, given == true), start=1)]

        kind = "features" if options else "images"
        answer, seconds, memory = timed(f"cleanlab-{name}", [__file__, "--labels", args.labels, "--cleanlab", kind])
        found = json.loads(answer)
        with np.load(found["file"]) as arrays:
            figures = scores(given != true, arrays["flagged"], 1 - arrays["quality"])
        rows.append([what, f"cleanlab, {N_FOLDS}-fold", *figures, seconds, memory])

    header = ["input", "method", "average precision", "precision", "recall", "F1", "seconds", "peak memory (MiB)"]
    text = f"Labels `{args.labels}`, {np.mean(given != true):.1%} of them wrong.\n\n{markdown(header, rows)}\n\n"
    publish("find-issues", text + markdown(["input", "round", "|S|", "LP", "LR"], rounds))


def prepare(labels: str) -> tuple[Path, Path]:
    """The images as files with a CSV of these labels, and their features: as a user has them."""
    folder = BUILD / "cifar10n"
    if not (folder / "labels.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(ARCHIVE) as tar:
            tar.extractall(folder, filter="data")
    table = pd.read_csv(folder / "labels.csv")
    train = table[table.split == "train"]
    source = folder / f"{labels}.csv"
    train[["filepath", labels]].rename(columns={labels: "label"}).to_csv(source, index=False)
    features = BUILD / "train-features.npy"
    np.save(features, frozen_features()[: len(train)])
    return source, features


def timed(name: str, command: list[str]) -> tuple[str, int, int]:
    """Standard output, seconds, peak memory in MiB of a Python process, or of its earlier measurement."""
    kept = BUILD / "find-issues" / f"{name}.json"
    if not kept.exists():
        started = time.perf_counter()
        environment = os.environ | {"CVCOTEACH_CACHE_DIR": str(BUILD / "cache"), "OMP_WAIT_POLICY": "PASSIVE"}
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"failed: {' '.join(command)}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([output, round(time.perf_counter() - started), usage.ru_maxrss // 1024]))
    output, seconds, memory = json.loads(kept.read_text())
    return output, seconds, memory


def scores(wrong: np.ndarray, flagged: np.ndarray, doubt: np.ndarray) -> list[float]:
    """Average precision of the ranking; precision, recall, F1 of the flags."""
    precision, recall, f1, _ = precision_recall_fscore_support(wrong, flagged, average="binary")
    return [float(average_precision_score(wrong, doubt)), float(precision), float(recall), float(f1)]


def lp_lr(output: Path, clean: np.ndarray) -> list[tuple[int, float, float]]:
    """|S|, label precision and label recall after each round, from the run folder."""
    from cvcoteach.crossval.incv import IterativeCV
    from cvcoteach.pipeline.results import RunResults
    from cvcoteach.pipeline.run_folder import RunFolder

    run, found = RunFolder.read(output), RunResults.load(output)
    identity = run.record["identity"]
    incv = IterativeCV(identity["select"], len(identity["folds"]), seed=identity["seed"])
    assert list(incv.folds(len(found.labels))) == identity["folds"]
    result = incv.run(None, found.labels, n_classes=len(found.class_names), finished=run.folds)  # every fold is there
    return [
        (int(r.selected.sum()), float(clean[r.selected].mean()), float(r.selected[clean].mean())) for r in result.rounds
    ]


def cleanlab_alone(labels: str, kind: str) -> None:
    """What a cleanlab user does: K-fold probabilities, its default filter, its default quality."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    from cvcoteach import HeadTrainer, TorchTrainer, cross_validate

    data = load_cifar10n()
    given, k = data.given[labels], len(data.class_names)
    trainer = TorchTrainer(data.images, k) if kind == "images" else HeadTrainer(frozen_features()[: len(given)], k)
    pred_probs = cross_validate(trainer, given, n_folds=N_FOLDS)
    file = BUILD / f"cleanlab-{labels}-{kind}.npz"
    flagged = find_label_issues(given, pred_probs, n_jobs=1)
    np.savez(file, flagged=flagged, quality=get_label_quality_scores(given, pred_probs))
    print(json.dumps({"file": str(file)}))


if __name__ == "__main__":
    main()
