"""One row of a published table: INCV as published, Co-teaching on what it selected, and the test images.

A row is the two commands `cvcoteach find-issues --preset paper` and `cvcoteach retrain --preset paper` in a folder of
its own. Interrupted at any point, it resumes from the last finished fold or epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cvcoteach._files import write_json
from cvcoteach._progress import duration
from cvcoteach._validation import InputError, IntArray
from cvcoteach.cli.display import Display
from cvcoteach.coteaching.curriculum import image_passes, warmup_of
from cvcoteach.coteaching.presets import COTEACHING_PRESETS
from cvcoteach.crossval.agreement import agreement
from cvcoteach.crossval.incv import MAX_REMOVE_RATIO
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.predict import predict
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.retrain import retrain
from cvcoteach.pipeline.settings import Machine, RetrainSettings, Settings
from cvcoteach.training.compute_plan import probe
from cvcoteach.training.devices import choose_device, choose_threads, set_threads
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.presets import PRESETS

RESULT = "result.json"
ROUNDS = 4
"""Rounds of INCV in the paper."""


@dataclass(frozen=True)
class Lengths:
    """How long and on what is trained; None: as published."""

    epochs: int | None = None
    """Epochs of each fold; published: 50."""
    coteaching_epochs: int | None = None
    """Epochs of Co-teaching; published: 200."""
    rounds: int = ROUNDS
    """Rounds of INCV."""
    model: str = "resnet32"
    """The network, as `--model` takes it."""
    image_size: int | None = None
    """Pixels a side; None: the network's, or the images'."""
    seed: int = 0
    """Of noise, splits and trainings."""

    @property
    def settings(self) -> Settings:
        """Settings of `find_issues`."""
        return Settings(
            preset="paper",
            model=self.model,
            weights="none",
            epochs=self.epochs,
            n_rounds=self.rounds,
            image_size=self.image_size,
            seed=self.seed,
        )

    @property
    def retraining(self) -> RetrainSettings:
        """Settings of `retrain`."""
        return RetrainSettings(
            preset="paper",
            model=self.model,
            weights="none",
            epochs=self.coteaching_epochs,
            image_size=self.image_size,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Noise:
    """How wrong the labels are taken to be before anything is trained, for the estimate of the time."""

    rate: float
    """Share of wrong labels, in [0, 1)."""
    n_classes: int
    """K."""
    pattern: str = "symmetric"
    """"symmetric" or "asymmetric"."""


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a table, in a folder of its own."""

    name: str
    """Such as "symmetric 0.5"."""
    folder: Path
    """Holds the run, the classifier, the predictions and result.json."""
    train: Path
    """Images with noisy labels, as `find_issues` takes them."""
    tests: Mapping[str, Path]
    """Test images by name."""
    lengths: Lengths
    """How long is trained."""
    true_labels: IntArray | None = None
    """(n,) true labels of the training images; None: not known."""

    def result(self, machine: Machine) -> dict[str, Any]:
        """Return the figures of the row; what is finished already is not done again.

        Raises:
            InputError: Anything does not fit.
        """
        watcher = Display(sys.stderr)
        run = find_issues(self.train, self.folder / "issues", self.lengths.settings, machine, watcher=watcher)
        model = self.folder / "model"
        retrained = retrain(run.folder, model, self.lengths.retraining, machine, watcher=watcher)
        figures: dict[str, Any] = {
            "row": self.name,
            "images": len(run.labels),
            "noise_rate": run.rounds[0]["noise_rate"],
            "rounds": None if self.true_labels is None else selection_quality(run, self.true_labels),
            "accuracy": {},
            "epochs": [run_epochs(run.folder), retrained.summary["recipe"]["epochs"]],
            "seconds": round(seconds_of(run.folder)),
        }
        for name, test in self.tests.items():
            predicted = predict(model, test, self.folder / f"{name}.csv", machine, watcher=watcher)
            figures["accuracy"][name] = top_k(predicted.table)
        watcher.close()
        write_json(self.folder / RESULT, figures)
        return figures


def run_epochs(folder: Path) -> int:
    """Return the epochs of a fold of a run."""
    return int(json.loads((folder / "run.json").read_text("utf-8"))["identity"]["recipe"]["epochs"])


def seconds_of(folder: Path) -> float:
    """Return how long the trainings of a run's folds took, seconds."""
    timings = json.loads((folder / "run.json").read_text("utf-8"))["timings"]
    return sum(part["seconds"] for part in timings if part["what"] != "reading")


