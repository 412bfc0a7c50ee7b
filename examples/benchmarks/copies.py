"""What finding copies of images costs, and what binding them to one fold brings.

    python examples/benchmarks/copies.py [--images 100000]    # ten minutes on two cores
    python examples/benchmarks/copies.py --part share          # or: bound, twins, clips

share: processor time of finding exact and near copies, of the whole run. The images are blends of two of CIFAR-10's,
the features blends of two rows, so that there are as many different ones as are asked for. With a backbone, the time
that extraction takes is scaled up from --extracted images.
bound: how many of images that were taken one by one are bound as near copies of each other.
twins: images of CIFAR-10N with their human labels, of which a part has four near copies each, with the same label:
average precision and recall among the wrong labels of these.
clips: two hundred clips of ten noisy copies of a handwritten digit, twenty clips mislabelled as a whole.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from data import Cifar10N, efficientnet_lite0, embed, frozen_features, load_cifar10n
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from tables import markdown, publish

from cvcoteach import LabelIssues, label_issues
from cvcoteach.data.sources import Source
from cvcoteach.pipeline import prepare
from cvcoteach.pipeline.copies import Content, Copies, bind_copies, found_copies
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.settings import Machine, Settings

Labels = npt.NDArray[np.int64]
NOISE = "random1"
N_FOLDS = 5
N_ALONE, N_COPIED, N_COPIES = 8000, 1000, 4
BLEND = 0.6
CLIPS, WRONG_CLIPS, FRAMES, SEEDS = 200, 20, 10, 4
PARTS = ("share", "bound", "twins", "clips")


def blends(rows: npt.NDArray[Any], n: int, file: Path) -> npt.NDArray[Any]:
    """Write n different rows, each 0.6 of one and 0.4 of another, to a .npy file; return them, memory-mapped."""
    rng = np.random.default_rng(0)
    made = np.lib.format.open_memmap(file, "w+", rows.dtype, (n, *rows.shape[1:]))
    for start in range(0, n, len(rows)):
        one = rows[: min(len(rows), n - start)].astype(np.float32)
        other = rows[rng.permutation(len(rows))[: len(one)]]
        made[start : start + len(one)] = BLEND * one + (1 - BLEND) * other
    made.flush()
    return np.load(file, mmap_mode="r")


class Timed:
    """`bind_copies`, and the processor time that it takes, in seconds."""

    seconds = 0.0

    def __call__(self, *args: Any, **options: Any) -> tuple[Source, Copies]:
        began = time.process_time()
        found = bind_copies(*args, **options)
        self.seconds += time.process_time() - began
        return found


def measure_share(data: Cifar10N, n: int, n_extracted: int) -> None:
    """Measure the share of processor time that finding copies takes, and publish it."""
    given = np.resize(data.given[NOISE], n)
    paths = tuple(map(str, range(n)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blends(frozen_features()[: len(given)], n, folder / "x.npy")
        pixels = blends(data.images, n, folder / "pixels.npy")
        source = Source(folder, folder, paths, given, data.class_names)
        timed = Timed()
        began = time.process_time()
        with mock.patch.object(prepare, "bind_copies", timed):
            find_issues(source, folder / "run", Settings(features=folder / "x.npy"), Machine(), page=False)
        heads = time.process_time() - began - timed.seconds
        began = time.process_time()
        bind_copies(source, Content(pixels), N_FOLDS)
        of_pixels = time.process_time() - began
    network, part = efficientnet_lite0(), data.images[:n_extracted]
    embed(network, part[:128])
    began = time.process_time()
    embed(network, part)
    extraction = (time.process_time() - began) * n / n_extracted
    rows = [
        (what, f"{copies:.1f}", f"{others:.0f}", f"{copies / (copies + others):.2%}")
        for what, copies, others in (
            ("`--features`, 1,280 numbers an image", timed.seconds, heads),
            (f"`--backbone`, 32 px, extraction scaled up from {n_extracted:,} images", of_pixels, extraction + heads),
        )
    ]
    text = f"{n:,} images, {torch.get_num_threads()} threads, processor seconds.\n\n"
    publish("copies-share", text + markdown(["", "finding copies", "all else", "share of the run"], rows))


def count_bound(data: Cifar10N) -> None:
    """Count the images that are bound though they were taken one by one, and publish it."""
    digits, digit = load_digits(return_X_y=True)
    sets = {
        "CIFAR-10, pixels": (data.images, data.true_labels),
        "CIFAR-10, features": (frozen_features()[: len(data.images)], data.true_labels),
        "scikit-learn's digits, pixels": ((digits * 15.9).astype(np.uint8).reshape(-1, 8, 8, 1), digit),
        "scikit-learn's digits, features": (digits.astype(np.float32), digit),
    }
    rows = []
    for name, (content, true) in sets.items():
        near = found_copies(Content(content), N_FOLDS, None, bind_near=True).near
        later = np.flatnonzero(near != np.arange(len(near)))
        bound = np.union1d(later, near[later])
        rows.append((name, f"{len(near):,}", len(bound), int((true[later] == true[near[later]]).sum()), len(later)))
    publish(
        "copies-bound", markdown(["", "images", "bound", "of these copies with the class of the first", "copies"], rows)
    )


def near_copy(image: npt.NDArray[np.uint8], kind: int) -> npt.NDArray[np.uint8]:
    """Return one of four near copies of an image (32, 32, 3): moved by a pixel, brighter, as JPEG, or scaled."""
    picture = Image.fromarray(image)
    if kind == 0:
        return np.roll(image, 1, axis=1)
    if kind == 1:
        return np.clip(image * 1.1 + 8, 0, 255).astype(np.uint8)
    if kind == 2:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        return np.asarray(Image.open(file))
    return np.asarray(picture.resize((24, 24), Image.Resampling.BICUBIC).resize((32, 32), Image.Resampling.BICUBIC))


def scored(found: LabelIssues, wrong: npt.NDArray[np.bool_], rows: Labels) -> tuple[float, float, float]:
    """Return average precision of all labels, and recall and precision of the flags among some of them."""
    flags = found.is_label_issue[rows]
    return (
        float(average_precision_score(wrong, found.wrong)),
        float(flags[wrong[rows]].mean()),
        float(wrong[rows][flags].mean()),
    )


def measure_twins(data: Cifar10N) -> None:
    """Measure what near copies spoil and binding saves, and publish it."""
    features = frozen_features()
    order = np.random.default_rng(0).permutation(len(data.images))[:N_ALONE]
    copied = np.repeat(order[:N_COPIED], N_COPIES)
    kinds = np.arange(len(copied)) % N_COPIES
    pictures = np.stack([near_copy(data.images[i], kind) for i, kind in zip(copied, kinds.tolist(), strict=True)])
    images = np.concatenate([order, copied])
    x = np.concatenate([features[order], embed(efficientnet_lite0(), pictures)])
    pixels = np.concatenate([data.images[order], pictures])
    given = data.given[NOISE][images]
    wrong = given != data.true_labels[images]
    of_copied = np.concatenate([np.arange(N_COPIED), np.arange(N_ALONE, len(images))])
    by_pixels = found_copies(Content(pixels), N_FOLDS, None, bind_near=True).near
    by_features = found_copies(Content(x), N_FOLDS, None, bind_near=True).near
    alone = slice(0, N_ALONE)
    first = scored(_found(given[alone], x[alone]), wrong[alone], np.arange(N_COPIED))
    rows: list[tuple[str, Any, Any, float, float]] = [("no copies in the set", "", "", *first[1:])]
    origin = np.concatenate([np.arange(N_ALONE), np.repeat(np.arange(N_COPIED), N_COPIES)])
    ways: dict[str, Labels | None] = {
        "copies, not bound": None,
        "copies, bound by pixels": by_pixels,
        "copies, bound by features": by_features,
        "copies, named as groups": origin,
    }
    for name, groups in ways.items():
        bound = right = 0
        if groups is not None:
            later = np.arange(N_ALONE, len(images))
            bound = int((groups[later] == groups[origin[later]]).sum())
            right = int((origin[groups] != origin).sum())
        scores = scored(_found(given, x, groups), wrong, of_copied)
        rows.append((name, f"{bound:,} of {len(copied):,}", right, *scores[1:]))
    header = ["", "copies bound to their image", "images bound to another one", "recall among the copied", "precision"]
    text = (
        f"{N_ALONE:,} images with the labels {NOISE}, {N_COPIED:,} of them with {N_COPIES} near copies each, "
        "heads on features.\n\n"
    )
    publish("copies-twins", text + markdown(header, rows))


def _found(given: Labels, x: npt.NDArray[np.float32], groups: Labels | None = None) -> LabelIssues:
    return label_issues(given, features=x, groups=groups, bind_near_copies=False, progress=False)


def measure_clips() -> None:
    """Measure how many clips that are mislabelled as a whole are found, and publish it."""
    digits, true = load_digits(return_X_y=True)
    clip = np.repeat(np.arange(CLIPS), FRAMES)
    wrong = clip < WRONG_CLIPS
    ways: dict[str, dict[str, Any]] = {
        "without binding": {"bind_near_copies": False},
        "near copies bound, the default": {},
        "clips named as groups": {"groups": clip},
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        chosen = rng.permutation(len(true))[:CLIPS]
        given = true[chosen].copy()
        given[:WRONG_CLIPS] = (given[:WRONG_CLIPS] + rng.integers(1, 10, WRONG_CLIPS)) % 10
        x = np.repeat(digits[chosen], FRAMES, axis=0) + rng.normal(0, 0.5, (len(clip), digits.shape[1]))
        for name, options in ways.items():
            issues = label_issues(np.repeat(given, FRAMES), features=x, seed=seed, progress=False, **options)
            found[name].append(scored(issues, wrong, np.arange(len(clip)))[1:])
    rows = [(name, *map(float, np.mean(scores, axis=0))) for name, scores in found.items()]
    text = f"{CLIPS} clips of {FRAMES} frames, {WRONG_CLIPS} of them wrong, heads on pixels; mean of {SEEDS} seeds.\n\n"
    publish("copies-clips", text + markdown(["", "recall", "precision"], rows))


def main() -> None:
    """Measure and publish each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--extracted", type=int, default=2000)
    args = parser.parse_args()
    data = load_cifar10n()
    if "bound" in args.part:
        count_bound(data)
    if "clips" in args.part:
        measure_clips()
    if "twins" in args.part:
        measure_twins(data)
    if "share" in args.part:
        measure_share(data, args.images, args.extracted)


if __name__ == "__main__":
    main()
