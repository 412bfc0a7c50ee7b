"""Folds on features: linear and MLP heads, all folds of a round in one computation."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cvcoteach._files import check_regular
from cvcoteach._validation import InputError, IntArray, PredProbs, as_count, check_at_least, near
from cvcoteach.crossval.trainer import Fold
from cvcoteach.noise_model.top_probs import Rows, many
from cvcoteach.training.captured_heads import CapturedHeads, HeadSteps
from cvcoteach.training.devices import choose_device, choose_threads, out_of_memory, set_threads
from cvcoteach.training.engine.graphs import memory_freed
from cvcoteach.training.engine.steps import NotCapturableError
from cvcoteach.training.engine.which import graphs_for
from cvcoteach.training.heads import Heads, loss_of, own_rows
from cvcoteach.training.loop import EpochReport, OnEpoch
from cvcoteach.training.presets import HEADS, Head
from cvcoteach.training.rows import Rows as FeatureRows
from cvcoteach.training.rows import check_shape

_ORDER_SEED = 0x1C5
_LEAST_STEPS = 80  # with fewer, probabilities stay undecided on small datasets
_CHUNK = 8192  # rows
_USED = 0.9  # from this share on, skipping the rows that no head trains on costs more than it saves
_OWN = 0.7  # below this share of a batch, an MLP head computes only its own rows


def load_features(path: str | Path) -> npt.NDArray[Any]:
    """Memory-map features (n, d) from a .npy file; nothing is ever unpickled.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    check_regular(path)
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; it takes a .npy file with one row of numbers per image.") from None
    except Exception as error:  # a broken header makes numpy raise anything
        raise InputError(f"{path} is not a .npy file of numbers ({error}); write one with numpy.save.") from error
    if not isinstance(features, np.ndarray):
        features.close()
        raise InputError(f"{path} holds several arrays; it takes a .npy file with one array of shape (n, d).")
    check_shape(features, str(path))
    return features


