"""Handwritten digits with planted label errors: what `cvcoteach find-issues` finds of them. No network needed.

Run by `make demo`, or by hand: python examples/demo.py [FOLDER]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

from cvcoteach.noise_model import simulate as noise

WRONG = 0.1


def plant(folder: Path) -> set[str]:
    """Write the digits as a folder of class folders, one in ten under a wrong name; which ones."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    given = noise.flip_labels(digits.target, noise.transition("symmetric", WRONG, 10), rng)
    planted = set()
    for number, (image, label, true) in enumerate(zip(digits.images, given, digits.target, strict=True)):
        path = f"{label}/{number:04d}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * (255 / 16)).astype(np.uint8)).save(folder / path)
        if label != true:
            planted.add(path)
    return planted


def main() -> None:
    """Plant, find, compare."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    digits, run = folder / "digits", folder / "digits-issues"
    shutil.rmtree(digits, ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)
    planted = plant(digits)
    command = ["cvcoteach", "find-issues", str(digits), "--output", str(run)]
    print(f"{sum(1 for _ in digits.rglob('*.png')):,} images of handwritten digits, {len(planted)} under a wrong name.")
    print(f"\n$ {' '.join(command)}", flush=True)
    status = subprocess.run([sys.executable, "-m", *command], check=False).returncode
    if status:
        raise SystemExit(status)

    issues = pd.read_csv(run / "issues.csv")
    flagged = set(issues.path[issues.is_label_issue])
    worst = issues.path.head(len(planted))
    print(f"\nPlanted {len(planted)}, flagged {len(flagged)}, of which planted {len(flagged & planted)}:")
    print(f"  {len(flagged & planted) / len(planted):.0%} of the planted errors were found,")
    print(f"  {len(flagged & planted) / len(flagged):.0%} of what was flagged is a planted error,")
    print(f"  {len(planted & set(worst)) / len(planted):.0%} of the {len(planted)} most doubtful are planted errors.")
    print("\nThe most doubtful:")
    print(issues.head(5)[["path", "given_label", "suggested_label", "label_quality"]].to_string(index=False))
    print(f"\nLook at them: {run / 'issues.html'}")
    print("Next, your own images, a folder of class folders or a CSV:\n  .venv/bin/cvcoteach find-issues YOUR_IMAGES")


if __name__ == "__main__":
    main()
