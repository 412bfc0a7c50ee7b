"""The one training loop."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cvcoteach._validation import InputError, IntArray
from cvcoteach.training.batches import DeviceImages, ImageBatches
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import seeded
from cvcoteach.training.fitting import fit
from cvcoteach.training.loop import Batch, EpochReport, Losses, Training, predict
from cvcoteach.training.networks import SmallNet
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.orders import Order, shuffled
from cvcoteach.training.presets import FINETUNE
from cvcoteach.training.recipe import Recipe

PLAN = ComputePlan()
SCALING = Scaling((0.5,), (0.25,))
RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=0.05, shift=1, flip=False)


class Tiny(nn.Module):
    """A linear layer behind batch-norm and dropout, whose first weights come from a seed."""

    def __init__(self, seed: int = 0, n_classes: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(16, n_classes)
        with torch.no_grad():
            weights = torch.rand(self.linear.weight.shape, generator=torch.Generator().manual_seed(seed)) - 0.5
            self.linear.weight.copy_(weights)
            self.linear.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(self.dropout(self.norm(images).flatten(1)))
        return out


def data(n: int = 40, plan: ComputePlan = PLAN) -> tuple[ImageBatches, IntArray]:
    pixels, labels = pixels_and_labels(n)
    return ImageBatches(DeviceImages(pixels, plan), SCALING), labels


def pixels_and_labels(n: int = 40) -> tuple[np.ndarray, IntArray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    pixels = rng.integers(0, 60, (n, 4, 4, 1), dtype=np.uint8)
    pixels[np.arange(n), labels, labels] += 150
    return pixels, labels


def training(
    networks: Sequence[nn.Module] | None = None,
    recipe: Recipe = RECIPE,
    losses: Losses | None = None,
    order: Order | None = None,
    n: int = 40,
) -> Training:
    source, labels = data(n)
    extra = {} if losses is None else {"losses": losses}
    networks = [Tiny()] if networks is None else networks
    return Training(networks, source, np.arange(n), labels, recipe, seed=7, order=order, **extra)


def weights(network: nn.Module) -> Tensor:
    return torch.cat([value.double().flatten() for value in network.state_dict().values()])


# -- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(1, 4), (2, 1), (3, 2), (5, 2), (9, 8), (100, 7), (257, 128), (128, 128)])
def test_every_image_comes_once_and_never_alone(n: int, size: int) -> None:
    batches = shuffled(n, size)(0, np.random.default_rng(0))
    assert sorted(set(np.concatenate(batches).tolist())) == list(range(n))
    assert min(map(len, batches)) >= 2
    if n > 1:
        assert sum(map(len, batches)) == n
    assert max(map(len, batches)) <= max(size, 3)


def test_epochs_differ_in_order() -> None:
    order = shuffled(50, 50)
    assert not np.array_equal(order(0, np.random.default_rng(0))[0], order(1, np.random.default_rng(1))[0])


@pytest.mark.parametrize("n", [1, 2, 9])
def test_batch_norm_survives_a_last_batch_of_one(n: int) -> None:
    class Flat(nn.Module):
        """Batch-norm on vectors: refuses a batch of one."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 3))

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.layers(images)
            return out

    report = training([Flat()], n=n).run_epoch()
    assert math.isfinite(report.loss)


def always(*batches: np.ndarray) -> Order:
    """The same batches in every epoch."""
    return lambda epoch, rng: list(batches)


# -- training ----------------------------------------------------------------------------------------------------


