"""How much do rounds cost, and what do they bring? `find-issues` from scratch beside an earlier build, in one run.

    git archive 63c7401 cvcoteach | tar x -C build/63c7401    # after mkdir -p build/63c7401
    python examples/benchmarks/rounds.py --build build/63c7401 [--share 0.2] [--labels random1]

The preset fast on the first share of the 20,000 images, one thread, bfloat16, the same seed. Each run is a process of
its own, whose processor time counts (not the clock: other programs may be at work). Results are kept in
build/benchmarks/rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from data import BUILD, REPOSITORY, load_cifar10n
from sklearn.metrics import average_precision_score, f1_score
from tables import markdown, publish

MACHINE = ("--device", "cpu", "--threads", "1", "--precision", "bfloat16", "--quiet")


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True, help="folder that holds the earlier build's cvcoteach/")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--labels", default="random1")
    options = parser.parse_args()
    data = load_cifar10n()
    n = round(options.share * len(data.true_labels))
    given, true = data.given[options.labels][:n], data.true_labels[:n]
    folder = BUILD / "rounds" / f"{options.labels}-{n}"
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "images.npz"
    np.savez(source, images=data.images[:n], labels=given)
    rows = []
    for name, build, more in (
        ("earlier build", options.build.resolve(), ()),
        ("2 rounds", REPOSITORY, ("--rounds", "2")),
        ("3 rounds (default)", REPOSITORY, ()),
    ):
        output = folder / name.replace(" ", "-").replace("(", "").replace(")", "")
        seconds = measured(build, source, output, more)
        table = pd.read_csv(output / "issues.csv")
        row = table.path.str.rpartition("#")[2].astype(int).to_numpy()
        wrong = (given != true)[row]
        average_precision = float(average_precision_score(wrong, 1 - table.label_quality))
        noise_rate = json.loads((output / "run.json").read_text())["summary"]["noise_rate"]
        f1 = float(f1_score(wrong, table.is_label_issue))
        rows.append([name, average_precision, f1, noise_rate, seconds, seconds / rows[0][4] if rows else 1.0])
    header = ["find-issues", "average precision", "F1", "noise rate said", "processor seconds", "ratio"]
    text = f"{n:,} images, labels `{options.labels}`, {np.mean(given != true):.1%} of them wrong.\n\n"
    publish("rounds", text + markdown(header, rows))


def measured(build: Path, source: Path, output: Path, more: tuple[str, ...]) -> float:
    """Processor seconds of `find-issues` of that build, now or when it was measured."""
    kept = output.with_suffix(".json")
    if not kept.exists():
        command = [
            sys.executable,
            "-m",
            "cvcoteach",
            "find-issues",
            str(source),
            "--output",
            str(output),
            "--preset",
            "fast",
            *MACHINE,
            *more,
        ]
        environment = os.environ | {
            "PYTHONPATH": str(build),
            "CVCOTEACH_CACHE_DIR": str(output.with_name(f"{output.name}-cache")),
            "OMP_NUM_THREADS": "1",
        }
        process = subprocess.Popen(command, cwd=build, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"failed: {' '.join(command)}")
        kept.write_text(json.dumps(round(usage.ru_utime + usage.ru_stime, 1)))
    return float(json.loads(kept.read_text()))


if __name__ == "__main__":
    main()
