"""Recipes by name: `fast`, the published `paper`, and the one for fine-tuning."""

from __future__ import annotations

from typing import Literal

from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.recipe import Recipe

Head = Literal["linear", "mlp"]
HEADS: tuple[Head, ...] = ("linear", "mlp")
"""What is trained on features."""

PRESETS = {
    "fast": Recipe(),
    # Chen et al. 2019, CIFAR-10: to the letter
    "paper": Recipe(
        model=ModelSpec("own", "resnet32"),
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
"""Fine-tuning (`--finetune`): a few epochs in which a pretrained body moves a tenth as fast as its new last layer."""