def test_an_epoch_of_sgd_is_what_one_would_write_by_hand() -> None:
    recipe = replace(RECIPE, shift=0, schedule="constant", weight_decay=0.01, epochs=1)
    order = always(np.array([0, 1, 2]), np.array([3, 4]))
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    by_hand = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    by_hand.load_state_dict(network.state_dict())
    report = training([network], recipe, order=order).run_epoch()

    pixels, labels = pixels_and_labels()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    optimizer = torch.optim.SGD(
        [{"params": [by_hand[1].weight], "weight_decay": 0.01}, {"params": [by_hand[1].bias]}],
        lr=0.05,
        momentum=0.9,
        nesterov=True,
    )
    seen = []
    for rows in ([0, 1, 2], [3, 4]):
        loss = functional.cross_entropy(by_hand((images[rows] - 0.5) / 0.25), torch.from_numpy(labels[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    torch.testing.assert_close(weights(network), weights(by_hand), rtol=1e-5, atol=1e-6)
    assert report.loss == pytest.approx(np.mean(seen), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_lowers_the_loss(optimizer: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, epochs=12, shift=0)
    reports: list[EpochReport] = []
    fit(training(recipe=recipe), reports.append)
    assert [report.epoch for report in reports] == list(range(1, 13))
    assert all(report.n_epochs == 12 and report.images_per_second > 0 for report in reports)
    assert reports[-1].loss < 0.6 * reports[0].loss


def test_the_same_seed_gives_the_same_bits_whatever_torchs_random_state() -> None:
    networks = [Tiny(), Tiny()]
    for number, network in enumerate(networks):
        torch.manual_seed(number)
        fit(training([network]))
    assert torch.equal(weights(networks[0]), weights(networks[1]))


def test_training_leaves_torchs_random_state_alone() -> None:
    started = training()
    before = torch.get_rng_state()
    fit(started)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_training_resumed_from_its_state_ends_as_an_unbroken_one() -> None:
    unbroken = Tiny()
    fit(training([unbroken], replace(RECIPE, optimizer="adam")))

    first = training([Tiny()], replace(RECIPE, optimizer="adam"))
    first.run_epoch()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = Tiny(seed=99)
    second = training([resumed], replace(RECIPE, optimizer="adam"))
    second.load_state_dict(torch.load(file, weights_only=True))
    fit(second)
    assert second.epoch == 3
    assert torch.equal(weights(unbroken), weights(resumed))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precisions_train(dtype: str) -> None:
    source, labels = data(plan=ComputePlan(dtype=dtype))
    network = Tiny()
    recipe = replace(RECIPE, epochs=12, shift=0)
    trained = Training([network], source, np.arange(40), labels, recipe, seed=0)
    reports: list[EpochReport] = []
    fit(trained, reports.append)
    assert reports[-1].loss < 0.6 * reports[0].loss
    assert network.linear.weight.dtype == torch.float32


def test_a_loss_that_is_not_a_number_stops_with_batch_epoch_and_rate() -> None:
    def losses(logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        return [logits[0].sum() * (math.nan if batch.epoch == 1 and 3 in batch.rows else 1e-3)]

    order = always(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    recipe = replace(RECIPE, epochs=4, schedule="one-cycle", warmup=0.0, learning_rate=0.3)
    broken = training(recipe=recipe, losses=losses, order=order)
    broken.run_epoch()
    with pytest.raises(InputError, match=r"loss is nan in batch 2 of epoch 2 at a learning rate of 0\.2; "):
        broken.run_epoch()


def test_soft_targets_are_trained_on() -> None:
    source, labels = data()
    soft = np.eye(3, dtype=np.float32)[labels]
    hard_network, soft_network = Tiny(), Tiny()
    fit(Training([hard_network], source, np.arange(40), labels, RECIPE, seed=1))
    fit(Training([soft_network], source, np.arange(40), soft, RECIPE, seed=1))
    torch.testing.assert_close(weights(hard_network), weights(soft_network), rtol=1e-4, atol=1e-5)


def test_two_networks_may_choose_for_each_other_in_the_same_loop() -> None:
    def exchange(logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        a, b = (functional.cross_entropy(each, batch.targets, reduction="none") for each in logits)
        return [a[b.detach().argsort()[:4]].mean(), b[a.detach().argsort()[:4]].mean()]

    class Plain(nn.Module):
        """Neither batch-norm nor dropout, so that the order of forward passes does not matter."""

        def __init__(self, seed: int) -> None:
            super().__init__()
            self.linear = Tiny(seed).linear

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.linear(images.flatten(1))
            return out

    one, two = Plain(1), Plain(2)
    fit(training([one, two], losses=exchange))
    swapped_two, swapped_one = Plain(2), Plain(1)
    fit(training([swapped_two, swapped_one], losses=exchange))
    assert torch.equal(weights(one), weights(swapped_one))
    assert torch.equal(weights(two), weights(swapped_two))
    alone = Plain(1)
    fit(training([alone]))
    assert not torch.equal(weights(one), weights(alone))


def test_two_networks_by_themselves_train_as_each_alone_would() -> None:
    class Plain(nn.Module):
        """A linear layer."""

        def __init__(self, seed: int) -> None:
            super().__init__()
            self.linear = Tiny(seed).linear

        def forward(self, images: Tensor) -> Tensor:
            out: Tensor = self.linear(images.flatten(1))
            return out

    pair, alone = [Plain(1), Plain(2)], [Plain(1), Plain(2)]
    fit(training(pair))
    for network in alone:
        fit(training([network]))
    for together, single in zip(pair, alone, strict=True):
        torch.testing.assert_close(weights(together), weights(single), rtol=0, atol=0)


# -- stopping early and predicting -------------------------------------------------------------------------------


def test_training_stops_after_patience_and_keeps_the_best_epochs_weights() -> None:
    network = Tiny()
    kept: list[Tensor] = []
    losses = iter([0.9, 0.5, 0.7, 0.6, 0.1])

    def validate() -> float:
        kept.append(weights(network))
        return next(losses)

    reports: list[EpochReport] = []
    fit(training([network], replace(RECIPE, epochs=10, patience=2)), reports.append, validate)
    assert [report.validation_loss for report in reports] == [0.9, 0.5, 0.7, 0.6]
    assert torch.equal(weights(network), kept[1])


def test_prediction_is_the_mean_over_networks_and_mirror_images() -> None:
    (source, _), (pixels, _) = data(), pixels_and_labels()
    rows = np.array([5, 0, 17])
    networks = [Tiny(1).eval(), Tiny(2).eval()]
    result = predict(networks, source, rows, mirror=True, batch_size=2)
    images = (torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        views = [net(view).softmax(1) for net in networks for view in (images, images.flip(3))]
    np.testing.assert_allclose(result, torch.stack(views).mean(0).numpy(), rtol=1e-5)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-6)


def test_in_fine_tuning_the_body_moves_as_much_less_as_the_recipe_says() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(32) % 4

    def moved(body_rate: float) -> tuple[Tensor, Tensor]:
        recipe = replace(FINETUNE, epochs=1, optimizer="sgd", schedule="constant", body_rate=body_rate, flip=False)
        with seeded(0, PLAN.torch_device):
            network = SmallNet(4, 3)
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        source = ImageBatches(DeviceImages(pixels, PLAN), Scaling((0.5,) * 3, (0.25,) * 3))
        Training([network], source, np.arange(32), labels, recipe, seed=0).run_epoch()
        after = dict(network.named_parameters())
        first, last = next(iter(before)), list(before)[-1]
        return after[first].detach() - before[first], after[last].detach() - before[last]

    (body, head), (slow_body, same_head) = moved(1.0), moved(0.1)
    assert body.abs().max() > 0
    np.testing.assert_allclose(slow_body, 0.1 * body, atol=1e-6)
    np.testing.assert_allclose(same_head, head)
