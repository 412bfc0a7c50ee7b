"""Test accuracy of retraining beside what one would try instead, on noisy labels that people and chance made.

    python examples/benchmarks/retraining.py                  # on frozen features, three seeds
    python examples/benchmarks/retraining.py --images 5000    # on the first 5,000 images only; what the README shows
    python examples/benchmarks/retraining.py --scratch --images 4000    # the small network from scratch, one seed

Ours is the mode "posterior", which from scratch is not the default.
All rows are the same network and shown the same number of images; rows of two networks average their probabilities
and cost twice as much. Choices were made on random2, symmetric 0.4 and asymmetric 0.3 with other seeds
(--labels, --seeds), none of which is in the table.
Every figure measured is kept in build/benchmarks/retraining.jsonl, and not measured again; delete it to start anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import data
import numpy as np
import numpy.typing as npt
import torch
from coteaching import FOLDS, HEADS, SCRATCH, SCRATCH_EPOCHS, Bench, K, cell, given_labels, key_of
from tables import markdown, publish
from torch import Tensor
from torch.nn import functional

from cvcoteach.coteaching.calibration import calibrate, calibration_rows, expected_calibration_error
from cvcoteach.coteaching.curriculum import vanilla_curriculum
from cvcoteach.coteaching.model_files import tempered
from cvcoteach.coteaching.presets import SOFT_HEAD_RECIPE
from cvcoteach.coteaching.selection import Selection, selection_after, softened
from cvcoteach.coteaching.training import CoTeachingTask
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.noise_model.posterior import label_posterior
from cvcoteach.pipeline.run_folder import FoldFiles
from cvcoteach.training.checkpoints import run_to_end
from cvcoteach.training.devices import set_threads
from cvcoteach.training.loop import Batch, Losses, Training, cross_entropy, predict

LABELS = ("random1", "worse", "symmetric 0.5", "asymmetric 0.4")
PLAIN, EARLY, SMOOTH, GCE, ELR, LEFT_OUT, RELABELLED, TWO, HIDING, VANILLA, PAPER, INCV, OURS, TRUE = ROWS = (
    "plain",
    "plain, a quarter of the epochs",
    "label smoothing .2",
    "generalised cross-entropy .7",
    "early-learning regularisation",
    "flagged left out, plain",
    "flagged relabelled, plain",
    "flagged left out, two plain networks",
    "the same, features hidden as in ours",
    "Co-teaching, vanilla: two networks",
    "Co-teaching, paper: two networks",
    'Co-teaching, mode "incv": two networks',
    "ours: two networks",
    "plain, true labels",
)
SCRATCH_ROWS = (PLAIN, LEFT_OUT, TWO, INCV, OURS, TRUE)
RESULTS = data.BUILD / "retraining.jsonl"
HOW = {"scratch": key_of(SCRATCH, FOLDS), "features": key_of(HEADS, SOFT_HEAD_RECIPE)}
Labels = npt.NDArray[np.int64]


# -- what one would try instead ----------------------------------------------------------------------------------


def label_smoothing(logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    """Cross-entropy, .2 of each label spread over all classes."""
    return [functional.cross_entropy(each, batch.targets, label_smoothing=0.2) for each in logits]


def generalised_cross_entropy(logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    """Zhang & Sabuncu, NeurIPS 2018, with q = .7."""
    return [
        ((1 - each.softmax(dim=1).gather(1, batch.targets[:, None]).clamp_min(1e-7) ** 0.7) / 0.7).mean()
        for each in logits
    ]


class EarlyLearning:
    """Liu et al., NeurIPS 2020: the loss of one network, held to what it said earlier (λ = 3, β = .7)."""

    def __init__(self, n: int) -> None:
        self._targets = torch.zeros(n, K)

    def __call__(self, logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        """Cross-entropy, and a reward for agreeing with the moving average of the network's own predictions."""
        probs = logits[0].softmax(dim=1).clamp(1e-4, 1 - 1e-4)
        said = probs.detach() / probs.detach().sum(dim=1, keepdim=True)
        rows = batch.rows.to(self._targets.device)
        self._targets[rows] = 0.7 * self._targets[rows] + 0.3 * said.to(self._targets)
        held = self._targets[rows].to(probs)
        loss = functional.cross_entropy(logits[0], batch.targets)
        return [loss + 3 * (1 - (held * probs).sum(dim=1)).log().mean()]


# -- the measurement ---------------------------------------------------------------------------------------------


