"""Time and extra memory of the posterior and of cleanlab's `find_label_issues`, on the same large arrays.

    python examples/benchmarks/posterior_speed.py              # five to ten minutes; 5 GB of disk, 14 GB of memory
    python examples/benchmarks/posterior_speed.py --memory-map # a million images of 1,000 classes from a file of 4 GB

Probabilities: softmax of class embeddings, calibrated and float32; every tenth label is wrong, half of these by one
confusion a class. Each measurement has its own process; both libraries are imported and warm. Seconds are those of a
processor, all processes together, so that other work on the machine does not count. Extra memory is the peak of
resident memory during the call over that before it (of a memory map: without pages of its file); of cleanlab's worker
processes it counts none.
`filter_by='posterior'` keeps one image of each class unflagged, cleanlab's `min_examples_per_class`: where a class has
five images, that shows in F1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tables import markdown, publish

SIZES = ((1_000_000, 10), (100_000, 1_000), (50_000, 10_000))
TARGETS = ((2.0, 0.4), (1.0, 0.4), (0.1, 0.05))
"""Of each size: time over cleanlab's, extra memory over that of the probabilities, at most."""
LARGE = (1_000_000, 1_000)
TOOLS = ("cleanlab", "fit_posterior", "filter_by='posterior'", "label_issues")
ROWS = 2_000


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("TOOL", "FOLDER"), help="(used by the script itself)")
    parser.add_argument("--memory-map", action="store_true", help="probabilities that are read from their file")
    parser.add_argument("--sizes", type=int, nargs="*", default=range(len(SIZES)), help="numbers of SIZES")
    args = parser.parse_args()
    if args.one:
        measure(args.one[0], Path(args.one[1]), args.memory_map)
    elif args.memory_map:
        from_file()
    else:
        compare([SIZES[i] for i in args.sizes])


def from_file() -> None:
    """Measure the posterior of probabilities that lie in a file, and publish."""
    n, k = LARGE
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), n, k)
        rows = []
        for tool in TOOLS[2:]:
            found = one(tool, folder, "--memory-map")
            rows.append([tool, found["seconds"], round(found["megabytes"]), found["f1"]])
            print(*rows[-1], flush=True)
    publish("posterior-memory-map", markdown(["", "seconds", "extra MB", "F1"], rows))


def one(tool: str, folder: str, *options: str) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--one", tool, folder, *options]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


def compare(sizes: Sequence[tuple[int, int]]) -> None:
    """Measure every tool at every size, each alone, and publish if these are all sizes."""
    rows = []
    for n, k in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_data(Path(folder), n, k)
            for tool in TOOLS:
                found = one(tool, folder)
                if tool == TOOLS[0]:
                    reference = found["seconds"]
                share = found["megabytes"] / (4e-6 * n * k)
                figures = (
                    found["seconds"],
                    found["seconds"] / reference,
                    round(found["megabytes"]),
                    share,
                    found["f1"],
                    "" if tool == TOOLS[0] else "{:.2f}, {:.2f}".format(*TARGETS[SIZES.index((n, k))]),
                )
                rows.append([f"{n:,} × {k:,}", tool, *figures])
                print(*rows[-1], flush=True)
    header = ["images × classes", "", "seconds", "× cleanlab's", "extra MB", "of the probabilities", "F1", "at most"]
    if len(sizes) == len(SIZES):
        publish("posterior-speed", markdown(header, rows))


def write_data(folder: Path, n: int, k: int) -> None:
    """probs.npy (n, K) float32, given.npy and true.npy (n,)."""
    rng = np.random.default_rng(0)
    place = rng.standard_normal((k, 8), dtype=np.float32)
    true = np.empty(n, np.int64)
    probs = np.lib.format.open_memmap(folder / "probs.npy", "w+", np.float32, (n, k))
    for start in range(0, n, ROWS):
        near = rng.integers(k, size=min(ROWS, n - start))
        logits = (place[near] + 0.7 * rng.standard_normal((len(near), 8), dtype=np.float32)) @ place.T * np.float32(1.2)
        logits += rng.standard_normal(logits.shape, dtype=np.float32)
        logits[np.arange(len(near)), near] += rng.normal(4, 3, len(near)).astype(np.float32)
        logits -= logits.max(axis=1, keepdims=True)
        chunk = np.exp(logits, out=logits)
        chunk /= chunk.sum(axis=1, keepdims=True)
        probs[start : start + ROWS] = chunk
        true[start : start + ROWS] = (rng.random(len(near))[:, None] > chunk.cumsum(axis=1)).sum(axis=1).clip(max=k - 1)
    probs.flush()
    other = np.where(rng.random(n) < 0.5, (true + 1) % k, rng.integers(k, size=n))
    np.save(folder / "given.npy", np.where(rng.random(n) < 0.1, other, true))
    np.save(folder / "true.npy", true)


def measure(tool: str, folder: Path, mapped: bool) -> None:
    """Print seconds of a processor, extra megabytes and F1 of one call as JSON."""
    from cleanlab.filter import find_label_issues
    from sklearn.metrics import f1_score

    import cvcoteach
    from cvcoteach.noise_model.posterior import fit_posterior

    def flags(given: npt.NDArray[np.int64], probs: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        if tool == "cleanlab":
            return find_label_issues(given, probs)
        if tool == "fit_posterior":
            return fit_posterior(given, probs).wrong > 0.5
        if tool == "label_issues":
            return cvcoteach.label_issues(given, probs).is_label_issue
        return cvcoteach.find_label_issues(given, probs, filter_by="posterior")

    for k in (10, 40):
        some = np.random.default_rng(0).dirichlet(np.ones(k), 1000).astype(np.float32)
        flags(some.argmax(axis=1), some)  # labels that they know something about, so that all is loaded
    given, probs = np.load(folder / "given.npy"), np.load(folder / "probs.npy", mmap_mode="r" if mapped else None)
    watch = Peak()
    before, resident = status("RssAnon"), status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = processor_seconds()
    with watch:
        flagged = flags(given, probs)
    seconds = processor_seconds() - start
    megabytes = (watch.peak - before if mapped else status("VmHWM") - resident) / 1e3
    f1 = float(f1_score(given != np.load(folder / "true.npy"), flagged))
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "f1": f1}))


def processor_seconds() -> float:
    """Return what this process and those that it has waited for took of a processor."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Peak(threading.Thread):
    """Looks at the memory of this process, without pages of files, every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.done = 0, threading.Event()

    def run(self) -> None:
        """Look until told to end."""
        while not self.done.wait(0.005):
            self.peak = max(self.peak, status("RssAnon"))

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()


def status(what: str) -> int:
    """Kilobytes of this process."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(what))


if __name__ == "__main__":
    main()
