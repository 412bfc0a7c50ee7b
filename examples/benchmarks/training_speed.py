"""How much of a network's bare speed a whole fold keeps: data, augmentation, optimiser and bookkeeping included.

    python examples/benchmarks/training_speed.py [--model small] [--device cpu] [--threads 2] [--images 10000]

A fold's training and the same network's forward and backward pass on one batch that lies ready take turns
(A B A B …) in one process; the ratio is taken turn by turn, so that whatever else the machine does hits both sides.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from tables import markdown, publish
from torch.nn import functional

from cvcoteach.training.batches import DeviceImages, ImageBatches
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import set_threads
from cvcoteach.training.loop import Training
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.normalisation import scaling_of
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.torch_trainer import TorchTrainer

N_CLASSES = 10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="fast")
    parser.add_argument("--model", help="any that find-issues takes; default: the preset's")
    parser.add_argument("--device", help="default: the best there is")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000, help="in the fold")
    parser.add_argument("--size", type=int, help="pixels; default: 32, or what the model was made for")
    parser.add_argument("--batch-size", type=int, help="default: the preset's")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()

    recipe = PRESETS[options.preset]
    if options.model:
        recipe = replace(recipe, model=ModelSpec.parse(options.model, "none"))
    if options.batch_size:
        recipe = replace(recipe, batch_size=options.batch_size)
    recipe = replace(recipe, epochs=options.turns, schedule="constant").for_channels(3)
    size = options.size or ModelFactory(recipe.model).preprocessing.size or 32

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (options.images, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, N_CLASSES, options.images)
    trainer = TorchTrainer(pixels, N_CLASSES, recipe, device=options.device, threads=options.threads)
    plan = trainer.plan
    batch_size = recipe.batch_of(options.images)
    print(f"{recipe.model}, {options.images:,} images of {size} px, batches of {batch_size}, {plan.reason}")
    print(f"{plan.device}, {plan.threads} threads, load before {os.getloadavg()[0]:.1f}")
    print(f"{'turn':>4} {'fold':>9} {'bare':>9}  images a second")

    fold, bare = [], []
    training, batch, targets = _prepared(pixels, labels, recipe, plan)
    step = _Bare(recipe, plan, batch, targets)
    training.run_epoch()  # warm
    step.images_per_second(3)
    for turn in range(options.turns - 1):
        fold.append(training.run_epoch().images_per_second)
        bare.append(step.images_per_second(max(1, options.images // len(batch))))
        print(f"{turn + 1:>4} {fold[-1]:>9.0f} {bare[-1]:>9.0f}")
    ratio = statistics.median(whole / alone for whole, alone in zip(fold, bare, strict=True))
    rows = [[statistics.median(fold), statistics.median(bare), ratio]]
    header = ["a fold's training, images a second", "the bare network", "ratio, median of the turns"]
    where = f"{recipe.model}, {plan.device}, {plan.threads} threads, {plan.dtype}, batches of {batch_size}.\n\n"
    publish("training-speed", where + markdown(header, rows))


def _prepared(
    pixels: np.ndarray, labels: np.ndarray, recipe: Recipe, plan: ComputePlan
) -> tuple[Training, torch.Tensor, torch.Tensor]:
    """The training of a fold as TorchTrainer does it, and one batch on the device."""
    set_threads(plan.threads)
    rows = np.arange(len(pixels))
    source = ImageBatches(DeviceImages(pixels, plan), scaling_of(pixels, rows))
    network = plan.placed(ModelFactory(recipe.model).build(N_CLASSES, 3))
    training = Training([network], source, rows, labels, recipe, seed=0)
    first = rows[: recipe.batch_of(len(rows))]
    return training, next(source.for_prediction([first])), torch.from_numpy(labels[first]).to(plan.torch_device)


class _Bare:
    """The same network, forward and backward on one batch that lies ready, and nothing else."""

    def __init__(self, recipe: Recipe, plan: ComputePlan, batch: torch.Tensor, targets: torch.Tensor) -> None:
        self.network = plan.placed(ModelFactory(recipe.model).build(N_CLASSES, 3)).train()
        self.plan, self.batch, self.targets = plan, batch, targets

    def images_per_second(self, n_batches: int) -> float:
        self._wait()
        began = time.perf_counter()
        for _ in range(n_batches):
            with self.plan.autocast():
                out = self.network(self.batch)
            functional.cross_entropy(out.float(), self.targets).backward()
            self.network.zero_grad(set_to_none=True)
        self._wait()
        return n_batches * len(self.batch) / (time.perf_counter() - began)

    def _wait(self) -> None:
        if self.plan.torch_device.type == "cuda":
            torch.cuda.synchronize(self.plan.torch_device)
        elif self.plan.torch_device.type == "mps":
            torch.mps.synchronize()


if __name__ == "__main__":
    main()
