"""One training shared by several processes: each computes its part of every batch, and all learn from the whole batch.

The processes have joined a group of `torch.distributed`. Images, their order, how they are moved and the learning rate
are those of one process with the same batches; batch normalization sees the whole batch. Results equal its own up to
rounding, but for dropout, which every process draws by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cvcoteach._validation import InputError, IntArray
from cvcoteach.training.augmentation import Motion, draw_motion
from cvcoteach.training.batches import DeviceImages, ImageBatches
from cvcoteach.training.loop import Batch, Training, logits_of
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.orders import smallest_batch
from cvcoteach.training.recipe import Recipe, shift_for

_SYNC = "forward_sync_buffers"  # before torch 2.13 by another name
if _SYNC not in inspect.signature(DistributedDataParallel.__init__).parameters:
    _SYNC = "broadcast_buffers"


class Crew(NamedTuple):
    """Which of the processes this is."""

    rank: int
    """From 0."""
    size: int
    """Of the group."""

    def part(self, n: int) -> slice:
        """Return which of n things are this process's; sizes of the parts differ by one at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def check(self, n_images: int, recipe: Recipe) -> None:
        """Raise InputError where a batch has fewer images than there are processes."""
        least = smallest_batch(n_images, recipe.batch_of(n_images))
        if least < self.size:
            raise InputError(
                f"a batch of {least} images cannot be shared by {self.size} workers; take fewer (--workers-per-fold)."
            )

    def mean(self, value: float, n: int, device: torch.device) -> float:
        """Return the mean over all processes of a value that stands for n things in this one."""
        total = torch.tensor([value * n, n], dtype=torch.float32, device=device)
        distributed.all_reduce(total)
        return float(total[0] / total[1])


def peer_lost(error: BaseException) -> bool:
    """Return whether an error says no more than that another process of the crew is gone."""
    of_backend = isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))
    return of_backend or isinstance(error, distributed.DistError)


class SharedImages(ImageBatches):
    """This process's part of each batch; whoever asks names the images of the whole batch."""

    def __init__(self, images: DeviceImages, scaling: Scaling, crew: Crew) -> None:
        """Take what `ImageBatches` takes, and which process this is."""
        super().__init__(images, scaling)
        self._crew = crew

    def for_training(self, batches: Sequence[IntArray], recipe: Recipe, seed: int) -> Iterator[Tensor]:
        """Yield the own part of each batch, moved as it is where one process has all."""
        sizes = [len(batch) for batch in batches]
        motion = draw_motion(sum(sizes), shift_for(recipe, *self._images.size), bool(recipe.flip), seed)
        starts = np.cumsum([0, *sizes[:-1]])
        places = [start + np.arange(size)[self._crew.part(size)] for start, size in zip(starts, sizes, strict=True)]
        own = Motion(*(values[torch.from_numpy(np.concatenate(places))] for values in motion))
        return self._normalised([batch[self._crew.part(len(batch))] for batch in batches], own)


class SharedTraining(Training):
    """A `Training` in every process of a crew, on `SharedImages`; gradients are averaged over the whole batch."""

    def __init__(self, crew: Crew, networks: Sequence[nn.Module], *arguments: Any, **options: Any) -> None:
        """Take what `Training` takes; networks with `batch_norm_over_all`, the same in all processes."""
        super().__init__(networks, *arguments, **options)
        self._crew = crew
        sharing: dict[str, Any] = {"find_unused_parameters": True, _SYNC: False}
        self._replicas = [DistributedDataParallel(network, **sharing) for network in networks]

    def _numbers(self) -> tuple[Sequence[IntArray], int, int]:
        batches, for_augmentation, for_dropout = super()._numbers()
        return batches, for_augmentation, for_dropout + self._crew.rank

    def _losses_of(self, inputs: Tensor, rows: Tensor) -> Sequence[Tensor]:
        own = rows[self._crew.part(len(rows))]
        with self._plan.autocast():
            outputs = [replica(inputs) for replica in self._replicas]
        batch = Batch(own, self._targets[own], self.epoch)
        part = self._crew.size * len(own) / len(rows)  # the mean over the processes is the batch's mean
        return [loss * part for loss in self._losses([logits_of(output) for output in outputs], batch)]

    def _check(self, record: Tensor, n_batches: int) -> None:
        super()._check(self._of_all(record), n_batches)

    def _mean_loss(self, record: Tensor) -> float:
        return super()._mean_loss(self._of_all(record))

    def _of_all(self, record: Tensor) -> Tensor:
        """Return the mean of all processes' losses, the same in each of them: either all of them go on, or none."""
        total = record.clone()
        distributed.all_reduce(total)
        return total / self._crew.size


def batch_norm_over_all(network: nn.Module) -> nn.Module:
    """Return a network whose batch normalization sees the batches of all processes; its weights stay the same ones."""
    if next((p.device.type for p in network.parameters()), "cpu") == "cuda":
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(network)
    for name, child in network.named_children():
        setattr(network, name, batch_norm_over_all(child))
    if isinstance(network, nn.modules.batchnorm._BatchNorm) and not isinstance(network, nn.SyncBatchNorm):
        return _BatchNormOverAll.of(network)
    return network


class _BatchNormOverAll(nn.modules.batchnorm._BatchNorm):
    """Batch normalization over all processes on any device; that of torch takes a GPU."""

    @classmethod
    def of(cls, layer: nn.modules.batchnorm._BatchNorm) -> _BatchNormOverAll:
        """Return one with the same weights and statistics."""
        result = cls(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        result.weight, result.bias = layer.weight, layer.bias
        result.running_mean, result.running_var = layer.running_mean, layer.running_var
        result.num_batches_tracked = layer.num_batches_tracked
        result.training = layer.training
        return result

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (b, C, …)."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        others = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = torch.tensor([x.numel() / x.shape[1]], device=x.device)
        sums = _SumOfAll.apply(torch.cat([x.sum(others), count]))
        n = float(sums[-1].detach())
        mean = sums[:-1] / n
        centered = x - mean.view(shape)
        variance = _SumOfAll.apply(centered.square().sum(others)) / n
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._note(mean.detach(), variance.detach() * n / max(1.0, n - 1))
        result = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        part = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            part = 1 / float(self.num_batches_tracked) if part is None else part
        self.running_mean.lerp_(mean, part or 0.0)
        self.running_var.lerp_(variance, part or 0.0)


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes, of values and of gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
