"""How time and memory of a whole run grow with images and classes: heads on features, three rounds.

    python examples/benchmarks/scale.py            # 10,000 to 1,000,000 images, 10 to 1,000 classes, few of a class
    python examples/benchmarks/scale.py --largest  # 1,000,000 images of 1,000 classes, 20,000 classes of two

The plot takes cvcoteach[plots]. Features (n, 256) float16 in a file are drawn around a center for each class; a tenth
of the labels are wrong. Each size has a process of its own, in one thread; seconds are those of a processor, so that
other work on the machine does not count, and memory is the peak over what the imports take, without pages of files.
The exponent is the slope between the smallest and the largest size on logarithmic axes: 1 is proportional.
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
from typing import NamedTuple

import numpy as np
from posterior_speed import Peak, processor_seconds, status
from tables import markdown, publish


class Size(NamedTuple):
    """A set of images."""

    n: int
    k: int
    d: int = 256
    """Numbers that describe an image."""
    imbalance: int = 1
    """How many times as many images the largest class has as the smallest; sizes between fall geometrically."""

    def __str__(self) -> str:
        more = "" if self.d == 256 else f", {self.d} numbers an image"
        return f"{self.n:,}{more}" if self.imbalance == 1 else f"{self.n:,}, classes from 1 to {self.imbalance:,}"


BY_IMAGES = (Size(10_000, 10), Size(100_000, 10), Size(1_000_000, 10))
BY_CLASSES = (Size(20_000, 10), Size(20_000, 100), Size(20_000, 1_000))
ODD = (Size(100_000, 10, imbalance=1_000),)
LARGEST = (Size(40_000, 20_000, d=32), Size(1_000_000, 1_000))
CHUNK = 20_000
HEADER = ["images", "classes", "processor seconds", "µs per image", "peak, MB", "F1"]


def main() -> None:
    """Measure each size, and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", metavar="FOLDER", type=Path, help="(used by the script itself)")
    parser.add_argument("--largest", action="store_true", help="the largest sizes, and nothing else")
    args = parser.parse_args()
    if args.one:
        measure(args.one)
        return
    if args.largest:
        publish("scale-largest", markdown(HEADER, [row(size, one(size)) for size in LARGEST]))
        return
    found = {size: one(size) for size in (*BY_CLASSES, *ODD, *BY_IMAGES)}
    by_images = exponent([size.n for size in BY_IMAGES], [found[size] for size in BY_IMAGES])
    by_classes = exponent([size.k for size in BY_CLASSES], [found[size] for size in BY_CLASSES])
    said = (
        f"Between the smallest and the largest size, time grows as images^{by_images:.2f} and classes^{by_classes:.2f}."
    )
    draw(found)
    rows = [row(size, found[size]) for size in (*BY_IMAGES, *BY_CLASSES, *ODD)]
    publish("scale", markdown(HEADER, rows) + f"\n\n{said}")


def row(size: Size, figures: dict[str, float]) -> list[object]:
    """A line of the table."""
    seconds = figures["seconds"]
    memory = round(figures["megabytes"])
    return [str(size), f"{size.k:,}", f"{seconds:.1f}", round(seconds / size.n * 1e6), memory, figures["f1"]]


def exponent(sizes: Sequence[int], found: Sequence[dict[str, float]]) -> float:
    """The slope of time over size on logarithmic axes."""
    return math.log(found[-1]["seconds"] / found[0]["seconds"]) / math.log(sizes[-1] / sizes[0])


def one(size: Size) -> dict[str, float]:
    """Measure a size in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), size)
        command = [sys.executable, __file__, "--one", folder]
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    print(f"{size} × {size.k:,}: {found}", flush=True)
    return found


def make(folder: Path, size: Size) -> None:
    """features.npy (n, d) float16, given.npy and true.npy (n,)."""
    n, k, d, imbalance = size
    rng = np.random.default_rng(0)
    share = imbalance ** -np.linspace(0, 1, k)
    true = np.searchsorted(np.cumsum(share / share.sum()), (np.arange(n) + 0.5) / n)
    true = rng.permutation(true.clip(max=k - 1)) if imbalance > 1 else np.arange(n) % k
    # as far apart in few dimensions as in many
    centers = rng.standard_normal((k, d), dtype=np.float32) * np.float32(0.3 * math.sqrt(256 / d))
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, (n, d))
    for start in range(0, n, CHUNK):
        some = true[start : start + CHUNK]
        features[start : start + CHUNK] = centers[some] + rng.standard_normal((len(some), d), dtype=np.float32)
    features.flush()
    np.save(folder / "given.npy", np.where(rng.random(n) < 0.1, (true + rng.integers(1, k, n)) % k, true))
    np.save(folder / "true.npy", true)


def measure(folder: Path) -> None:
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


def draw(found: dict[Size, dict[str, float]]) -> None:
    """Time over images and over classes, with the lines of proportion, into scale.svg."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    for axes, sizes, name in zip(panels, (BY_IMAGES, BY_CLASSES), ("n", "k"), strict=True):
        x, seconds = [getattr(size, name) for size in sizes], [found[size]["seconds"] for size in sizes]
        axes.loglog(x, seconds, "D-", color="#2060c0", label="measured")
        axes.loglog(x, [seconds[0] * each / x[0] for each in x], "--", color="#999999", label="proportional")
        axes.set(xlabel="images" if name == "n" else "classes", ylabel="processor seconds")
        axes.legend(fontsize="small", frameon=False)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
