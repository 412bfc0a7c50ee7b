"""The default of `cvcoteach find-issues`, preset `auto`, beside `fast`, on 5,000 photographs on a CPU.

    python examples/benchmarks/automatic.py [--labels random1]    # about forty minutes on two cores

The first 5,000 CIFAR-10N images, enlarged to 224 pixels and saved as JPEGs, with the labels of one annotator each:
blurred photographs, which cost as much as sharp ones. Each run is a process of its own, with an empty cache, on all
cores; nothing is fetched, so that `auto` takes the network of `cvcoteach[backbone]`. What is measured is kept in
build/benchmarks/automatic-LABELS.json and not measured again; delete it to start anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from data import BUILD, load_cifar10n
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score
from tables import markdown, publish

N_IMAGES, SIDE = 5_000, 224
RUNS = {"auto": [], "auto, features only": ["--features-only"], "fast": ["--preset", "fast"]}


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", default="random1")
    labels = parser.parse_args().labels
    folder, kept = BUILD / "photographs", BUILD / f"automatic-{labels}.json"
    true = written(folder, labels)
    measured = json.loads(kept.read_text()) if kept.exists() else {}
    for name, options in RUNS.items():
        if name in measured:
            continue
        began, spent = time.perf_counter(), _processor_seconds()
        table, chose = found(folder, labels, options)
        seconds, spent = time.perf_counter() - began, _processor_seconds() - spent
        wrong = table.given_label != true.loc[table.path].to_numpy()
        figures = [
            float(average_precision_score(wrong, 1 - table.label_quality)),
            float(f1_score(wrong, table.is_label_issue)),
        ]
        measured[name] = [chose, *figures, f"{seconds:.0f}", f"{spent:.0f}"]
        kept.write_text(json.dumps(measured))
        rows = [[name, *row] for name, row in measured.items()]
        publish("automatic", markdown(["preset", "what ran", "AP", "F1", "seconds", "processor seconds"], rows))


def written(folder: Path, labels: str) -> pd.Series:
    """Write the images and a CSV of their labels, where they are not there yet; return the true class by path."""
    data = load_cifar10n()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [f"{number:05d}.jpg" for number in range(N_IMAGES)]
    for path, image in zip(paths, data.images[:N_IMAGES], strict=True):
        if not (folder / path).exists():
            large = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            large.save(folder / path, quality=90)
    names = pd.Index(data.class_names)
    table = pd.DataFrame({"path": paths, "label": names[data.given[labels][:N_IMAGES]]})
    table.to_csv(folder / f"{labels}.csv", index=False)
    return pd.Series(names[data.true_labels[:N_IMAGES]], paths)


def found(folder: Path, labels: str, options: list[str]) -> tuple[pd.DataFrame, str]:
    """The table of a run from its beginning, and what it trained."""
    output, cache = BUILD / "photographs-run", BUILD / "photographs-cache"
    shutil.rmtree(output, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "cvcoteach", "find-issues", str(folder / f"{labels}.csv"), "-o", str(output)]
    own = {"CVCOTEACH_CACHE_DIR": str(cache), "CVCOTEACH_OFFLINE": "1"}
    subprocess.run([*command, "--device", "cpu", *options], check=True, env=os.environ | own)
    record = json.loads((output / "run.json").read_text())
    identity = record["identity"]
    views = [f"features at {identity['image_size']} pixels"] if "backbone" in identity else []
    views += ["networks from scratch"] if not views or "second_plan" in record else []
    return pd.read_csv(output / "issues.csv"), ", ".join(views)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
