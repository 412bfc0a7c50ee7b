"""How time and memory of a whole run grow with images and classes: heads on features, three rounds.

    python examples/benchmarks/scale.py                      # up to 100,000 images and 1,000 classes: half an hour
    python examples/benchmarks/scale.py --images 1000000     # one more size
    python examples/benchmarks/scale.py --plot scale.svg     # the same, drawn too (takes cvcoteach[plots])

Features (n, 256) float16 in a file are drawn around a center for each class; a tenth of the labels are wrong. Each size
has a process of its own, in one thread; seconds are those of a processor, so that other work on the machine does not
count, and memory is the peak over what the imports take, without pages of the file. The exponent is the slope between
the smallest and the largest size on logarithmic axes: 1 is proportional.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from posterior_speed import Peak, processor_seconds, status
from tables import markdown, publish

D = 256
BY_IMAGES = ((10_000, 10), (30_000, 10), (100_000, 10))
BY_CLASSES = ((20_000, 10), (20_000, 100), (20_000, 1_000))
CHUNK = 20_000


def main() -> None:
    """Measure each size, and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3, metavar=("N", "K", "FOLDER"), help="(used by the script itself)")
    parser.add_argument("--images", type=int, nargs="*", default=[], help="more sizes with 10 classes")
    parser.add_argument("--plot", type=Path, help="draw time over size into this file")
    args = parser.parse_args()
    if args.one:
        measure(int(args.one[0]), int(args.one[1]), Path(args.one[2]))
        return
    groups = ((*BY_IMAGES, *((n, 10) for n in args.images)), BY_CLASSES)
    found = [[one(n, k) for n, k in sizes] for sizes in groups]
    rows = [
        row(*size, figures)
        for sizes, part in zip(groups, found, strict=True)
        for size, figures in zip(sizes, part, strict=True)
    ]
    exponents = [
        exponent([size[i] for size in sizes], part) for i, (sizes, part) in enumerate(zip(groups, found, strict=True))
    ]
    header = ["images", "classes", "processor seconds", "µs per image", "peak, MB", "F1"]
    by_images, by_classes = exponents
    said = (
        f"Between the smallest and the largest size, time grows as images^{by_images:.2f} and classes^{by_classes:.2f}."
    )
    if args.plot is not None:
        draw(groups[0], found[0], args.plot)
    publish("scale", markdown(header, rows) + f"\n\n{said}")


def row(n: int, k: int, figures: dict[str, float]) -> list[object]:
    """A line of the table."""
    seconds = figures["seconds"]
    return [f"{n:,}", f"{k:,}", f"{seconds:.1f}", round(seconds / n * 1e6), round(figures["megabytes"]), figures["f1"]]


def exponent(sizes: Sequence[int], found: Sequence[dict[str, float]]) -> float:
    """The slope of time over size on logarithmic axes."""
    return math.log(found[-1]["seconds"] / found[0]["seconds"]) / math.log(sizes[-1] / sizes[0])


def one(n: int, k: int) -> dict[str, float]:
    """Measure a size in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), n, k)
        command = [sys.executable, __file__, "--one", str(n), str(k), folder]
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    print(f"{n:,} × {k:,}: {found}", flush=True)
    return found


def make(folder: Path, n: int, k: int) -> None:
    """features.npy (n, D) float16, given.npy and true.npy (n,)."""
    rng = np.random.default_rng(0)
    true = np.arange(n) % k
    centers = rng.standard_normal((k, D), dtype=np.float32) * 0.3
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, (n, D))
    for start in range(0, n, CHUNK):
        some = true[start : start + CHUNK]
        features[start : start + CHUNK] = centers[some] + rng.standard_normal((len(some), D), dtype=np.float32)
    features.flush()
    np.save(folder / "given.npy", np.where(rng.random(n) < 0.1, (true + rng.integers(1, k, n)) % k, true))
    np.save(folder / "true.npy", true)


def measure(n: int, k: int, folder: Path) -> None:
    """Print seconds of a processor, megabytes and F1 of one run as JSON."""
    from sklearn.metrics import f1_score

    import cvcoteach

    small = np.random.default_rng(0).standard_normal((200, 8))
    cvcoteach.label_issues(np.arange(200) % 2, features=small, progress=False)  # everything is imported
    given, true = np.load(folder / "given.npy"), np.load(folder / "true.npy")
    features = np.load(folder / "features.npy", mmap_mode="r")
    watch, before, start = Peak(), status("RssAnon"), processor_seconds()
    with watch:
        issues = cvcoteach.label_issues(given, features=features, progress=False)
    seconds, megabytes = processor_seconds() - start, (watch.peak - before) / 1e3
    f1 = float(f1_score(given != true, issues.is_label_issue))
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "f1": f1}))


def draw(sizes: Sequence[tuple[int, int]], found: Sequence[dict[str, float]], file: Path) -> None:
    """Time over the number of images, with the line of proportion."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    n, seconds = [size[0] for size in sizes], [each["seconds"] for each in found]
    axes.loglog(n, seconds, "o-", label="measured")
    axes.loglog(n, [seconds[0] * each / n[0] for each in n], "--", color="gray", label="proportional")
    axes.set(xlabel="images", ylabel="processor seconds")
    axes.legend()
    figure.savefig(file)


if __name__ == "__main__":
    main()
