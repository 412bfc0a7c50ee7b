"""What must hold on a card, one line each: captured steps, folds side by side, memory that runs out, repeatability.

    python examples/benchmarks/gpu_checks.py [--device cuda] [--quick]

Every check runs, whatever the ones before it gave; the exit status is 1 if one failed. On a CPU, captures
are rehearsed.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvcoteach import HeadTrainer, TorchTrainer
from cvcoteach.coteaching.curriculum import Curriculum
from cvcoteach.coteaching.training import CoTraining
from cvcoteach.crossval.trainer import Fold
from cvcoteach.training import rows
from cvcoteach.training.backbones import Backbone
from cvcoteach.training.batches import DeviceImages, ImageBatches
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.extraction import Extractor
from cvcoteach.training.fitting import fit
from cvcoteach.training.loop import Training, predict
from cvcoteach.training.networks import CifarResNet, SmallNet
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.together import run_together

K, N = 10, 1001  # batches of two sizes
ROUNDING = {"float32": 2e-2, "bfloat16": 1e-1}
"""Largest difference of a probability that rounding explains after two epochs."""

Check = Callable[["Card"], str]
CHECKS: list[tuple[str, Check]] = []


def check(name: str) -> Callable[[Check], Check]:
    """Add a check; it returns a figure, and raises AssertionError where something does not hold."""

    def add(function: Check) -> Check:
        CHECKS.append((name, function))
        return function

    return add


class Card:
    """The device, some images, and trainings on it."""

    def __init__(self, device: str, quick: bool) -> None:
        rng = np.random.default_rng(0)
        self.device, self.n, side = device, 131 if quick else N, 12 if quick else 32
        self.labels = rng.integers(0, K, self.n)
        self.pixels = rng.integers(0, 120, (self.n, side, side, 3), dtype=np.uint8)
        self.pixels[np.arange(self.n), self.labels] += 120
        self.recipe = Recipe(epochs=2, batch_size=64, least_batches=0, learning_rate=0.01, flip=True)

    def plan(self, **changes: Any) -> ComputePlan:
        """A plan on this device."""
        return replace(ComputePlan(device=self.device, deterministic=True), **changes)

    def training(
        self,
        plan: ComputePlan,
        build: Callable[[], nn.Module],
        *,
        seed: int = 0,
        notes: list[str] | None = None,
        **of: Any,
    ) -> Training:
        """A training of a fresh network on all images."""
        torch.manual_seed(seed)
        network = plan.placed(build())
        source = ImageBatches(DeviceImages(self.pixels, plan), Scaling((0.5,) * 3, (0.25,) * 3))
        recipe = replace(self.recipe, **of)
        note = _refuse if notes is None else notes.append
        return Training([network], source, np.arange(self.n), self.labels, recipe, seed=seed, note=note)

    def answer(self, training: Training) -> np.ndarray:
        """Probabilities of all images."""
        source = ImageBatches(DeviceImages(self.pixels, self.plan()), Scaling((0.5,) * 3, (0.25,) * 3))
        return predict(training.networks, source, np.arange(self.n))


def _refuse(sentence: str) -> None:
    raise AssertionError(sentence)


def _differ(a: np.ndarray, b: np.ndarray, most: float) -> str:
    by = float(np.abs(np.asarray(a) - np.asarray(b)).max())
    assert by <= most, f"differ by {by:.2g}, at most {most:.2g}"
    return f"differ by {by:.2g}"


def small() -> nn.Module:
    """The preset's network."""
    return SmallNet(K, 3)


class Dropped(nn.Module):
    """The preset's network behind dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.network = nn.Dropout2d(0.2), small()

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.network(self.dropout(images))
        return out


class Looking(nn.Module):
    """Waits for the device in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small()

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.network(-images if bool(images.mean() > 9) else images)
        return out


def _captured_is_eager(build: Callable[[], nn.Module], optimizer: str, **plan: object) -> Check:
    def run(card: Card) -> str:
        answers = []
        for captured in (False, True):
            training = card.training(card.plan(captured=captured, **plan), build, optimizer=optimizer)
            fit(training)
            answers.append(card.answer(training))
        return _differ(*answers, ROUNDING[str(plan.get("dtype", "float32"))])

    return run


for _optimizer in ("sgd", "adam", "adamw"):
    check(f"captured = eager, small, {_optimizer}, float32")(_captured_is_eager(small, _optimizer))
check("captured = eager, small, sgd, bfloat16")(_captured_is_eager(small, "sgd", dtype="bfloat16", channels_last=True))
check("captured = eager, resnet32, adam, float32")(_captured_is_eager(lambda: CifarResNet(K, 3), "adam"))


