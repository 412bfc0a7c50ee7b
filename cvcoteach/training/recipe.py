"""Recipes: how a network is trained, whichever network it is."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from cvcoteach._validation import InputError, as_count, check_at_least, check_number, near
from cvcoteach.training.model_spec import ModelSpec

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("one-cycle", "piecewise", "constant")
_SMALLEST_BATCH = 32


_MOST_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """A recipe: how a network is trained."""

    model: ModelSpec = field(default=ModelSpec("own", "small"))
    """The network and the weights that it starts from."""
    epochs: int = 10
    """Passes over the training images, at least 1."""
    batch_size: int = 125
    """Images per batch, at least 1; smaller for few images, see `batch_of`."""
    least_batches: int = 14
    """Batches per epoch, for which batches shrink to 32 images at least; 0: all batches have `batch_size`."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    """"sgd" has Nesterov momentum 0.9."""
    learning_rate: float = 0.1
    """Peak learning rate, above 0."""
    body_rate: float = 1.0
    """Factor in (0, 1] of the learning rate for all layers but the last: pretrained weights should move less."""
    schedule: Literal["one-cycle", "piecewise", "constant"] = "one-cycle"
    """"one-cycle": linearly up during `warmup`, then linearly down to 0; "piecewise": by `milestones`."""
    warmup: float = 0.25
    """Share of the training during which "one-cycle" rises, in [0, 1)."""
    milestones: tuple[tuple[int, float], ...] = ()
    """(epoch, factor): from the end of that epoch on, the peak learning rate is multiplied by that factor."""
    weight_decay: float = 5e-4
    """At least 0, for weights with two dimensions or more; gains and biases have none."""
    shift: int = 3
    """Random shift, pixels each way; at most an eighth of the image (4 of 32 pixels, as in the paper)."""
    flip: bool | None = None
    """Random mirroring; None: colour images only, since mirrored digits and letters are different ones."""
    hidden: float = 0.0
    """Share in [0, 1) of the features that are hidden at random from heads while they learn."""
    tta: bool = True
    """Test-time augmentation: whether to average over an image and its mirror image, if training mirrors."""
    patience: int | None = None
    """Stop after this many epochs without improvement on held-out training images; None: never stop early."""
    held_back: float = 0.1
    """Share in (0, 1) of the training images that `patience` is measured on and that are not trained on."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, ModelSpec):
            raise InputError(f"model is {self.model!r}; it takes a ModelSpec, such as ModelSpec.parse('small').")
        for name, least in (("epochs", 1), ("batch_size", 1), ("least_batches", 0), ("shift", 0)):
            object.__setattr__(self, name, as_count(name, getattr(self, name), least))
        if self.epochs > _MOST_EPOCHS:
            raise InputError(f"epochs is {self.epochs:,}; it takes up to {_MOST_EPOCHS:,}.")
        check_at_least("weight_decay", self.weight_decay, 0)
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer is {self.optimizer!r}; {near(self.optimizer, OPTIMIZERS)}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule is {self.schedule!r}; {near(self.schedule, SCHEDULES)}")
        check_number("learning_rate", self.learning_rate)
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; it takes a number above 0.")
        if not 0 < self.body_rate <= 1:
            raise InputError(f"body_rate is {self.body_rate}; it is a factor in (0, 1].")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is {self.warmup}; it is a share of the training, in [0, 1).")
        if self.patience is not None:
            object.__setattr__(self, "patience", as_count("patience", self.patience, 1))
        if not 0 <= self.hidden < 1:
            raise InputError(f"hidden is {self.hidden}; it is a share of the features, in [0, 1).")
        if not 0 < self.held_back < 1:
            raise InputError(f"held_back is {self.held_back}; it is a share of the training images, in (0, 1).")

    def batch_of(self, n: int) -> int:
        """Return the batch size for n training images: large batches of few images would make hardly any steps."""
        few = max(_SMALLEST_BATCH, n // self.least_batches) if self.least_batches else self.batch_size
        return min(self.batch_size, few)

    def for_channels(self, channels: int) -> Recipe:
        """Return the recipe with `flip` decided for images of so many channels."""
        return self if self.flip is not None else replace(self, flip=channels == 3)

    @property
    def mirrors_predictions(self) -> bool:
        """Whether predictions are averaged over an image and its mirror image."""
        return self.tta and bool(self.flip)

    def as_record(self) -> dict[str, Any]:
        """Return the recipe as plain values for run.json and model.json; the model as its text and its weights."""
        record = {"model": str(self.model), "weights": self.model.weights} | {
            name: value for name, value in asdict(self).items() if name != "model"
        }
        if not self.hidden:
            del record["hidden"]  # as in records of earlier versions, which are compared with these
        return record


def learning_rate_at(recipe: Recipe, progress: float) -> float:
    """Return the learning rate after `progress` epochs, which may be a fraction."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "piecewise":
        factors = [factor for epoch, factor in recipe.milestones if progress >= epoch]
        return recipe.learning_rate * (factors[-1] if factors else 1.0)
    share, up = progress / recipe.epochs, recipe.warmup
    return recipe.learning_rate * (share / up if share < up else (1 - share) / (1 - up))


def shift_for(recipe: Recipe, height: int, width: int) -> int:
    """Return the largest random shift for images of that size, pixels."""
    return min(recipe.shift, height // 8, width // 8)