class Retraining(Bench):
    """Every row's classifier, trained on one set of images and measured on the test images."""

    def __init__(self, scratch: bool, threads: int | None, n: int) -> None:
        super().__init__(scratch, threads, n)
        self.extra: dict[str, Any] = {}

    def networks(
        self, rows: Labels, labels: Labels, seed: int, *, n: int = 1, losses: Losses = cross_entropy, **changes: Any
    ) -> float:
        """Accuracy of n plain networks on these images; changes: of the recipe, which shows as many images as plain."""
        set_threads(self.plan.threads)
        recipe = replace(self.recipe, **{"epochs": max(1, round(self.recipe.epochs * self.n / len(rows))), **changes})
        source = self.inputs.batches(self.plan, rows)
        networks = [self.plan.placed(self.inputs.network(K, seed + 1000 * each)) for each in range(n)]
        run_to_end(Training(networks, source, rows, labels[rows], recipe, seed=seed, losses=losses))
        return self.accuracy(networks, source)

    def rows(self, name: str, seed: int) -> Iterator[tuple[str, Callable[[], float]]]:
        """Each row with what measures its test accuracy."""
        given = given_labels(name, seed, self.true, self.human, self.features)
        everything, epochs = np.arange(self.n), self.recipe.epochs
        yield TRUE, lambda: self.networks(everything, self.true, seed)
        yield PLAIN, lambda: self.networks(everything, given, seed)
        if not self.scratch:
            early = max(1, round(epochs / 4))
            yield EARLY, lambda: self.networks(everything, given, seed, epochs=early)
            yield SMOOTH, lambda: self.networks(everything, given, seed, losses=label_smoothing)
            yield GCE, lambda: self.networks(everything, given, seed, losses=generalised_cross_entropy)
            yield ELR, lambda: self.networks(everything, given, seed, losses=EarlyLearning(self.n))
        kind = "scratch" if self.scratch else "features"
        folds = FoldFiles(data.BUILD / f"retraining-{kind}-{self.n}-{name}-{seed}-{key_of(FOLDS)}")
        found = IterativeCV(seed=seed).run(self.trainer, given, n_classes=K, finished=folds)
        kept, flagged = np.flatnonzero(~found.flags), found.flags
        yield LEFT_OUT, lambda: self.networks(kept, given, seed)
        yield TWO, lambda: self.networks(kept, given, seed, n=2)
        incv = selection_after(found)
        ours = incv  # as `cvcoteach retrain` does where a run cannot tell which labels are wrong
        if incv.wrong is not None:
            held = np.zeros(self.n, np.bool_)
            held[calibration_rows(given, everything, seed)] = True  # to calibrate on
            ours = softened(incv, label_posterior(given, found.pred_probs))
            ours = replace(ours, selected=~held)
        yield OURS, lambda: self.ours(ours, seed)
        yield INCV, lambda: self.taught(incv, seed)
        if self.scratch:
            return
        yield HIDING, lambda: self.networks(kept, given, seed, n=2, hidden=SOFT_HEAD_RECIPE.hidden)
        relabelled = np.where(flagged, found.issues().suggested, given)
        yield RELABELLED, lambda: self.networks(everything, relabelled, seed)
        curriculum = vanilla_curriculum(self.n, incv.noise_rate, epochs)  # told the better estimate of the noise too
        vanilla = Selection.of_everything(given, incv.noise_rate)
        yield VANILLA, lambda: self.pair(vanilla, curriculum, epochs, seed)
        published = IterativeCV("agreement", seed=seed).run(self.trainer, given, n_classes=K)
        yield PAPER, lambda: self.taught(selection_after(published), seed)

    def ours(self, selection: Selection, seed: int) -> float:
        """Accuracy of what `cvcoteach retrain` trains by default; `extra` has what it says of itself, and the truth."""
        set_threads(self.plan.threads)
        hidden = 0.0 if self.scratch or selection.soft is None else SOFT_HEAD_RECIPE.hidden
        recipe = replace(self.recipe, hidden=hidden, epochs=selection.epochs(self.recipe.epochs * self.n))
        curriculum = selection.curriculum(K, recipe.epochs)
        training = CoTeachingTask(self.inputs, selection, K, recipe, curriculum, seed).start(self.plan)
        run_to_end(training)
        rows, probs = np.flatnonzero(~selection.selected), self.probs(training.networks, training.source)
        right = (probs.argmax(axis=1) == self.truth).astype(np.float64)
        if selection.soft is not None and len(rows):
            mirror = recipe.mirrors_predictions
            found = calibrate(predict(training.networks, training.source, rows, mirror=mirror), selection.soft[rows])
            tempered_probs = tempered(probs, found.temperature)
            self.extra = {
                "calibration": asdict(found),
                "ece": expected_calibration_error(tempered_probs, right),
                "ece_before": expected_calibration_error(probs, right),
            }
        return float(right.mean())


