"""Test accuracy of co-teaching beside plain training, on noisy labels that people and chance made.

    python examples/benchmarks/coteaching.py                 # on frozen features, three seeds
    python examples/benchmarks/coteaching.py --scratch       # small network from scratch, one seed: for a GPU
    python examples/benchmarks/coteaching.py --cost          # time of two networks beside that of one

All are the same network and shown the same number of images; the settings were chosen on random2, which is not here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import data
import numpy as np
import numpy.typing as npt
from tables import markdown, publish

from cvcoteach import noise
from cvcoteach.crossval import IterativeCV
from cvcoteach.training.augment import Pixels
from cvcoteach.training.coteaching import CoTraining, incv_curriculum, two_networks, vanilla_curriculum
from cvcoteach.training.coteaching_estimator import HEAD_RECIPE, RECIPES, CoTeaching, choose
from cvcoteach.training.devices import Plan, choose_device, choose_threads, set_threads
from cvcoteach.training.features import HeadTrainer
from cvcoteach.training.folds import TorchTrainer
from cvcoteach.training.inputs import Inputs, features_of, standard_of
from cvcoteach.training.loop import Recipe, Training, predict
from cvcoteach.training.memory import kept_between_batches

K = 10
LABELS = ("random1", "worse", "symmetric 0.5")
ROWS = (
    "plain, noisy labels",
    "vanilla co-teaching",
    "INCV + co-teaching, S by agreement (paper)",
    "INCV + co-teaching, S by the posterior (default)",
    "plain, true labels",
)
RESULTS = data.BUILD / "coteaching.jsonl"
Labels = npt.NDArray[np.int64]


def given_labels(name: str, seed: int, true: Labels, human: dict[str, Labels]) -> Labels:
    """The noisy labels of that name."""
    if name == "symmetric 0.5":
        return noise.flip_labels(true, noise.transition("symmetric", 0.5, K), np.random.default_rng(seed))
    return human[name]


def plain_accuracy(inputs: Inputs, labels: Labels, test: Inputs, truth: Labels, recipe: Recipe, seed: int) -> float:
    """One network on all labels."""
    plan = Plan(str(choose_device()), threads=choose_threads())
    recipe, rows = inputs.recipe(recipe), np.arange(len(inputs))
    scaling = inputs.scaling(recipe, rows)
    network = inputs.build(recipe, K, seed).to(plan.torch_device)
    training = Training([network], inputs.on(plan), rows, labels, recipe, scaling, plan, seed=seed)
    while training.epoch < recipe.epochs:
        training.run_epoch()
    mirror = recipe.tta and bool(recipe.flip)
    probs = predict([network], test.on(plan), np.arange(len(test)), scaling, plan, mirror=mirror)
    return float((probs.argmax(axis=1) == truth).mean())


def matched_epochs(selected: Labels, candidate: Labels, noise_rate: float, n: int, budget: int) -> int:
    """Epochs of S and C that show about as many images as `budget`."""
    passes = [incv_curriculum(selected, candidate, noise_rate, n, K, e).passes(e) for e in range(1, 400)]
    return 1 + int(np.argmin(np.abs(np.array(passes) - budget)))


def accuracies(
    X: npt.NDArray[np.generic],
    test: npt.NDArray[np.generic],
    given: Labels,
    true: Labels,
    truth: Labels,
    recipe: Recipe,
    seed: int,
) -> Iterator[tuple[str, float]]:
    """Each of ROWS with its test accuracy, as soon as it is known."""
    features = X.ndim == 2
    if features:
        standard = standard_of(X)
        inputs, test_inputs = features_of(X, *standard), features_of(test, *standard)
        trainer = HeadTrainer(X, K)
    else:
        inputs, test_inputs = Inputs(X, are_features=False), Inputs(test, are_features=False)
        trainer = TorchTrainer(X, K, recipe)
    yield ROWS[0], plain_accuracy(inputs, given, test_inputs, truth, recipe, seed)
    yield ROWS[4], plain_accuracy(inputs, true, test_inputs, truth, recipe, seed)
    found = IterativeCV(seed=seed).run(trainer, given, n_classes=K)
    vanilla = CoTeaching(mode="vanilla", recipe=recipe, random_state=seed).fit(X, given, noise_rate=found.noise_rate)
    yield ROWS[1], vanilla.score(test, truth)
    for row, select in ((ROWS[2], "agreement"), (ROWS[3], "posterior")):
        selected, candidate = choose(given, found.rounds[0].pred_probs, found.selected, found.candidate, select)
        sets = np.flatnonzero(selected), np.flatnonzero(candidate)
        epochs = matched_epochs(*sets, found.noise_rate, len(given), recipe.epochs * len(given))
        incv = CoTeaching(recipe=recipe, epochs=epochs, random_state=seed)
        incv.fit(X, given, selected=selected, candidate=candidate, noise_rate=found.noise_rate)
        yield row, incv.score(test, truth)


def measure(scratch: bool, seeds: int) -> None:
    """Append every result to RESULTS; those that are there are not computed again."""
    kind = "scratch" if scratch else "features"
    there = {(r["kind"], r["labels"], r["seed"], r["row"]) for r in results()}
    arrays = np.load(data.BUILD / "labels.npz")
    true, truth = arrays["true_label"], arrays["test_label"]
    if scratch:
        images = data.load_cifar10n()
        X, test = images.images, images.test_images
    else:
        features = data.frozen_features()
        X, test = features[: len(true)], features[len(true) :]
    recipe = RECIPES["fast"] if scratch else HEAD_RECIPE
    for seed in range(seeds):
        for name in LABELS:
            if all((kind, name, seed, row) in there for row in ROWS):
                continue
            given = given_labels(name, seed, true, dict(arrays))
            began = time.perf_counter()
            for row, accuracy in accuracies(X, test, given, true, truth, recipe, seed):
                took, began = time.perf_counter() - began, time.perf_counter()
                line = {"kind": kind, "labels": name, "seed": seed, "row": row, "accuracy": accuracy, "seconds": took}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(line, flush=True)


def results() -> list[dict[str, object]]:
    """All that was measured."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def table(kind: str) -> str:
    """Mean ± deviation over the seeds, and the share of the gap that is closed."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for r in results():
        if r["kind"] == kind:
            found.setdefault((str(r["row"]), str(r["labels"])), {})[int(str(r["seed"]))] = float(str(r["accuracy"]))
    rows = []
    for row in ROWS:
        cells: list[object] = [row]
        for name in LABELS:
            values = np.array([*found.get((row, name), {}).values()])
            if not len(values):
                cells.append("not measured")
                continue
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{spread}")
        rows.append(cells)
    closed: list[object] = ["gap closed by the default"]
    for name in LABELS:
        means = [np.mean([*found.get((row, name), {0: np.nan}).values()]) for row in ROWS]
        closed.append(f"{(means[3] - means[0]) / (means[4] - means[0]):.0%}" if np.isfinite(means).all() else "")
    return markdown(("test accuracy", *LABELS), [*rows, closed])


def cost(repeats: int = 5) -> str:
    """CPU time of an epoch of both networks over that of one, of the least of some epochs in turns, on 1,000 images."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (1000, 32, 32, 3), np.uint8), rng.integers(0, K, 1000)
    plan, inputs = Plan(str(choose_device()), threads=choose_threads()), Inputs(pixels, are_features=False)
    set_threads(plan.threads)
    recipe = replace(RECIPES["fast"], epochs=100).for_channels(3)
    rows, scaling, on_device = np.arange(1000), inputs.scaling(recipe, np.arange(1000)), Pixels(pixels, plan)

    def build(seed: int):
        return inputs.build(recipe, K, seed)

    one = Training([build(0).to(plan.torch_device)], on_device, rows, labels, recipe, scaling, plan, seed=0)
    curriculum = vanilla_curriculum(1000, 0.2, 100)
    two = CoTraining(two_networks(build, plan, 0), on_device, labels, curriculum, recipe, scaling, plan, seed=0)
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
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--publish", action="store_true", help="write the README's part, and measure nothing")
    arguments = parser.parse_args()
    costs = Path(data.BUILD / "coteaching-cost.txt")
    if arguments.cost:
        costs.write_text(cost())
    elif not arguments.publish:
        measure(arguments.scratch, arguments.seeds or (1 if arguments.scratch else 3))
    measured = {str(r["kind"]) for r in results()}
    titles = {"features": "On frozen features, three seeds:", "scratch": "From scratch, one seed:"}
    parts = [f"{title}\n\n{table(kind)}" for kind, title in titles.items() if kind in measured]
    publish("coteaching", "\n\n".join([*parts, *([costs.read_text()] if costs.exists() else [])]))


if __name__ == "__main__":
    main()