class HeadTrainer:
    """Linear or MLP heads on given features: a `BatchFoldTrainer` that trains all heads of a round at once.

    All heads see the same minibatches of features in one fixed order: the logits of all heads are one matrix product,
    and an image outside a head's training part has no weight in its loss. The result of a head depends on its own
    training part and seed, and on the other heads by rounding only. The seed draws the first layer of an MLP; a linear
    head starts at zero and has nothing random.

    Features are standardised with the mean and standard deviation over *all* rows, statistics without any label, and
    long rows are shortened. The optimiser is Adam with a learning rate that falls to zero. A head sees its images only
    a few times, which keeps it from memorising wrong labels.

    Features of up to 1 GiB as float32 are kept in memory; larger ones are read batch by batch.
    """

    def __init__(
        self,
        features: npt.ArrayLike,
        n_classes: int,
        head: Head = "linear",
        *,
        epochs: int = 5,
        batch_size: int | None = None,
        learning_rate: float = 1.25,
        weight_decay: float = 0.0,
        hidden: int = 128,
        device: str | None = None,
        threads: int | None = None,
        on_epoch: OnEpoch | None = None,
        captured: bool | None = None,
        note: Callable[[str], None] = warnings.warn,
    ) -> None:
        """Take the features and how heads are trained on them.

        Args:
            features: (n, d) finite numbers, an array or a memory map of any float type.
            n_classes: K, at least 2.
            head: "linear", or "mlp" for a linear head with one hidden layer of `hidden` units beside it.
            epochs: Passes over a training part; more for one so small that they would be fewer than 80 steps.
            batch_size: Approximate images of a head per batch; None: twice the square root of its training images.
            learning_rate: Peak learning rate times d: logits sum d features, so steps must shrink as 1/d.
            weight_decay: Decoupled, as in AdamW; at least 0.
            hidden: Units of the hidden layer of an "mlp".
            device: Such as "cuda" or "cpu"; None: the best available.
            threads: CPU threads; None: as many as the process may use.
            on_epoch: Called after each epoch of all heads together.
            captured: Whether steps are captured once and replayed, where memory holds all features; None: on a GPU.
            note: Called with a sentence where steps cannot be captured, or memory runs out.

        Raises:
            InputError: The features have another shape or are not finite, or a setting does not fit.
        """
        if head not in HEADS:
            raise InputError(f"head is {head!r}; {near(str(head), HEADS)}")
        n_classes, epochs = as_count("n_classes", n_classes, 2), as_count("epochs", epochs, 1)
        hidden = as_count("hidden", hidden, 1)
        check_at_least("weight_decay", weight_decay, 0)
        if batch_size is not None:
            batch_size = as_count("batch_size", batch_size, 1)
        if not 0 < learning_rate < math.inf:
            raise InputError(f"learning_rate is {learning_rate}; it takes a number above 0.")
        self._n_classes = n_classes
        self._hidden = hidden if head == "mlp" else 0
        self._epochs, self._batch_size = epochs, batch_size
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._threads = choose_threads(threads)
        self._on_epoch = on_epoch
        self._captured, self._note = captured, note
        self.features = np.asanyarray(features)
        self._rows = FeatureRows(self.features, choose_device(device))

    @property
    def n_images(self) -> int:
        """Number of rows of features."""
        return self._rows.n

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        """Train a fresh head on `train_idx` with `train_labels` (m,), and return probabilities of `eval_idx` (e, K).

        Raises:
            InputError: An index has no row of features.
        """
        return np.asarray(self.fit_predict_many([Fold(train_idx, train_labels, eval_idx, seed)])[0])

    def fit_predict_many(self, folds: Sequence[Fold]) -> list[PredProbs | Rows]:
        """Do what `fit_predict` does for all folds at once; return one result per fold.

        Where they would be `many`, results are computed as their rows are read; `numpy.asarray` computes all of them.
        """
        set_threads(self._threads)
        for fold in folds:
            self._rows.check(fold.train_idx)
            self._rows.check(fold.eval_idx)
        # heads with training parts of about the same size share batches
        groups: dict[int, list[int]] = {}
        for i, fold in enumerate(folds):
            groups.setdefault(self._n_batches(len(fold.train_idx)), []).append(i)
        answers: dict[int, PredProbs | Rows] = {}
        for n_batches, members in groups.items():
            answers |= self._answers(folds, members, n_batches)
        return [answers[i] for i in range(len(folds))]

    def _answers(self, folds: Sequence[Fold], members: Sequence[int], n_batches: int) -> dict[int, PredProbs | Rows]:
        """Train some of the folds together, or half of them at a time where memory runs out; return their answers."""
        try:
            heads = self._train([folds[i] for i in members], n_batches)
            return {i: self._predict(heads.only(place), folds[i].eval_idx) for place, i in enumerate(members)}
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        device = self._rows.device
        memory_freed(device, after_all=True)
        half = len(members) // 2
        if half:
            self._note(f"the memory of {device} is full: {half} of {len(members)} heads at the same time.")
            return self._answers(folds, members[:half], n_batches) | self._answers(folds, members[half:], n_batches)
        if n_batches >= self._rows.n:
            raise InputError(f"the memory of {device} does not hold the training of one head.")
        self._note(f"the memory of {device} is full: {2 * n_batches} batches, not {n_batches}.")
        return self._answers(folds, members, 2 * n_batches)

    def _n_batches(self, n_train: int) -> int:
        """Return the batches per epoch: a power of two, so that heads of nearly the same size share them."""
        size = self._batch_size or 2 * math.sqrt(n_train)
        return int(2 ** max(0, round(math.log2(max(n_train, 1) / size))))

    def _train(self, folds: Sequence[Fold], n_batches: int) -> Heads:
        rows, n = self._rows, self._rows.n
        heads = Heads.fresh(rows.d, self._n_classes, self._hidden, [fold.seed for fold in folds], rows.device)
        labels, used = self._labels(folds)
        bounds = torch.linspace(0, n, n_batches + 1).round().long()
        starts = torch.searchsorted(used, bounds).tolist()
        n_epochs = max(self._epochs, math.ceil(_LEAST_STEPS / n_batches))
        optimizer = heads.optimizer(self._learning_rate, self._weight_decay)
        numbers = torch.Generator().manual_seed(_ORDER_SEED)
        n_images = sum(len(fold.train_idx) for fold in folds)
        steps = HeadSteps(
            [used[start:stop] for start, stop in pairwise(starts)],
            [torch.randperm(n_batches, generator=numbers).tolist() for _ in range(n_epochs)],
            own_rows=self._hidden > 0 and n_images < _OWN * len(folds) * len(used),
        )
        labels = labels.to(rows.device)
        captured = self._capturing(heads, optimizer, steps, labels)
        for epoch in range(n_epochs):
            began = time.perf_counter()
            loss = captured.epoch() if captured is not None else self._epoch(heads, optimizer, steps, labels, epoch)
            if self._on_epoch is not None:
                mean_loss = float(loss) / (n_batches * len(folds))
                speed = n_images / (time.perf_counter() - began)
                self._on_epoch(EpochReport(epoch + 1, n_epochs, speed, mean_loss))
        return heads

    def _epoch(
        self, heads: Heads, optimizer: torch.optim.Optimizer, steps: HeadSteps, labels: Tensor, epoch: int
    ) -> Tensor:
        """Train for an epoch, step by step; return the sum of all losses, ()."""
        total = torch.zeros((), device=labels.device)
        batches = [steps.batches[batch] for batch in steps.order[epoch]]
        for step, (x, positions) in enumerate(zip(self._rows.each(batches), batches, strict=True)):
            for group in optimizer.param_groups:
                group["lr"] = group["scale"] * steps.factor(epoch, step)
            targets = labels[positions.to(labels.device)].to(torch.int64)
            if steps.own_rows:
                x, targets = own_rows(x, targets, int((targets >= 0).sum(dim=0).max()))
            loss = loss_of(heads, x, targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.detach()
        return total

    def _capturing(
        self, heads: Heads, optimizer: torch.optim.Optimizer, steps: HeadSteps, labels: Tensor
    ) -> CapturedHeads | None:
        """Return the epochs as captured steps; None where they are not captured."""
        resident = self._rows.resident
        if resident is None or not (self._captured if self._captured is not None else resident.is_cuda):
            return None
        try:
            return CapturedHeads(graphs_for(resident.device), heads, optimizer, steps, resident, labels)
        except NotCapturableError as error:
            self._note(f"heads are trained step by step, since that cannot be captured ({error}).")
            return None

    def _labels(self, folds: Sequence[Fold]) -> tuple[Tensor, Tensor]:
        """Return labels (n, H), -1 for images outside a head's training part, and the positions that batches read."""
        labels = torch.full((self._rows.n, len(folds)), -1, dtype=torch.int32)
        for head, fold in enumerate(folds):
            labels[self._rows.positions(fold.train_idx), head] = torch.from_numpy(np.asarray(fold.train_labels)).int()
        used = (labels >= 0).any(dim=1).nonzero().flatten()
        return labels, used if len(used) < _USED * len(labels) else torch.arange(len(labels))

    def _predict(self, head: Heads, eval_idx: IntArray) -> PredProbs | Rows:
        answer = _Answer(self._rows, head, self._rows.positions(eval_idx), self._n_classes)
        return answer if many(self._rows.n, self._n_classes) else np.asarray(answer)


@dataclass(frozen=True, eq=False)
class _Answer:
    """The probabilities (e, K) of a head, computed as they are read."""

    rows: FeatureRows
    head: Heads
    positions: Tensor
    """(e,) of the images among the rows."""
    n_classes: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.positions), self.n_classes

    def __len__(self) -> int:
        return len(self.positions)

    @torch.no_grad()
    def __getitem__(self, rows: slice) -> PredProbs:
        logits = self.head.logits(self.rows.at(self.positions[rows]))[:, 0]
        result: PredProbs = logits.softmax(dim=1).cpu().numpy()
        return result

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        result = np.empty(self.shape, np.float32)
        for start in range(0, len(self), _CHUNK):
            result[start : start + _CHUNK] = self[start : start + _CHUNK]
        return result.astype(dtype or result.dtype, copy=False)
