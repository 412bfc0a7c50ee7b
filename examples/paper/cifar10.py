"""The paper's table on CIFAR-10: what INCV selects, and how accurate Co-teaching is on it.

    python examples/paper/cifar10.py cifar-10-batches-py                          # all four rows
    python examples/paper/cifar10.py cifar-10-batches-py --row "symmetric 0.5"    # one of them
    python examples/paper/cifar10.py cifar-10-batches-py --estimate               # how long it takes

The folder is CIFAR-10 as published, in batches for Python or binary ones, or image files in train/CLASS and test/CLASS.
Labels are flipped at random, seeded; the published ones count as true. Interrupted, the same command resumes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from experiment import ROUNDS, Lengths, Noise, Row, estimate, guarded, images_per_second, images_shown, markdown, parser
from layouts import SIDE, Part, read_cifar10

from cvcoteach._files import write_arrays
from cvcoteach._validation import InputError, IntArray
from cvcoteach.noise_model import simulate
from cvcoteach.pipeline.settings import Machine

K = 10
OUTPUT = Path("build/paper/cifar10")


@dataclass(frozen=True)
class Published:
    """What the paper reports of a row; selection in rounds 1 and 4."""

    label_precision: tuple[float, float]
    label_recall: tuple[float, float]
    accuracy: str
    """Percent, mean ± deviation of five runs."""


PUBLISHED = {
    "symmetric 0.2": Published((0.990, 0.987), (0.800, 0.937), "89.71 ± .18"),
    "symmetric 0.5": Published((0.953, 0.929), (0.700, 0.900), "84.78 ± .33"),
    "symmetric 0.8": Published((0.550, 0.500), (0.360, 0.667), "52.27 ± 3.50"),
    "asymmetric 0.4": Published((0.885, 0.837), (0.720, 0.930), "86.04 ± .54"),
}
"""Chen et al., ICML 2019: the figures of selection by round, and the table of test accuracies."""


def some_of_each(labels: IntArray, n: int, rng: np.random.Generator) -> IntArray:
    """Return n rows, or a few less, with as many of every class; ascending."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=K))[:-1]])
    return np.sort(order[np.arange(len(labels)) - first[labels[order]] < n // K])


def drawn(part: Part, n: int | None, seed: int) -> Part:
    """Return n images of a part, as many of every class; None: all."""
    if n is None or n >= len(part.labels):
        return part
    if n < 2 * K:
        raise InputError(f"{n} images are too few; it takes {2 * K} or more.")
    rows = some_of_each(part.labels, n, np.random.default_rng(seed))
    return Part(part.images[rows], part.labels[rows])


def row_of(name: str, train: Part, test: Part, folder: Path, lengths: Lengths) -> Row:
    """Draw the noise of a row, and write its images."""
    kind, rate = name.split()
    rng = np.random.default_rng(lengths.seed)
    given = simulate.flip_labels(train.labels, simulate.transition(kind, float(rate), K), rng)
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(folder / "train.npz", images=train.images, labels=given)
    write_arrays(folder / "test.npz", images=test.images, labels=test.labels)
    return Row(name, folder, folder / "train.npz", {"test": folder / "test.npz"}, lengths, train.labels)


def table(name: str, result: dict[str, Any]) -> str:
    """Return the figures of a row beside the paper's."""
    paper, rounds = PUBLISHED[name], result["rounds"]
    rows = []
    for quality, published in (("label_precision", paper.label_precision), ("label_recall", paper.label_recall)):
        for each in rounds:
            said = {1: published[0], ROUNDS: published[1]}.get(each["round"])
            what = f"{quality.replace('_', ' ')}, round {each['round']}"
            rows.append([what, "" if said is None else f"{said:.3f}", f"{each[quality]:.3f}"])
    rows.append(["test accuracy after Co-teaching, %", paper.accuracy, f"{100 * result['accuracy']['test']['1']:.2f}"])
    rows.append(["noise rate, as round 1 estimates it", "", f"{result['noise_rate']:.3f}"])
    rows.append(["training images", "50,000", f"{result['images']:,}"])
    rows.append(["epochs of a fold, of Co-teaching", "50, 200", "{}, {}".format(*result["epochs"])])
    return markdown([name, "paper", "here"], rows)


def main() -> None:
    """Run the rows that are asked for."""
    args = _arguments()
    lengths = Lengths(args.epochs, args.coteaching_epochs, args.rounds, args.model, seed=args.seed)
    machine = Machine(args.device, args.threads, cache_dir=args.cache_dir)
    train, test = read_cifar10(args.folder, args.cache_dir)
    train, test = drawn(train, args.images, args.seed), drawn(test, args.test_images, args.seed)
    names = args.row or list(PUBLISHED)
    speed = images_per_second(lengths, SIDE, K, machine)
    for name in names:
        kind, rate = name.split()
        print(estimate(name, images_shown(len(train.labels), Noise(float(rate), K, kind), lengths), speed), flush=True)
    if args.estimate:
        return
    for name in names:
        row = row_of(name, train, test, args.output / name.replace(" ", "-"), lengths)
        print(f"\n{table(name, row.result(machine))}", flush=True)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, OUTPUT)
    options.add_argument("folder", type=Path, help="CIFAR-10")
    options.add_argument("--row", action="append", choices=list(PUBLISHED), help="a row; repeatable (all)")
    options.add_argument("--model", default="resnet32", help="the network, as find-issues takes it (%(default)s)")
    options.add_argument("--images", type=int, help="training images, as many of every class (all)")
    options.add_argument("--test-images", type=int, help="test images (all)")
    return options.parse_args()


if __name__ == "__main__":
    guarded(main)