@check("5 side by side = each alone, captured")
def _beside(card: Card) -> str:
    plan = card.plan(captured=True)
    alone = [card.training(plan, small, seed=seed) for seed in range(5)]
    for training in alone:
        fit(training)
    together = [card.training(plan, small, seed=seed) for seed in range(5)]
    for _ in range(card.recipe.epochs):
        run_together(together)
    a, b = (np.stack([card.answer(training) for training in each]) for each in (alone, together))
    return _differ(a, b, ROUNDING["float32"])


def _repeats(**plan: object) -> Check:
    def run(card: Card) -> str:
        answers = []
        for _ in range(2):
            training = card.training(card.plan(captured=True, **plan), small)
            fit(training)
            answers.append(card.answer(training))
        same = bool(np.array_equal(*answers))
        if plan.get("deterministic") is False:
            return "the same bits" if same else f"differ by {np.abs(answers[0] - answers[1]).max():.2g} (no promise)"
        assert same, f"differ by {np.abs(answers[0] - answers[1]).max():.2g}"
        return "the same bits"

    return run


check("repeats, float32, deterministic")(_repeats())
check("repeats, float32, not deterministic")(_repeats(deterministic=False))
check("repeats, bfloat16 channels_last, deterministic")(_repeats(dtype="bfloat16", channels_last=True))
check("repeats, bfloat16 channels_last, not deterministic")(
    _repeats(dtype="bfloat16", channels_last=True, deterministic=False)
)


@check("dropout: captured, told apart, repeats, differs between steps")
def _dropout(card: Card) -> str:
    answers, losses = [], []
    for _ in range(2):
        training = card.training(card.plan(captured=True), Dropped)
        fit(training, lambda report: losses.append(report.loss))
        assert training.is_random, "not told"
        answers.append(card.answer(training))
    assert np.array_equal(*answers), "does not repeat"
    assert losses[0] != losses[1]
    eager = card.training(card.plan(), Dropped)
    fit(eager)
    return f"eager differs by {np.abs(card.answer(eager) - answers[0]).max():.2g}"


@check("a network that waits for the device: told, unchanged, trained in eager steps")
def _waits(card: Card) -> str:
    notes: list[str] = []
    training = card.training(card.plan(captured=True), Looking, notes=notes)
    before = {name: value.clone() for name, value in training.networks[0].state_dict().items()}
    assert not training.begin(), "was captured"
    after = training.networks[0].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), "was changed"
    fit(training)
    fine = card.training(card.plan(captured=True), small)
    fit(fine)  # the card still captures
    return notes[0][:90]


@check("resumed in captured steps from a state of eager ones")
def _resumed(card: Card) -> str:
    whole = card.training(card.plan(), small, optimizer="adam")
    fit(whole)
    first = card.training(card.plan(), small, optimizer="adam")
    first.run_epoch()
    second = card.training(card.plan(captured=True), small, seed=0, optimizer="adam")
    second.load_state_dict(first.state_dict())
    fit(second)
    return _differ(card.answer(whole), card.answer(second), ROUNDING["float32"])


@check("co-teaching: captured = eager, history too")
def _coteaching(card: Card) -> str:
    answers, kept = [], []
    half = card.n // 2
    curriculum = Curriculum(np.arange(half), np.arange(half, card.n), 0.3, 0.4, warmup=1, ramp=2)
    for captured in (False, True):
        plan = card.plan(captured=captured)
        networks = []
        for seed in range(2):
            torch.manual_seed(seed)
            networks.append(plan.placed(small()))
        source = ImageBatches(DeviceImages(card.pixels, plan), Scaling((0.5,) * 3, (0.25,) * 3))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            training = CoTraining(networks, source, card.labels[curriculum.rows], curriculum, card.recipe, seed=1)
            while training.epoch < card.recipe.epochs:
                training.run_epoch()
        answers.append(predict(networks, source, np.arange(card.n)))
        kept.append([epoch.loss_kept for epoch in training.history])
    assert np.allclose(*kept, rtol=0.02), f"mean losses kept: {kept}"
    return _differ(*answers, ROUNDING["float32"])


