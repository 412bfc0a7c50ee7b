"""Peak memory of `find-issues --features` on a million rows, float16 on disk.

    python examples/benchmarks/features_memory.py                   # 1,000,000 x 768: about half an hour on one core
    python examples/benchmarks/features_memory.py --rows 100000

The features are drawn around a centre for each class; a tenth of the labels are wrong. Every row's image
is a link to one. The command runs in a process of its own, whose peak resident memory the operating system tells. Pages
of the file that the system keeps in its own cache and hands back when asked count as well: they are shown apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tables import markdown, publish

K = 10
GIB = 1 << 30
CHUNK = 20_000


def main() -> None:
    """Make the data, run the command, publish its peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=768)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = make(folder, args.rows, args.columns)
        began = time.perf_counter()
        peak, own = run(folder, args.threads)
        seconds = time.perf_counter() - began
        summary = json.loads((folder / "out.json").read_text())
    found = f"{summary['n_issues']:,} issues for {truth:,} wrong labels"
    rows = [[f"{args.rows:,} × {args.columns}", found, f"{peak / GIB:.2f}", f"{own / GIB:.2f}", f"{seconds:.0f}"]]
    header = ["features, float16", "found", "peak, GiB", "of it not the file's pages", "seconds"]
    publish("features-memory", f"{args.threads} threads.\n\n" + markdown(header, rows))


def make(folder: Path, n: int, d: int) -> int:
    """features.npy (n, d) and labels.csv in the folder; how many labels are wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(K, size=n)
    labels = np.where(rng.random(n) < 0.1, rng.integers(K, size=n), true)
    centres = 0.12 * rng.standard_normal((K, d), dtype=np.float32)
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, (n, d))
    for start in range(0, n, CHUNK):
        rows = slice(start, min(start + CHUNK, n))
        features[rows] = centres[true[rows]] + rng.standard_normal((rows.stop - start, d), dtype=np.float32)
    features.flush()
    with open(folder / "labels.csv", "w") as file:
        file.write("path,label\n")
        file.writelines(f"images/{i}.png,class-{label}\n" for i, label in enumerate(labels.tolist()))
    Image.new("RGB", (8, 8)).save(folder / "image.png")
    (folder / "images").mkdir()
    for i in range(n):
        (folder / f"images/{i}.png").symlink_to("../image.png")
    return int((labels != true).sum())


def run(folder: Path, threads: int) -> tuple[int, int]:
    """Peak resident memory of the command, and of the part of it that is no file's, in bytes."""
    command = [
        sys.executable, "-m", "cvcoteach", "find-issues", str(folder / "labels.csv"),
        "--features", str(folder / "features.npy"), "-o", str(folder / "out"),
        "--threads", str(threads), "--json", "-q",
    ]  # fmt: skip
    with open(folder / "out.json", "w") as out:
        process = subprocess.Popen(command, stdout=out)
    peaks = [0, 0]

    def watch() -> None:
        while process.poll() is None:
            memory = status(process.pid)
            peaks[0] = max(peaks[0], memory.get("VmHWM", 0))
            peaks[1] = max(peaks[1], memory.get("RssAnon", 0))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if process.wait():
        raise SystemExit("find-issues failed.")
    watcher.join()
    return peaks[0], peaks[1]


def status(pid: int) -> dict[str, int]:
    """The memory lines of /proc/PID/status, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith("kB"))
    return {key: 1024 * int(value.split()[0]) for key, value in pairs}


if __name__ == "__main__":
    main()
