"""Test accuracy of co-teaching beside plain training, on noisy labels that people and chance made.

    python examples/benchmarks/coteaching.py                 # on frozen features, three seeds
    python examples/benchmarks/coteaching.py --scratch       # small network from scratch, one seed: three hours
    python examples/benchmarks/coteaching.py --cost          # time of two networks beside that of one

All are the same network and shown the same number of images. Choices were made on random2, aggre, symmetric 0.4 and
0.6 and feature-dependent 0.3 with other seeds (--labels, --seeds), none of which is in the table.
Every figure measured is kept in build/benchmarks/coteaching.jsonl, and not measured again; delete it to start anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import data
import numpy as np
import numpy.typing as npt
from tables import markdown, publish
from torch import nn

from cvcoteach._files import digest
from cvcoteach.coteaching.curriculum import Curriculum, vanilla_curriculum
from cvcoteach.coteaching.presets import HEAD_RECIPE
from cvcoteach.coteaching.selection import Selection, corrected, selection_after
from cvcoteach.coteaching.training import CoTeachingTask
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.noise_model import simulate as noise
from cvcoteach.pipeline.run_folder import FoldFiles
from cvcoteach.training.batches import BatchSource, DeviceImages, FeatureBatches, ImageBatches
from cvcoteach.training.checkpoints import run_to_end
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import choose_device, choose_threads, set_threads
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.inputs import FeatureInputs, ImageInputs, Inputs
from cvcoteach.training.loop import Training, predict
from cvcoteach.training.memory import kept_between_batches
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.standardisation import Standardisation
from cvcoteach.training.torch_trainer import TorchTrainer

K = 10
LABELS = ("random1", "worse", "symmetric 0.5")
PLAIN, VANILLA, PAPER, DEFAULT, CORRECT, TRUE = ROWS = (
    "plain, noisy labels",
    "vanilla co-teaching",
    "INCV + co-teaching as published: S by agreement",
    'INCV + co-teaching, mode "incv": S is what is not flagged',
    'the same, mode "correct": all others under corrected labels',
    "plain, true labels",
)
SCRATCH_ROWS = (PLAIN, VANILLA, DEFAULT, TRUE)
SCRATCH_EPOCHS = 20
FOLDS = PRESETS["fast"].for_channels(3)
SCRATCH, HEADS = replace(FOLDS, epochs=SCRATCH_EPOCHS), replace(HEAD_RECIPE, shift=0, flip=False)
RESULTS = data.BUILD / "coteaching.jsonl"
CAPTIONS = {
    "features": "On frozen features, a head with one hidden layer, mean ± deviation of three seeds:",
    "scratch": f"From scratch, the small network, {SCRATCH_EPOCHS} epochs, one seed; folds as of `find-issues`:",
}
Labels = npt.NDArray[np.int64]


def given_labels(
    name: str, seed: int, true: Labels, human: dict[str, Labels], features: npt.NDArray[np.float32]
) -> Labels:
    """The noisy labels of that name, (n,)."""
    if name in human:
        return human[name]
    kind, rate = name.split()
    if kind == "feature-dependent":
        return noise.flip_by_features(true, features, float(rate), np.random.default_rng(seed))
    return noise.flip_labels(true, noise.transition(kind, float(rate), K), np.random.default_rng(seed))


def key_of(*recipes: Recipe) -> str:
    """What was trained in another way is measured again."""
    return digest(*(json.dumps(recipe.as_record()) for recipe in recipes))[:8]


HOW = {"scratch": key_of(SCRATCH, FOLDS), "features": key_of(HEADS)}


class Bench:
    """One set of images, one recipe: trains on it, and measures on the test images."""

    def __init__(self, scratch: bool, threads: int | None, n: int = data.N_TRAIN) -> None:
        images = data.load_cifar10n()
        self.truth, self.true = images.test_labels, images.true_labels[:n]
        self.human = {name: labels[:n] for name, labels in images.given.items()}
        features = data.frozen_features()
        self.features = features[:n]
        self.scratch, self.n = scratch, len(self.true)
        self.trainer: FoldTrainer
        if scratch:
            pixels = images.images[:n]
            self.inputs: Inputs = ImageInputs(pixels, ModelFactory(SCRATCH.model))
            self.test = images.test_images
            self.recipe = SCRATCH
            self.trainer = TorchTrainer(pixels, K, FOLDS, threads=threads)
            self.plan = self.trainer.plan
        else:
            standard = Standardisation.of(self.features)
            self.inputs = FeatureInputs(standard.applied(self.features))
            self.test = standard.applied(features[data.N_TRAIN :])
            self.recipe = self.inputs.adapted(HEADS)
            self.trainer = HeadTrainer(self.features, K, threads=threads)
            self.plan = ComputePlan(str(choose_device()), threads=choose_threads(threads))

    def plain(self, labels: Labels, seed: int) -> float:
        """Accuracy of one network on all labels."""
        set_threads(self.plan.threads)
        rows = np.arange(self.n)
        source = self.inputs.batches(self.plan, rows)
        network = self.plan.placed(self.inputs.network(K, seed))
        run_to_end(Training([network], source, rows, labels, self.recipe, seed=seed))
        return self.accuracy([network], source)

    def pair(self, selection: Selection, curriculum: Curriculum, epochs: int, seed: int) -> float:
        """Accuracy of co-teaching."""
        set_threads(self.plan.threads)
        recipe = replace(self.recipe, epochs=epochs)
        training = CoTeachingTask(self.inputs, selection, K, recipe, curriculum, seed).start(self.plan)
        run_to_end(training)
        return self.accuracy(training.networks, training.source)

    def accuracy(self, networks: Sequence[nn.Module], trained_on: BatchSource) -> float:
        """On the test images."""
        return float((self.probs(networks, trained_on).argmax(axis=1) == self.truth).mean())

    def probs(self, networks: Sequence[nn.Module], trained_on: BatchSource) -> npt.NDArray[np.float32]:
        """Probabilities of the test images, (5000, 10)."""
        if isinstance(trained_on, ImageBatches):
            source: BatchSource = ImageBatches(DeviceImages(self.test, self.plan), trained_on.scaling)
        else:
            source = FeatureBatches(self.test, self.plan)
        return predict(networks, source, np.arange(len(self.test)), mirror=self.recipe.mirrors_predictions)

    def rows(self, name: str, seed: int) -> Iterator[tuple[str, Callable[[], float]]]:
        """Each row with what measures its test accuracy."""
        given = given_labels(name, seed, self.true, self.human, self.features)
        yield TRUE, lambda: self.plain(self.true, seed)
        yield PLAIN, lambda: self.plain(given, seed)
        folds = None
        if isinstance(self.trainer, TorchTrainer):
            folds = FoldFiles(data.BUILD / f"coteaching-posterior-{name}-{seed}-{key_of(FOLDS)}")
        found = IterativeCV(seed=seed).run(self.trainer, given, n_classes=K, finished=folds)
        default = selection_after(found)
        # vanilla is told the better estimate of the noise too
        curriculum = vanilla_curriculum(self.n, default.noise_rate, self.recipe.epochs)
        everything = Selection.of_everything(given, default.noise_rate)
        yield VANILLA, lambda: self.pair(everything, curriculum, self.recipe.epochs, seed)
        yield DEFAULT, lambda: self.taught(default, seed)
        if not self.scratch:
            published = IterativeCV("agreement", seed=seed).run(self.trainer, given, n_classes=K)
            yield PAPER, lambda: self.taught(selection_after(published), seed)
            correct = corrected(default, found.posterior.suggested, found.posterior.suggested_prob)
            yield CORRECT, lambda: self.taught(correct, seed)

    def taught(self, selection: Selection, seed: int) -> float:
        """Accuracy with that selection, after as many image passes as the others."""
        epochs = selection.epochs(self.recipe.epochs * self.n)
        return self.pair(selection, selection.curriculum(K, epochs), epochs, seed)


def measure(scratch: bool, labels: Sequence[str], seeds: Sequence[int], threads: int | None) -> None:
    """Append every result to RESULTS; those that are there are not computed again."""
    bench = Bench(scratch, threads)
    kind = "scratch" if scratch else "features"
    how = {"kind": kind, "recipe": HOW[kind]}
    for seed in seeds:
        for name in labels:
            of_seed = how | {"seed": seed}
            there = {(r["labels"], r["row"]): r["accuracy"] for r in results() if of_seed.items() <= r.items()}
            if all((name, row) in there for row in (SCRATCH_ROWS if scratch else ROWS)):
                continue
            known = {row: accuracy for (_, row), accuracy in there.items() if row == TRUE}  # of all labels the same
            for row, accuracy_of in bench.rows(name, seed):
                if (name, row) in there:
                    continue
                began = time.perf_counter()
                accuracy = known.get(row) or accuracy_of()
                seconds = time.perf_counter() - began
                line = of_seed | {"labels": name, "row": row, "accuracy": accuracy, "seconds": seconds}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)


def results() -> list[dict[str, Any]]:
    """All that was measured."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def table(kind: str, labels: Sequence[str]) -> str:
    """Mean ± deviation over the seeds, and the share of the gap that is closed."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for r in results():
        if (r["kind"], r["recipe"]) == (kind, HOW[kind]):
            found.setdefault((r["row"], r["labels"]), {})[r["seed"]] = r["accuracy"]
    shown = SCRATCH_ROWS if kind == "scratch" else ROWS
    rows: list[list[object]] = []
    for row in shown:
        values = [np.array([*found.get((row, name), {}).values()]) for name in labels]
        rows.append([row, *map(cell, values)])
    for row in shown:
        if row in (PLAIN, TRUE):
            continue
        shares = []
        for name in labels:
            a, b, c = (found.get((each, name), {}) for each in (PLAIN, row, TRUE))
            shares.append(np.array([(b[s] - a[s]) / (c[s] - a[s]) for s in b if s in a and s in c]))
        rows.append([f"gap closed by {row}", *(cell(100 * each, ".0f", " %") for each in shares)])
    wins = []
    for name in labels:
        default, vanilla = found.get((DEFAULT, name), {}), found.get((VANILLA, name), {})
        both = [seed for seed in default if seed in vanilla]
        n_wins = sum(default[seed] >= vanilla[seed] for seed in both)
        wins.append(f"{n_wins} of {len(both)}" if both else "not measured")
    rows.append(['seeds on which mode "incv" is no worse than vanilla', *wins])
    return markdown(("test accuracy", *labels), rows)


def cell(values: npt.NDArray[np.floating[Any]], form: str = ".3f", unit: str = "") -> str:
    """Mean ± deviation."""
    if not len(values):
        return "not measured"
    spread = f" ± {values.std(ddof=1):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{values.mean():{form}}{spread}{unit}"


def cost(repeats: int = 5) -> str:
    """CPU time of an epoch of both networks over that of one, of the least of some epochs in turns, on 1,000 images."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (1000, 32, 32, 3), np.uint8), rng.integers(0, K, 1000)
    plan = ComputePlan(str(choose_device()), threads=choose_threads())
    set_threads(plan.threads)
    recipe, rows = replace(FOLDS, epochs=100), np.arange(1000)
    inputs = ImageInputs(pixels, ModelFactory(recipe.model))
    one = Training([plan.placed(inputs.network(K, 0))], inputs.batches(plan, rows), rows, labels, recipe, seed=0)
    selection, curriculum = Selection.of_everything(labels, 0.2), vanilla_curriculum(1000, 0.2, 100)
    two = CoTeachingTask(inputs, selection, K, recipe, curriculum, seed=0).start(plan)
    least = [np.inf, np.inf]
    clock = time.process_time if plan.device == "cpu" else time.perf_counter
    with kept_between_batches():  # as `run_to_end` trains
        for _ in range(repeats):
            for which, training in enumerate((one, two)):
                began = clock()
                training.run_epoch()
                least[which] = min(least[which], clock() - began)
    return f"Both networks in one pass cost {least[1] / least[0]:.2f} × the time of one ({plan.device})."


def main() -> None:
    """Measure what is asked for, then write the README's part from all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--labels", nargs="*", default=LABELS, help="others are printed, not published")
    parser.add_argument("--seeds", nargs="*", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--publish", action="store_true", help="write the README's part, and measure nothing")
    arguments = parser.parse_args()
    costs = Path(data.BUILD / "coteaching-cost.txt")
    if arguments.cost:
        costs.write_text(cost())
    elif not arguments.publish:
        seeds = arguments.seeds or ([0] if arguments.scratch else [0, 1, 2])
        measure(arguments.scratch, arguments.labels, seeds, arguments.threads)
        if tuple(arguments.labels) != LABELS:
            print(table("scratch" if arguments.scratch else "features", arguments.labels))
            return
    measured = {r["kind"] for r in results()}
    parts = [f"{caption}\n\n{table(kind, LABELS)}" for kind, caption in CAPTIONS.items() if kind in measured]
    publish("coteaching", "\n\n".join([*parts, *([costs.read_text()] if costs.exists() else [])]))


if __name__ == "__main__":
    main()
