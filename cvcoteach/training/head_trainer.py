"""Folds on features: linear and MLP heads, all of a round in one computation."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from cvcoteach._validation import InputError, IntArray, PredProbs, check_at_least, near
from cvcoteach.crossval.trainer import Fold
from cvcoteach.training.devices import choose_device, choose_threads, set_threads
from cvcoteach.training.loop import EpochReport, OnEpoch
from cvcoteach.training.rows import Rows, check_shape

HEADS = ("linear", "mlp")
_ORDER_SEED = 0x1C5
_LEAST_STEPS = 80  # fewer leave the probabilities of a small dataset undecided
_WARMUP = 0.05
_CHUNK = 8192  # rows
_USED = 0.9  # from this share on, leaving out the rows that no head trains on costs more than it saves
_OWN = 0.7  # below this share of a batch, an MLP head computes its own rows only


def load_features(path: str | Path) -> npt.NDArray[Any]:
    """Features (n, d) of a .npy file, memory-mapped; nothing is ever unpickled.

    Raises InputError where there is no such file, and where it holds something else.
    """
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; it takes a .npy file of one row of numbers an image.") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no .npy file of numbers ({error}); write one with numpy.save.") from error
    if not isinstance(features, np.ndarray):
        features.close()
        raise InputError(f"{path} holds several arrays; it takes a .npy file of one array, shape (n, d).")
    check_shape(features, str(path))
    return features


class HeadTrainer:
    """Linear or MLP heads on given features: a `BatchFoldTrainer` that trains all heads of a round at once.

    All heads see the same minibatches of features, in one fixed order, each only its own images in them: the logits of
    all heads are one matrix product, an image that is not in a head's training part has no weight in its loss.
    A head's answer depends on its own training part and seed, and on its neighbours by rounding only. The seed
    draws an MLP's first layer; a linear head starts at zero, and nothing about it is drawn.

    Features are standardised with mean and deviation over *all* rows - statistics that hold no label - and long rows
    are shortened. Adam with a learning rate that falls to zero; that each head passes over its
    images a few times only is what keeps it from learning wrong labels by heart.

    Features of up to 1 GiB as float32 lie in memory; larger ones are read batch by batch from where they are.
    """

    def __init__(
        self,
        features: npt.ArrayLike,
        n_classes: int,
        head: Literal["linear", "mlp"] = "linear",
        *,
        epochs: int = 5,
        batch_size: int | None = None,
        learning_rate: float = 1.25,
        weight_decay: float = 0.0,
        hidden: int = 128,
        device: str | None = None,
        threads: int | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        """features: (n, d) finite numbers, an array or a memory map of any float type.

        head: "linear", or "mlp" for a linear head with one hidden layer of `hidden` units beside it.
        epochs: passes over a training part; more where it is so small that they would be under 80 steps.
        batch_size: images of a head in a batch, about; None: twice the root of its training part's size.
        learning_rate: the largest, times d: logits sum d features, so that steps must shrink as 1/d.
        weight_decay: decoupled, as in AdamW.

        Raises InputError for features of another shape or not finite, and for settings that do not fit.
        """
        if head not in HEADS:
            raise InputError(f"head is {head!r}; {near(str(head), HEADS)}")
        check_at_least("n_classes", n_classes, 2)
        check_at_least("epochs", epochs, 1)
        check_at_least("hidden", hidden, 1)
        check_at_least("weight_decay", weight_decay, 0)
        if batch_size is not None:
            check_at_least("batch_size", batch_size, 1)
        if not 0 < learning_rate < math.inf:
            raise InputError(f"learning_rate is {learning_rate}; it takes a number above 0.")
        self._n_classes = n_classes
        self._hidden = hidden if head == "mlp" else 0
        self._epochs, self._batch_size = epochs, batch_size
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._threads = choose_threads(threads)
        self._on_epoch = on_epoch
        self._rows = Rows(np.asanyarray(features), choose_device(device))

    @property
    def n_images(self) -> int:
        """How many images there are features of."""
        return self._rows.n

    @property
    def resident_bytes(self) -> int:
        """Memory that the features take on the device; 0 where they are read batch by batch."""
        return 0 if self._rows.resident is None else self._rows.resident.nbytes

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Train afresh on `train_idx` with `train_labels` (m,), give the probabilities of `eval_idx`: (e, K).

        Raises InputError for an index without a row of features.
        """
        return self.fit_predict_many([Fold(train_idx, train_labels, eval_idx, seed)])[0]

    def fit_predict_many(self, folds: Sequence[Fold]) -> list[PredProbs]:
        """As `fit_predict`, one answer a fold, all trained together."""
        set_threads(self._threads)
        for fold in folds:
            self._rows.check(fold.train_idx)
            self._rows.check(fold.eval_idx)
        # heads share batches where their training parts are of about the same size; the others train among themselves
        groups: dict[int, list[int]] = {}
        for i, fold in enumerate(folds):
            groups.setdefault(self._n_batches(len(fold.train_idx)), []).append(i)
        answers: dict[int, PredProbs] = {}
        for n_batches, members in groups.items():
            heads = self._train([folds[i] for i in members], n_batches)
            for place, i in enumerate(members):
                answers[i] = self._predict(heads.only(place), folds[i].eval_idx)
        return [answers[i] for i in range(len(folds))]

    def _n_batches(self, n_train: int) -> int:
        """Batches an epoch for a head of its own: a power of two, so that heads of nearly the same size share them."""
        size = self._batch_size or 2 * math.sqrt(n_train)
        return int(2 ** max(0, round(math.log2(max(n_train, 1) / size))))

    def _train(self, folds: Sequence[Fold], n_batches: int) -> _Heads:
        rows, n, device = self._rows, self._rows.n, self._rows.device
        heads = _Heads.fresh(rows.d, self._n_classes, self._hidden, [fold.seed for fold in folds], device)
        labels, used = self._labels(folds)
        bounds = torch.linspace(0, n, n_batches + 1).round().long()
        starts = torch.searchsorted(used, bounds).tolist()
        n_epochs = max(self._epochs, math.ceil(_LEAST_STEPS / n_batches))
        optimizer = heads.optimizer(self._learning_rate, self._weight_decay)
        rates = [group["lr"] for group in optimizer.param_groups]
        order = torch.Generator().manual_seed(_ORDER_SEED)
        n_images = sum(len(fold.train_idx) for fold in folds)
        own_rows = self._hidden > 0 and n_images < _OWN * len(folds) * len(used)
        for epoch in range(n_epochs):
            began, total = time.perf_counter(), torch.zeros((), device=device)
            for step, batch in enumerate(torch.randperm(n_batches, generator=order).tolist()):
                positions = used[starts[batch] : starts[batch + 1]]
                factor = _schedule((epoch + step / n_batches) / n_epochs)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
                x, targets = rows.at(positions), labels[positions].to(device, torch.int64)
                if own_rows:
                    x, targets = _own_rows(x, targets)
                logits = heads.logits(x)
                losses = functional.cross_entropy(
                    logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-1
                )
                counts = (targets >= 0).sum(dim=0).clamp_min(1)
                loss = (losses.view_as(targets).sum(dim=0) / counts).sum()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                total += loss.detach()
            if self._on_epoch is not None:
                mean_loss = float(total) / (n_batches * len(folds))
                speed = n_images / (time.perf_counter() - began)
                self._on_epoch(EpochReport(epoch + 1, n_epochs, speed, mean_loss))
        return heads

    def _labels(self, folds: Sequence[Fold]) -> tuple[Tensor, Tensor]:
        """Labels (n, H), -1 where an image is not in a head's training part, and the positions that a batch reads."""
        labels = torch.full((self._rows.n, len(folds)), -1, dtype=torch.int32)
        for head, fold in enumerate(folds):
            labels[self._rows.positions(fold.train_idx), head] = torch.from_numpy(np.asarray(fold.train_labels)).int()
        used = (labels >= 0).any(dim=1).nonzero().flatten()
        return labels, used if len(used) < _USED * len(labels) else torch.arange(len(labels))

    @torch.no_grad()
    def _predict(self, head: _Heads, eval_idx: IntArray) -> PredProbs:
        positions = self._rows.positions(eval_idx)
        answer = np.empty((len(positions), self._n_classes), np.float32)
        for start in range(0, len(positions), _CHUNK):
            logits = head.logits(self._rows.at(positions[start : start + _CHUNK]))[:, 0]
            answer[start : start + _CHUNK] = logits.softmax(dim=1).cpu().numpy()
        return answer


