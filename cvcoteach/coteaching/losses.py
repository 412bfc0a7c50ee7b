"""The exchange of Co-teaching: each network is trained on what its peer finds easy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cvcoteach.training.loop import Batch


def n_kept(n: int, rate: float) -> int:
    """Return how many of a batch of n that is: rounded down, but at least one, since an empty mean is not a number."""
    return max(1, math.floor(n * rate + 1e-9))


def coteaching_losses(
    losses_a: Tensor, losses_b: Tensor, n_keep: int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the mean loss of each network over the `n_keep` samples that are easiest for its peer, () each.

    Args:
        losses_a: (b,) per sample, of the first network.
        losses_b: (b,) per sample, of the second network.
        n_keep: Samples kept, in 1..b; the mean is divided by this number.
        weights: (b,) in [0, 1], of the losses in the mean; they do not change which samples are easy. None: all 1.

    References:
        Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels", NeurIPS 2018.
    """
    easy_for_a, easy_for_b = easiest(losses_a, n_keep), easiest(losses_b, n_keep)
    if weights is not None:
        losses_a, losses_b = losses_a * weights, losses_b * weights
    return losses_a[easy_for_b].mean(), losses_b[easy_for_a].mean()


def coteaching_losses_by_rank(
    losses_a: Tensor, losses_b: Tensor, n_keep: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Do what `coteaching_losses` does, by operations of fixed shapes. n_keep: (), a number on the losses' device."""
    easy_for_a, easy_for_b = (_ranks(each) < n_keep for each in (losses_a, losses_b))
    if weights is not None:
        losses_a, losses_b = losses_a * weights, losses_b * weights
    # a left-out loss of infinity must not become a sum that is not a number
    return (
        losses_a.masked_fill(~easy_for_b, 0).sum() / n_keep,
        losses_b.masked_fill(~easy_for_a, 0).sum() / n_keep,
    )


def _ranks(losses: Tensor) -> Tensor:
    """Return the rank (b,) of each loss, 0 for the smallest."""
    order = losses.detach().argsort()
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def easiest(losses: Tensor, n_keep: int) -> Tensor:
    """Return the positions (n_keep,) of the smallest losses."""
    return losses.detach().topk(n_keep, largest=False, sorted=False).indices


class Exchange:
    """The losses of Co-teaching as `Training` needs them, with a record of what was kept.

    A loss of NaN is never among the smallest ones, so it is added to what is returned: training must stop there.
    Once an epoch is fixed (`FixedLosses`), a batch is not cut by its keep count but masked by it.
    """

    def __init__(self, rate: Callable[[int], float], weights: Tensor | None = None) -> None:
        """Take the keep rate and the weights.

        Args:
            rate: Epoch, from 0 -> R(e), in (0, 1].
            weights: (m,) in [0, 1], of the loss of each row; None: all 1.
        """
        self.rate, self._weights = rate, weights
        self._sums: Tensor | None = None
        self._images = self._kept = 0
        self._keep: dict[int, Tensor] = {}

    def fix(self, epoch: int, sizes: Sequence[int], device: torch.device) -> None:
        """Put the epoch's keep counts into tensors, and begin its record anew."""
        for size in sorted(set(sizes)):
            count = self._keep.setdefault(size, torch.zeros((), device=device))
            count.fill_(n_kept(size, self.rate(epoch)))
        if self._sums is None:
            self._sums = torch.zeros(3, device=device)
        self._sums.zero_()
        self._images, self._kept = sum(sizes), sum(n_kept(size, self.rate(epoch)) for size in sizes)

    def unfix(self) -> None:
        """Cut batches again, and begin the record anew."""
        self._keep.clear()
        self._sums, self._images, self._kept = None, 0, 0

    def __call__(self, logits: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of each network on what its peer finds easy, () each."""
        a, b = (functional.cross_entropy(each, batch.targets, reduction="none") for each in logits)
        if self._keep:
            return self._fixed(logits, a, b, batch.rows)
        n_keep = n_kept(len(batch.rows), self.rate(batch.epoch))
        weights = None if self._weights is None else self._weights[batch.rows]
        for_a, for_b = coteaching_losses(a, b, n_keep, weights)
        broken = torch.where((a + b).detach().isfinite(), 0.0, math.nan).sum()
        for_a, for_b = for_a + broken, for_b + broken
        with torch.no_grad():
            kept_a, kept_b = (for_a, for_b) if weights is None else coteaching_losses(a, b, n_keep)
            kept = n_keep * (kept_a + kept_b)
            left_out = a.sum() + b.sum() - kept
            agreed = (logits[0].argmax(dim=1) == logits[1].argmax(dim=1)).sum().float()
            sums = torch.stack([kept, left_out, agreed])
            # stays on the device: reading it in every batch would make a GPU wait
            self._sums = sums if self._sums is None else self._sums + sums
        self._images += len(batch.rows)
        self._kept += n_keep
        return for_a, for_b

    def _fixed(self, logits: Sequence[Tensor], a: Tensor, b: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        assert self._sums is not None
        n_keep = self._keep[len(rows)]
        weights = None if self._weights is None else self._weights[rows]
        for_a, for_b = coteaching_losses_by_rank(a, b, n_keep, weights)
        broken = ((a + b).detach() * 0).sum()  # 0, or not a number where a loss is not finite
        for_a, for_b = for_a + broken, for_b + broken
        with torch.no_grad():
            kept_a, kept_b = (for_a, for_b) if weights is None else coteaching_losses_by_rank(a, b, n_keep)
            kept = n_keep * (kept_a + kept_b)
            agreed = (logits[0].argmax(dim=1) == logits[1].argmax(dim=1)).sum().float()
            self._sums += torch.stack([kept, a.sum() + b.sum() - kept, agreed])
        return for_a, for_b

    def take_record(self) -> tuple[float, float, float, int]:
        """Return mean loss kept, mean loss left out, agreement and number of images since the last call."""
        assert self._sums is not None
        kept, left_out, agreed = self._sums.tolist()
        images, n_left_out = self._images, self._images - self._kept
        record = (
            kept / (2 * self._kept),
            max(0.0, left_out) / (2 * n_left_out) if n_left_out else math.nan,
            agreed / images,
            images,
        )
        if not self._keep:
            self._sums, self._images, self._kept = None, 0, 0
        return record
