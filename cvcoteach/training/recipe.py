"""How a network is trained: recipes, and the published one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from cvcoteach._validation import InputError, check_at_least, near

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("one-cycle", "piecewise", "constant")
_SMALLEST_BATCH = 32


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    model: str = "small"
    """"small", "resnet32", a name of torchvision's, "package.module:function", or "backbone:" and the name of one."""
    weights: str | None = None
    """"default" (published ones), "none", a file; None: published ones where there are any."""
    epochs: int = 10
    batch_size: int = 125
    """Of few images, smaller: see `batch_of`."""
    least_batches: int = 14
    """An epoch's batches are made smaller, down to 32 images, to be so many; 0: all are of `batch_size`."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """"sgd" has Nesterov momentum 0.9."""
    learning_rate: float = 0.1
    """The largest of the schedule."""
    body_rate: float = 1.0
    """Of all layers but the last, the learning rate times this, in (0, 1]: pretrained weights want to move less."""
    schedule: Literal["one-cycle", "piecewise", "constant"] = "one-cycle"
    """"one-cycle": linearly up during `warmup`, then linearly down to 0; "piecewise": by `milestones`."""
    warmup: float = 0.25
    """Share of the training in which "one-cycle" rises, in [0, 1)."""
    milestones: tuple[tuple[int, float], ...] = ()
    """(epoch, factor): from the end of that epoch on, the learning rate is multiplied by that factor."""
    weight_decay: float = 5e-4
    """Of weights with two dimensions or more; gains and biases are free."""
    shift: int = 3
    """Random shift, pixels each way; at most an eighth of the image, 4 of 32 pixels as in the paper."""
    flip: bool | None = None
    """Random mirroring; None: colour images only, since mirrored digits and letters are others."""
    tta: bool = True
    """Whether a prediction is the mean over an image and its mirror image, where training mirrors."""
    patience: int | None = None
    """Epochs without a better loss on held-back training images before training stops; None: never."""
    held_back: float = 0.1
    """Share of the training images that `patience` looks at and that are not trained on, in (0, 1)."""

    def __post_init__(self) -> None:
        check_at_least("epochs", self.epochs, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("least_batches", self.least_batches, 0)
        check_at_least("weight_decay", self.weight_decay, 0)
        check_at_least("shift", self.shift, 0)
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer is {self.optimizer!r}; {near(self.optimizer, OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule is {self.schedule!r}; {near(self.schedule, SCHEDULES)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; it takes a number above 0.")
        if not 0 < self.body_rate <= 1:
            raise InputError(f"body_rate is {self.body_rate}; it is a factor in (0, 1].")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is {self.warmup}; it is a share of the training, in [0, 1).")
        if self.patience is not None:
            check_at_least("patience", self.patience, 1)
        if not 0 < self.held_back < 1:
            raise InputError(f"held_back is {self.held_back}; it is a share of the training images, in (0, 1).")

    def batch_of(self, n: int) -> int:
        """Images in a batch where n are trained on: a few hundred images in one batch would make hardly any steps."""
        few = max(_SMALLEST_BATCH, n // self.least_batches) if self.least_batches else self.batch_size
        return min(self.batch_size, few)

    def for_channels(self, channels: int) -> Recipe:
        """The recipe with `flip` decided for images of so many channels."""
        return self if self.flip is not None else replace(self, flip=channels == 3)


PRESETS = {
    "fast": Recipe(),
    # Chen et al. 2019, CIFAR-10: to the letter
    "paper": Recipe(
        model="resnet32",
        epochs=50,
        batch_size=128,
        least_batches=0,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="piecewise",
        milestones=((20, 0.5), (30, 0.25), (40, 0.1)),
        weight_decay=0.0,
        shift=4,
        flip=True,
        tta=False,
    ),
}

FINETUNE = Recipe(
    epochs=5,
    batch_size=64,
    optimizer="adamw",
    learning_rate=1e-3,
    body_rate=0.1,
    warmup=0.1,
    weight_decay=0.01,
    shift=8,
)
"""For `--finetune`: a few epochs in which a pretrained body moves a tenth as fast as its fresh last layer."""


def learning_rate_at(recipe: Recipe, progress: float) -> float:
    """The learning rate after `progress` epochs, a fraction within an epoch."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "piecewise":
        factors = [factor for epoch, factor in recipe.milestones if progress >= epoch]
        return recipe.learning_rate * (factors[-1] if factors else 1.0)
    share, up = progress / recipe.epochs, recipe.warmup
    return recipe.learning_rate * (share / up if share < up else (1 - share) / (1 - up))


def shift_for(recipe: Recipe, height: int, width: int) -> int:
    """The largest random shift of images of that size, pixels."""
    return min(recipe.shift, height // 8, width // 8)
