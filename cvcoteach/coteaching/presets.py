"""Recipes of Co-teaching by name: for images `fast` and the published `paper`, and the one for features."""

from __future__ import annotations

from dataclasses import replace

from cvcoteach.training.presets import PRESETS
from cvcoteach.training.recipe import Recipe

COTEACHING_PRESETS = {
    "fast": PRESETS["fast"],
    # Chen et al. 2019, Co-teaching on CIFAR-10: 200 epochs; the rates are those of the Keras example that they built on
    "paper": replace(PRESETS["paper"], epochs=200, milestones=((80, 1e-1), (120, 1e-2), (160, 1e-3), (180, 5e-4))),
}
HEAD_RECIPE = Recipe(
    epochs=12, batch_size=128, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2, shift=0, flip=False, tta=False
)
"""For heads with one hidden layer on features."""
SOFT_HEAD_RECIPE = replace(HEAD_RECIPE, hidden=0.3)
"""For the same heads where they learn soft labels, which hidden features teach more than hard ones."""