def measure(bench: Retraining, labels: Sequence[str], seeds: Sequence[int], wanted: Sequence[str]) -> None:
    """Append every result to RESULTS; those that are there are not computed again."""
    how = how_of("scratch" if bench.scratch else "features", bench.n)
    for seed in seeds:
        for name in labels:
            of_seed = how | {"seed": seed}
            there = {(r["labels"], r["row"]): r for r in results() if of_seed.items() <= r.items()}
            if all((name, row) in there for row in wanted):
                continue
            known = {row: (r["accuracy"], r["seconds"]) for (_, row), r in there.items() if row == TRUE}  # the same
            for row, accuracy_of in bench.rows(name, seed):
                if (name, row) in there or row not in wanted:
                    continue
                began = time.process_time()
                accuracy, seconds = known[row] if row in known else (accuracy_of(), None)
                seconds = time.process_time() - began if seconds is None else seconds
                line = of_seed | {"labels": name, "row": row, "accuracy": accuracy, "seconds": seconds} | bench.extra
                bench.extra = {}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)


def how_of(kind: str, n: int) -> dict[str, Any]:
    """What tells the results of one kind of training from those of another."""
    return {"kind": kind, "recipe": HOW[kind], "images": n}


def results() -> list[dict[str, Any]]:
    """All that was measured."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


# -- the table ---------------------------------------------------------------------------------------------------


def table(kind: str, n: int, labels: Sequence[str]) -> str:
    """Accuracy, the share of the gap that is closed, both as mean ± deviation, and processor seconds.

    Rows that were not measured on all labels are left out.
    """
    found: dict[tuple[str, str], dict[int, tuple[float, float]]] = {}
    for r in results():
        if how_of(kind, n).items() <= r.items():
            found.setdefault((r["row"], r["labels"]), {})[r["seed"]] = (r["accuracy"], r["seconds"])
    rows: list[list[object]] = []
    for row in SCRATCH_ROWS if kind == "scratch" else ROWS:
        if not all((row, name) in found for name in labels):
            continue
        cells = [cell(np.array([a for a, _ in found.get((row, name), {}).values()])) for name in labels]
        seconds = [s for name in labels for _, s in found.get((row, name), {}).values()]
        rows.append([row, *cells, f"{np.mean(seconds):.0f}" if seconds else "–"])
    for row in (LEFT_OUT, TWO, VANILLA, PAPER, INCV, OURS):
        if not all((row, name) in found for name in labels):
            continue
        shares = []
        for name in labels:
            plain, ours, true = (found.get((each, name), {}) for each in (PLAIN, row, TRUE))
            seeds = [s for s in ours if s in plain and s in true]
            gaps = [(ours[s][0] - plain[s][0]) / (true[s][0] - plain[s][0]) for s in seeds]
            shares.append(cell(100 * np.array(gaps), ".0f", " %"))
        rows.append([f"gap closed by {row}", *shares, ""])
    differences = []
    for name in labels:
        ours, two = found.get((OURS, name), {}), found.get((TWO, name), {})
        differences.append(cell(np.array([ours[s][0] - two[s][0] for s in ours if s in two]), "+.3f"))
    rows.append([f"{OURS}, above {TWO}", *differences, ""])
    for title, form, figure in (
        (
            "its own estimate of its accuracy, above the truth",
            "+.3f",
            lambda r: r["calibration"]["accuracy"] - r["accuracy"],
        ),
        ("its expected calibration error on the test images", ".3f", lambda r: r["ece"]),
        ("the same without its temperature", ".3f", lambda r: r["ece_before"]),
    ):
        said = [r for r in results() if how_of(kind, n).items() <= r.items() and r["row"] == OURS and "ece" in r]
        rows.append(
            [title, *(cell(np.array([figure(r) for r in said if r["labels"] == name]), form) for name in labels), ""]
        )
    return markdown(("test accuracy", *labels, "seconds"), rows)


def caption(kind: str, n: int) -> str:
    """What the table shows."""
    if kind == "scratch":
        return f"From scratch, {n:,} training images, the small network, {SCRATCH_EPOCHS} epochs, one seed:"
    return (
        f"On frozen features of {n:,} training images, a head with one hidden layer, mean ± deviation of three seeds:"
    )


def main() -> None:
    """Measure what is asked for, then write the README's part from all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--images", type=int, default=data.N_TRAIN, help="train on the first so many only")
    parser.add_argument("--labels", nargs="*", default=LABELS, help="others are printed, not published")
    parser.add_argument("--rows", nargs="*", help="these rows only")
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--publish", action="store_true", help="write the README's part, and measure nothing")
    arguments = parser.parse_args()
    kind = "scratch" if arguments.scratch else "features"
    if not arguments.publish:
        seeds = arguments.seeds or ([0] if arguments.scratch else [0, 1, 2])
        wanted = arguments.rows or (SCRATCH_ROWS if arguments.scratch else ROWS)
        measure(Retraining(arguments.scratch, arguments.threads, arguments.images), arguments.labels, seeds, wanted)
    text = table(kind, arguments.images, arguments.labels)
    if tuple(arguments.labels) != LABELS:
        print(text)
        return
    publish(f"retraining-{kind}", f"{caption(kind, arguments.images)}\n\n{text}")


if __name__ == "__main__":
    main()
