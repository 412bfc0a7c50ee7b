"""Heads on features side by side: their weights, their losses, their learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_WARMUP = 0.05


@dataclass(frozen=True, eq=False)
class Heads:
    """The weights of H heads side by side."""

    weight: Tensor
    """(d, H·(K + hidden)): each head's linear part, then its first hidden layer."""
    bias: Tensor
    """(H·(K + hidden),)"""
    out: Tensor
    """(H, hidden, K), from the hidden layer to the logits."""

    @classmethod
    def fresh(cls, d: int, n_classes: int, hidden: int, seeds: Sequence[int], device: torch.device) -> Heads:
        weight = torch.zeros(d, len(seeds), n_classes + hidden)
        if hidden:
            for head, seed in enumerate(seeds):
                drawn = torch.randn(d, hidden, generator=torch.Generator().manual_seed(seed))
                weight[:, head, n_classes:] = drawn / math.sqrt(d)
        bias, out = torch.zeros(len(seeds) * (n_classes + hidden)), torch.zeros(len(seeds), hidden, n_classes)
        return cls(*(each.to(device).requires_grad_() for each in (weight.flatten(1), bias, out)))

    def only(self, head: int) -> Heads:
        """Return one of the heads."""
        h = len(self.out)
        weight = self.weight.view(len(self.weight), h, -1)[:, head].contiguous()
        return Heads(weight, self.bias.view(h, -1)[head], self.out[head : head + 1])

    def logits(self, x: Tensor) -> Tensor:
        """Return logits (b, H, K) of a batch (b, d) for all heads, or of each head's own rows (H, b, d)."""
        h, hidden, k = self.out.shape
        if x.ndim == 2:
            z = torch.addmm(self.bias, x, self.weight).view(len(x), h, k + hidden)
        else:
            weight = self.weight.view(-1, h, k + hidden).transpose(0, 1)
            z = torch.baddbmm(self.bias.view(h, 1, -1), x, weight).transpose(0, 1)
        if not hidden:
            return z
        inner = z[..., k:].relu()
        return z[..., :k] + torch.einsum("bhi,hik->bhk", inner, self.out)

    def optimizer(self, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """Return AdamW with a learning rate of 1/fan-in (`scale`): its steps have the size of the learning rate."""
        d, hidden = len(self.weight), self.out.shape[1]
        groups = [
            {"params": [self.weight], "scale": learning_rate / d, "weight_decay": weight_decay},
            {"params": [self.bias], "scale": learning_rate / d, "weight_decay": 0.0},
        ]
        if hidden:
            groups.append({"params": [self.out], "scale": learning_rate / 32 / hidden, "weight_decay": weight_decay})
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)


def loss_of(heads: Heads, x: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over heads of their mean losses, ().

    Args:
        heads: H heads.
        x: (b, d) rows of all heads, or (H, b, d) of each.
        targets: (b, H) classes; -1 where a row is none of the head's.
    """
    logits = heads.logits(x)
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-1)
    counts = (targets >= 0).sum(dim=0).clamp_min(1)
    return (losses.view_as(targets).sum(dim=0) / counts).sum()


def schedule(progress: float) -> float:
    """Return the factor of the learning rate: up during the first 5 % of the training, then down along a cosine."""
    return min(1.0, (progress + 1e-3) / _WARMUP) * (1 + math.cos(math.pi * progress)) / 2


def own_rows(x: Tensor, targets: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Pick each head's own rows of a batch: x (b, d) -> (H, b', d), and targets (b, H), -1 for none, -> (b', H).

    If training parts overlap little, computing an MLP's first layer for other heads' rows costs more than this copy.
    """
    not_mine = targets < 0
    own = not_mine.int().argsort(dim=0, stable=True)[:most]
    return x[own.T], targets.gather(0, own)
