"""Optimisers as recipes describe them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.pretrained import last_layer
from cvcoteach.training.recipe import Recipe


def portable(state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state with learning rates that are plain numbers, wherever it was made."""
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
    return state


def optimizer_for(networks: Sequence[nn.Module], recipe: Recipe, plan: ComputePlan) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of these networks; each group of weights has its factor of the rate, `scale`."""
    # a fused SGD whose first step the scaler skips would continue with momentum from uninitialised memory
    fused = plan.dtype != "float16"
    trained = [p for network in networks for p in network.parameters() if p.requires_grad]
    heads = {p for network in networks for p in last_layer(network)[1].parameters()} if recipe.body_rate < 1 else set()
    groups = [
        {
            "params": [p for p in trained if (p.ndim >= 2) == is_matrix and (p in heads) == is_head],
            "weight_decay": recipe.weight_decay if is_matrix else 0.0,
            "scale": 1.0 if is_head or recipe.body_rate == 1 else recipe.body_rate,
        }
        for is_head in ([False, True] if heads else [False])
        for is_matrix in (True, False)
    ]
    rate = recipe.learning_rate
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=fused)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, fused=fused)