def selection_quality(run: RunResults, true_labels: IntArray) -> list[dict[str, float]]:
    """Return label precision (clean share of S) and label recall (share of the clean in S) after each round.

    An image that joined S is not judged again, so that its last round is the one in which it joined.
    """
    clean = run.labels == true_labels
    found = []
    for number in range(1, len(run.rounds) + 1):
        selected = run.selected & (run.round <= number)
        right = int((selected & clean).sum())
        lp, lr = right / max(1, int(selected.sum())), right / max(1, int(clean.sum()))
        found.append({"round": number, "selected": int(selected.sum()), "label_precision": lp, "label_recall": lr})
    return found


def top_k(predictions: pd.DataFrame) -> dict[str, float]:
    """Return the share of images whose class is the most probable one ("1"), and among the five most probable ("5")."""
    columns = [name for name in predictions.columns if str(name).startswith("p:")]
    readable = predictions[predictions["predicted_label"].notna()]
    place = {name[2:]: k for k, name in enumerate(columns)}
    probs, labels = readable[columns].to_numpy(), readable["given_label"].map(place).to_numpy()
    better = (probs > probs[np.arange(len(probs)), labels][:, None]).sum(axis=1)
    return {"1": float((better < 1).mean()), "5": float((better < 5).mean())}


# -- before anything is trained ----------------------------------------------------------------------------------


def images_shown(n: int, noise: Noise, lengths: Lengths) -> tuple[int, int]:
    """Return how many images are shown to networks in INCV and in Co-teaching, by what the theory says of S and C."""
    a = agreement(noise.rate, noise.n_classes, noise.pattern)
    ratio = min(MAX_REMOVE_RATIO, noise.rate / (1 - noise.rate))
    selected = round(a * n)
    candidate = n - selected - min(n - selected, round(ratio * selected))
    epochs = lengths.epochs or PRESETS["paper"].epochs
    folds = epochs * (n + (lengths.rounds - 1) * (2 * selected + candidate))
    long = lengths.coteaching_epochs or COTEACHING_PRESETS["paper"].epochs
    return folds, 2 * image_passes(selected, candidate, warmup_of(long, noise.rate), long)


def images_per_second(lengths: Lengths, size: int, n_classes: int, machine: Machine) -> float:
    """Return how many images a second this machine trains on, measured for a few seconds."""
    device, threads = choose_device(machine.device), choose_threads(machine.threads)
    set_threads(threads)
    spec = ModelSpec.parse(lengths.model, "none")
    network = ModelFactory(spec, trusted=machine.trusted).build(n_classes, 3)
    images = torch.randn(PRESETS["paper"].batch_size, 3, size, size)
    measured = probe(network, images, device=device, threads=threads).measured
    if not measured:
        raise InputError(f"{lengths.model} does not take images of {size} pixels; name another --image-size.")
    return max(measured.values())


def estimate(name: str, shown: tuple[int, int], speed: float) -> str:
    """Return a sentence on how long a row takes."""
    folds, pair = (images / speed for images in shown)
    return (
        f"{name}: about {duration(folds)} for INCV and {duration(pair)} for Co-teaching, {sum(shown):,} images at "
        f"{speed:,.0f} a second."
    )


# -- the command -------------------------------------------------------------------------------------------------


def parser(text: str | None, output: Path) -> argparse.ArgumentParser:
    """Return a parser with the options that all tables share."""
    result = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--output", type=Path, default=output, help="folder of the results (%(default)s)")
    result.add_argument("--estimate", action="store_true", help="say how long it takes, and train nothing")
    result.add_argument("--epochs", type=int, help="epochs of each fold (50)")
    result.add_argument("--coteaching-epochs", type=int, help="epochs of Co-teaching (200)")
    result.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of INCV (%(default)s)")
    result.add_argument("--seed", type=int, default=0, help="of noise, splits and trainings (%(default)s)")
    result.add_argument("--device", help="cuda, mps or cpu (the fastest)")
    result.add_argument("--threads", type=int, help="CPU threads (all)")
    result.add_argument("--cache-dir", type=Path, help="where decoded images are kept (the user's cache)")
    return result


def guarded(main: Callable[[], None]) -> None:
    """Run a command; what the user can mend ends in a sentence, and an interruption says how to go on."""
    try:
        main()
    except InputError as error:
        raise SystemExit(f"Error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("\nInterrupted. The same command resumes.") from None


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))
