"""FiftyOne at 100,000 samples: seconds and memory of reading, writing, browsing, correcting and deleting a run.

Needs `pip install "cvcoteach[fiftyone]"` and FiftyOne's database. Makes a dataset of its own and deletes it.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import fiftyone as fo
import numpy as np
from fiftyone.operators.executor import ExecutionContext, Executor

from cvcoteach.fiftyone import browse, corrections, runs
from cvcoteach.fiftyone.imports import import_label_issues
from cvcoteach.fiftyone.labelled import read_labels
from cvcoteach.fiftyone.panel import LabelIssuesPanel
from cvcoteach.issues import posterior_issues

K = 10


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long it took, and the most memory this process has had so far."""
    began = time.perf_counter()
    yield
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<46} {time.perf_counter() - began:7.2f} s   {megabytes:6,.0f} MB", flush=True)


def main(n: int) -> None:
    """n: samples."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, K, n)
    given = np.where(rng.random(n) < 0.1, rng.integers(0, K, n), true)
    probs = rng.dirichlet(np.full(K, 0.2), n).astype(np.float32)
    probs[np.arange(n), true] += 2
    probs /= probs.sum(axis=1, keepdims=True)
    names = tuple(f"class {k}" for k in range(K))
    print(f"{n:,} samples, {K} classes")
    with timed("(the dataset itself, by FiftyOne)"):
        dataset = fo.Dataset()
        labels = [fo.Classification(label=names[k]) for k in given]
        dataset.add_samples(
            (fo.Sample(filepath=f"/nowhere/{i:07d}.png", ground_truth=label) for i, label in enumerate(labels)),
            progress=False,
        )
    try:
        with timed("reading ids, files and labels"):
            read_labels(dataset, "ground_truth", need_files=False)
        with timed("(the posterior)"):
            issues = posterior_issues(given, probs, class_names=names)
        with timed("saving the run and its five fields"):
            import_label_issues(dataset, "ground_truth", issues)
        dataset._brain_cache.clear()
        with timed("loading the run"):
            results = runs.load(dataset)
        ctx = _context(dataset)
        panel = LabelIssuesPanel()
        with timed("the panel, opened first"):
            panel.render(ctx).to_json()
        with timed("the panel, opened again"):
            panel.render(ctx).to_json()
        with timed("the view of a matrix cell"):
            shown = browse.cell(results, names[0], names[1])
            shown.count()
        flagged = browse.unreviewed_flagged_ids(dataset, results)
        with timed(f"accepting {len(flagged):,} suggestions"):
            corrections.accept_suggestions(dataset, flagged)
        with timed("the panel, all of them reviewed"):
            panel.render(ctx).to_json()
        with timed("one key: accept and find the next"):
            corrections.keep_labels(dataset, [results.ids[0].decode()])
            browse.following(results, browse.reviews(dataset, results), results.ids[0].decode())
        corrections.undo_corrections(dataset)
        with timed(f"undoing {len(flagged):,}"):
            corrections.undo_corrections(dataset)
        with timed("the record as a table"):
            corrections.history(dataset)
        with timed("renaming the run"):
            dataset.rename_brain_run("label_issues", "renamed")
        with timed("deleting the run and its fields"):
            dataset.delete_brain_run("renamed")
    finally:
        dataset.delete()


def _context(dataset: fo.Dataset) -> ExecutionContext:
    return ExecutionContext({"dataset_name": dataset.name, "params": {"panel_id": "p"}}, executor=Executor())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
