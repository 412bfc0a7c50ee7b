"""FiftyOne at 100,000 samples: seconds and memory of every step of a run's life.

    python examples/benchmarks/fiftyone_scale.py [N ...]    # about four minutes

Needs `pip install "cvcoteach[fiftyone]"` and FiftyOne's database. Each size has a process and a dataset of its own,
which is deleted at the end; all samples show one image of a few bytes.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fiftyone as fo
import numpy as np
from fiftyone.operators.executor import ExecutionContext, Executor
from PIL import Image
from tables import markdown, publish

from cvcoteach.fiftyone.app.operators import FindLabelIssuesOperator
from cvcoteach.fiftyone.app.panel import LabelIssuesPanel
from cvcoteach.fiftyone.app.reviewing import AcceptSuggestions
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.labelled import read_labels
from cvcoteach.fiftyone.work import browse, corrections
from cvcoteach.fiftyone.work.export import export_corrected
from cvcoteach.fiftyone.work.imports import import_label_issues
from cvcoteach.issues.from_posterior import posterior_issues

SIZES = (25_000, 100_000)
K = 10
NAMES = tuple(f"class {k}" for k in range(K))

Figures = dict[str, tuple[float, float]]
"""What was done -> seconds, and the most memory it took on top of what there was before, in MB."""


class Meter:
    """Collects the figures."""

    def __init__(self) -> None:
        self.figures: Figures = {}

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Measure what is done inside."""
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        before, began = _memory("VmRSS"), time.perf_counter()
        yield
        self.figures[what] = time.perf_counter() - began, _memory("VmHWM") - before
        print(f"{what:<52} {self.figures[what][0]:7.2f} s {self.figures[what][1]:7.0f} MB", flush=True)


def main(sizes: list[int]) -> None:
    """Measure each size, publish the table."""
    print("(seconds, and peak memory on top of what there was before)")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        measured = pool.map(measure, sizes, chunksize=1)
    header = ["", *(f"{n:,}: seconds" for n in sizes), *(f"{n:,}: MB" for n in sizes)]
    rows = [
        [
            what,
            *(f"{found[what][0]:.2f}" for found in measured),
            *(f"{max(found[what][1], 0):.0f}" for found in measured),
        ]
        for what in measured[0]
    ]
    publish("fiftyone-scale", markdown(header, rows))


def measure(n: int) -> Figures:
    """Everything once, on n samples of which about a tenth are labelled wrong."""
    print(f"{n:,} samples", flush=True)
    meter = Meter()
    given, probs = _noisy(n)
    with tempfile.TemporaryDirectory() as folder:
        dataset = _dataset(given, Path(folder))
        try:
            _life_of_a_run(meter, dataset, given, probs, Path(folder))
        finally:
            dataset.delete()
    return meter.figures


def _life_of_a_run(meter: Meter, dataset: fo.Dataset, given: np.ndarray, probs: np.ndarray, folder: Path) -> None:
    with meter("the form of find_label_issues"):
        FindLabelIssuesOperator().resolve_input(_context(dataset))
    with meter("reading ids, files and labels"):
        read_labels(dataset, "ground_truth")
    issues = posterior_issues(given, probs, class_names=NAMES)
    with meter("saving the run and its five fields"):
        import_label_issues(dataset, "ground_truth", issues)
    dataset._brain_cache.clear()
    with meter("loading the run"):
        results = runs.load(dataset)
    panel = LabelIssuesPanel()
    with meter("the panel, opened first"):
        panel.render(_context(dataset)).to_json()
    with meter("the panel, opened again"):
        panel.render(_context(dataset)).to_json()
    with meter("the samples of a cell of the matrix"):
        browse.cell(results, NAMES[0], NAMES[1]).count()
    with meter("the form of accept_suggestions"):
        AcceptSuggestions().resolve_input(_context(dataset))
    flagged = browse.unreviewed_flagged_ids(dataset, results)
    with meter("accepting all flagged"):
        corrections.accept_suggestions(dataset, flagged)
    with meter("the panel, all flagged reviewed"):
        panel.render(_context(dataset)).to_json()
    with meter("one key: keep, and find the next"):
        corrections.keep_labels(dataset, [results.ids[0].decode()])
        browse.following(results, browse.reviews(dataset, results), results.ids[0].decode())
    with meter("undoing one key"):
        corrections.undo_corrections(dataset)
    with meter("undoing all accepted"):
        corrections.undo_corrections(dataset)
    with meter("keeping every sample"):
        corrections.keep_labels(dataset, dataset.values("id"))
    with meter("the panel, every sample reviewed"):
        panel.render(_context(dataset)).to_json()
    with meter("labels and the record of corrections as CSV"):
        export_corrected(dataset, "csv", str(folder / "corrected.csv"))
    with meter("renaming the run"):
        dataset.rename_brain_run("label_issues", "renamed")
    with meter("deleting the run and its fields"):
        dataset.delete_brain_run("renamed")


def _noisy(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels (n,), a tenth of them drawn again, and probabilities (n, K) that know better."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, K, n)
    given = np.where(rng.random(n) < 0.1, rng.integers(0, K, n), true)
    probs = rng.dirichlet(np.full(K, 0.2), n).astype(np.float32)
    probs[np.arange(n), true] += 2
    return given, probs / probs.sum(axis=1, keepdims=True)


def _dataset(given: np.ndarray, folder: Path) -> fo.Dataset:
    file = folder / "image.png"
    Image.new("L", (8, 8)).save(file)
    dataset = fo.Dataset()
    samples = (fo.Sample(filepath=str(file), ground_truth=fo.Classification(label=NAMES[k])) for k in given)
    dataset.add_samples(samples, progress=False, num_samples=len(given))
    return dataset


def _context(dataset: fo.Dataset) -> ExecutionContext:
    return ExecutionContext({"dataset_name": dataset.name, "params": {"panel_id": "p"}}, executor=Executor())


def _memory(what: str) -> float:
    """Of this process, in MB: VmRSS now, VmHWM at most."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) / 1024


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]] or list(SIZES))