def _heads(head: str, overlap: bool) -> Check:
    def run(card: Card) -> str:
        rng = np.random.default_rng(1)
        labels = rng.integers(0, K, 3000)
        features = (rng.normal(size=(K, 64))[labels] + rng.normal(size=(3000, 64))).astype(np.float32)
        every = np.arange(3000)
        parts = [every[every % 3 != k] if overlap else every[every % 3 == k] for k in range(3)]
        folds = [Fold(part, labels[part], every[::10], seed) for seed, part in enumerate(parts)]
        answers = []
        for captured in (False, True):
            trainer = HeadTrainer(
                features,
                K,
                head,
                device=card.device,
                captured=captured,
                note=_refuse,
            )
            answers.append(np.stack([np.asarray(a) for a in trainer.fit_predict_many(folds)]))
        return _differ(*answers, 5e-3)

    return run


check("linear heads: captured = eager")(_heads("linear", True))
check("mlp heads: captured = eager")(_heads("mlp", True))
check("mlp heads with little in common: captured = eager")(_heads("mlp", False))


@check("heads whose features do not fit are read ahead")
def _read_ahead(card: Card) -> str:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(3000, 64)).astype(np.float32), rng.integers(0, K, 3000)
    fold = Fold(np.arange(2000), labels[:2000], np.arange(2000, 3000), 0)
    here = HeadTrainer(features, K, device=card.device, captured=False).fit_predict(*fold)
    fits = rows.fits
    rows.fits = lambda size, device: False
    try:
        read = HeadTrainer(features, K, device=card.device, note=_refuse)
        assert read._rows.resident is None
    finally:
        rows.fits = fits
    return _differ(here, read.fit_predict(*fold), 5e-3)


@check("features and predictions are those of the CPU")
def _as_on_the_cpu(card: Card) -> str:
    torch.manual_seed(0)
    network = CifarResNet(K, 3, n=1).eval()
    found, answers = [], []
    for device in ("cpu", card.device):
        backbone = Backbone(
            name="check",
            network=copy.deepcopy(network),
            digest="",
            size=32,
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            interpolation="bilinear",
            trainable=True,
        )
        extractor = Extractor(backbone, card.pixels, torch.device(device))
        extractor.batch_size = 50
        found.append(np.concatenate(list(extractor.features(0, card.n))).astype(np.float32))
        plan = ComputePlan(device=device)
        source = ImageBatches(DeviceImages(card.pixels, plan), Scaling((0.5,) * 3, (0.25,) * 3))
        placed = [plan.placed(copy.deepcopy(network))]
        answers.append(predict(placed, source, np.arange(card.n), mirror=True, batch_size=64))
    scale = float(np.abs(found[0]).max())
    return _differ(found[0] / scale, found[1] / scale, 3e-2) + ", " + _differ(*answers, ROUNDING["float32"])


@check("memory that runs out: fewer side by side, then smaller batches, then an answer")
def _memory(card: Card) -> str:
    if not card.device.startswith("cuda"):
        return "only on a card"
    notes: list[str] = []
    recipe = replace(card.recipe, epochs=1, batch_size=card.n)
    trainer = TorchTrainer(card.pixels, K, recipe, plan=card.plan(captured=True, side_by_side=4), note=notes.append)
    half = card.n // 2
    folds = [Fold(np.arange(half), card.labels[:half], np.arange(half, card.n), seed) for seed in range(4)]
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(card.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 250 * 2**20) / total))
    try:
        answers = dict(trainer.fit_predict_each(folds))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(answers) == 4
    return "; ".join(notes) or "it did not run out"


@check("a probed plan on this device")
def _probe(card: Card) -> str:
    trainer = TorchTrainer(card.pixels, K, device=card.device, note=_refuse)
    plan = trainer.plan
    if card.device.startswith("cuda"):
        assert plan.captured, f"not captured: {plan.reason}; {plan.measured}"
    return f"{plan.reason}; " + ", ".join(f"{name} {speed:,.0f}/s" for name, speed in plan.measured.items())


def run_checks(device: str, quick: bool) -> list[tuple[str, bool, str, float]]:
    """Run all checks, printing each; return name, whether it holds, a figure or what is wrong, and seconds."""
    card, results = Card(device, quick), []
    for name, function in CHECKS:
        began = time.perf_counter()
        try:
            holds, what = True, function(card)
        except Exception as error:
            holds, what = False, f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
            if not isinstance(error, AssertionError):
                traceback.print_exc()
        took = time.perf_counter() - began
        results.append((name, holds, what, took))
        print(f"{'ok  ' if holds else 'FAIL'} {took:5.1f} s  {name}: {what}", flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="few images")
    options = parser.parse_args(arguments)
    results = run_checks(options.device, options.quick)
    failed = [name for name, holds, _, _ in results if not holds]
    print(f"FIGURE checks that hold = {len(results) - len(failed)} of {len(results)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