def _schedule(progress: float) -> float:
    """Factor of the learning rate: up in the first twentieth of the training, then along a cosine down to zero."""
    return min(1.0, (progress + 1e-3) / _WARMUP) * (1 + math.cos(math.pi * progress)) / 2


def _own_rows(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Each head's own rows of a batch: x (b, d) -> (H, b', d), and targets (b, H), -1 for none, -> (b', H).

    Where training parts overlap little, an MLP's first layer costs more on the rows of others than copying one's own.
    """
    not_mine = targets < 0
    most = int((~not_mine).sum(dim=0).max())
    own = not_mine.int().argsort(dim=0, stable=True)[:most]
    return x[own.T], targets.gather(0, own)


@dataclass(frozen=True, eq=False)
class _Heads:
    """The weights of H heads side by side."""

    weight: Tensor
    """(d, H·(K + hidden)): each head's linear part, then its first hidden layer."""
    bias: Tensor
    """(H·(K + hidden),)"""
    out: Tensor
    """(H, hidden, K), from the hidden layer to the logits."""

    @classmethod
    def fresh(cls, d: int, n_classes: int, hidden: int, seeds: Sequence[int], device: torch.device) -> _Heads:
        weight = torch.zeros(d, len(seeds), n_classes + hidden)
        if hidden:
            for head, seed in enumerate(seeds):
                drawn = torch.randn(d, hidden, generator=torch.Generator().manual_seed(seed))
                weight[:, head, n_classes:] = drawn / math.sqrt(d)
        bias, out = torch.zeros(len(seeds) * (n_classes + hidden)), torch.zeros(len(seeds), hidden, n_classes)
        return cls(*(each.to(device).requires_grad_() for each in (weight.flatten(1), bias, out)))

    def only(self, head: int) -> _Heads:
        """One of them."""
        h = len(self.out)
        weight = self.weight.view(len(self.weight), h, -1)[:, head].contiguous()
        return _Heads(weight, self.bias.view(h, -1)[head], self.out[head : head + 1])

    def logits(self, x: Tensor) -> Tensor:
        """Of a batch (b, d) for all heads, or of each head's own (H, b, d) -> (b, H, K)."""
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
        """AdamW, whose step on a weight is its learning rate: 1/fan-in, so that the logits' step is the same."""
        d, hidden = len(self.weight), self.out.shape[1]
        groups = [
            {"params": [self.weight], "lr": learning_rate / d, "weight_decay": weight_decay},
            {"params": [self.bias], "lr": learning_rate / d, "weight_decay": 0.0},
        ]
        if hidden:
            groups.append({"params": [self.out], "lr": learning_rate / 32 / hidden, "weight_decay": weight_decay})
        return torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)
