"""Co-teaching: what is kept, which batches, who teaches whom; killed and resumed."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cvcoteach._validation import InputError, IntArray
from cvcoteach.coteaching.training import (
    CoTraining,
    Curriculum,
    Exchange,
    coteaching_losses,
    image_passes,
    incv_curriculum,
    keep_rate,
    least_noise_left,
    matched_epochs,
    mixed,
    n_kept,
    noise_left,
    vanilla_curriculum,
    warmup_of,
)
from cvcoteach.training.batches import Pixels, Scaling
from cvcoteach.training.checkpoints import load_checkpoint, run_to_end
from cvcoteach.training.devices import Plan, available_devices
from cvcoteach.training.loop import Batch
from cvcoteach.training.recipe import Recipe
from tests import reference

# -- how much is kept --


def test_the_noise_left_in_the_selected_set_is_that_of_the_paper() -> None:
    assert noise_left(0.5, 10) == pytest.approx(1 / 10)
    assert noise_left(0.2, 10) == pytest.approx(0.04 / (0.04 + 9 * 0.64))
    assert noise_left(0.4, 2) == pytest.approx(0.16 / (0.16 + 0.36))
    assert noise_left(0.0, 10) == 0


def test_no_more_wrong_labels_can_be_gone_than_images() -> None:
    assert least_noise_left(0.2, 1000, 1000) == pytest.approx(0.2), "nothing was left out"
    assert least_noise_left(0.2, 900, 1000) == pytest.approx(100 / 900)
    assert least_noise_left(0.2, 700, 1000) == 0
    full = incv_curriculum(np.arange(900), np.arange(0), 0.2, 1000, 10, 20)
    half = incv_curriculum(np.arange(500), np.arange(0), 0.2, 1000, 10, 20)
    published = incv_curriculum(np.arange(900), np.arange(0), 0.2, 1000, 10, 20, as_published=True)
    assert full.noise_rate == pytest.approx(100 / 900)
    assert half.noise_rate == noise_left(0.2, 10)
    assert published.noise_rate == noise_left(0.2, 10)


def test_once_candidates_have_joined_a_batch_leaves_out_their_wrong_labels_too() -> None:
    s, c = np.arange(600), np.arange(600, 900)
    left = noise_left(0.4, 10)
    outside = (0.4 * 1000 - left * 600) / 400
    counted = incv_curriculum(s, c, 0.4, 1000, 10, 20)
    assert counted.noise_rate == pytest.approx(left)
    assert counted.mixed_noise_rate == pytest.approx((600 * left + 300 * outside) / 900)
    assert [counted.keep_rate(e) for e in (0, 3, 4, 19)] == pytest.approx(
        [1, 1 - left, *[1 - counted.mixed_noise_rate] * 2]
    )
    published = incv_curriculum(s, c, 0.4, 1000, 10, 20, as_published=True)
    assert (published.noise_rate, published.mixed_noise_rate) == pytest.approx((left, left))


def test_probabilities_of_being_wrong_say_how_many_are_left_but_never_fewer_than_the_paper() -> None:
    s, c = np.arange(600), np.arange(600, 900)
    wrong = np.where(np.arange(1000) < 600, 0.2, 0.7)
    known = incv_curriculum(s, c, 0.4, 1000, 10, 20, wrong=wrong)
    assert known.noise_rate == pytest.approx(0.2)
    assert known.mixed_noise_rate == pytest.approx((600 * 0.2 + 300 * 0.7) / 900)
    sure = incv_curriculum(s, c, 0.4, 1000, 10, 20, wrong=np.zeros(1000))
    assert sure.noise_rate == pytest.approx(noise_left(0.4, 10))


def test_epochs_of_a_smaller_set_are_more_until_as_many_images_were_shown() -> None:
    assert matched_epochs(1000, 0, 0.2, 12_000) == 12
    assert matched_epochs(500, 0, 0.2, 12_000) == 24
    epochs = matched_epochs(600, 300, 0.2, 12_000)
    passes = image_passes(600, 300, warmup_of(epochs, 0.2), epochs)
    assert abs(passes - 12_000) <= 450, "half an epoch of 900"
    assert matched_epochs(1000, 0, 0.2, 100) == 1
    assert matched_epochs(20, 0, 0.2, 600_000, most=120) == 120


def test_what_is_easy_does_not_depend_on_what_it_counts() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([40.0, 30.0, 20.0, 10.0])
    weights = torch.tensor([0.0, 1.0, 1.0, 0.5])
    for_a, for_b = coteaching_losses(a, b, 2, weights)
    assert float(for_a) == (3.0 + 0.5 * 4.0) / 2
    assert float(for_b) == 30.0 / 2


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan])
def test_a_noise_rate_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"noise_rate is .*, in \[0, 1\)"):
        noise_left(rate, 10)


def test_the_keep_rate_falls_linearly_and_then_stays() -> None:
    assert [keep_rate(e, 0.4, 10) for e in (0, 5, 10, 199)] == pytest.approx([1.0, 0.8, 0.6, 0.6])


def test_of_a_batch_one_image_at_least_is_kept() -> None:
    assert n_kept(128, 0.6) == 76
    assert n_kept(10, 0.7) == 7, "0.7 · 10 is 6.999… in floating point"
    assert n_kept(2, 0.1) == 1
    loss, _ = coteaching_losses(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]), n_kept(2, 0.1))
    assert float(loss) == 2.0


def test_the_published_warm_up_and_ramp_come_out_at_200_epochs() -> None:
    rows = np.arange(10), np.arange(0)
    usual, heavy = (incv_curriculum(*rows, noise_rate, 1000, 10, 200) for noise_rate in (0.5, 0.61))
    assert (usual.warmup, usual.ramp) == (40, 10)
    assert (heavy.warmup, heavy.ramp) == (80, 10)
    short = incv_curriculum(*rows, 0.5, 1000, 10, 12)
    assert (short.warmup, short.ramp) == (2, 1)


# -- which batches --


def test_batches_are_of_s_alone_until_the_warm_up_is_over() -> None:
    order = mixed(100, 40, 20, warmup=3)
    for epoch in range(3):
        batches = order(epoch, np.random.default_rng(epoch))
        assert sorted(np.concatenate(batches).tolist()) == list(range(100))
    after = order(3, np.random.default_rng(3))
    assert [len(batch) for batch in after] == [28] * 5
    assert sorted(np.concatenate(after).tolist()) == list(range(140)), "|B|·|C|/|S| of each is one pass over C"
    assert all((batch >= 100).sum() == 8 for batch in after)


def test_candidates_make_up_half_of_the_selected_at_most() -> None:
    batches = mixed(100, 1000, 20, warmup=0)(0, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [30] * 5
    added = np.concatenate([batch[batch >= 100] for batch in batches])
    assert len(set(added.tolist())) == 50


def test_an_empty_candidate_set_changes_nothing_after_the_warm_up() -> None:
    batches = mixed(100, 0, 20, warmup=0)(5, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [20] * 5


# -- who teaches whom --


def test_each_network_is_taught_what_its_peer_finds_easy() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([40.0, 30.0, 20.0, 10.0])
    for_a, for_b = coteaching_losses(a, b, 2)
    assert float(for_a) == 3.5, "B finds the last two easy"
    assert float(for_b) == 35.0, "A finds the first two easy"


def test_the_loss_is_the_mean_over_what_is_kept_and_divided_by_nothing_else() -> None:
    a = torch.full((100,), 2.0)
    assert float(coteaching_losses(a, a, 80)[0]) == 2.0


def test_nothing_flows_back_through_what_was_left_out() -> None:
    a = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    b = torch.tensor([3.0, 1.0, 2.0])
    coteaching_losses(a, b, 2)[0].backward()
    assert a.grad is not None
    assert a.grad.tolist() == [0.0, 0.5, 0.5]


def test_the_keep_rate_is_applied_to_the_whole_batch_once_candidates_are_in_it() -> None:
    exchange = Exchange(lambda epoch: 0.5)
    logits = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for_a, _ = exchange([logits, logits.detach()], Batch(torch.arange(30), torch.zeros(30, dtype=torch.long), 1))
    for_a.backward()
    assert logits.grad is not None
    assert int((logits.grad.abs().sum(dim=1) > 0).sum()) == 15, "half of 20 selected and 10 candidates"


@pytest.mark.parametrize("device", [name for name in available_devices() if ":" not in name])
def test_the_losses_are_computed_wherever_the_networks_are(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(50, generator=generator), torch.rand(50, generator=generator)
    there = coteaching_losses(a.to(device), b.to(device), 30)
    assert there[0].device.type == device
    assert [float(loss) for loss in there] == pytest.approx([float(loss) for loss in coteaching_losses(a, b, 30)])


# -- one epoch, slowly --


def linear(seed: int, d: int = 5, k: int = 3) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(d, k))
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return network


def features(n: int, d: int = 5) -> tuple[np.ndarray, IntArray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype(np.float32)
    return X, rng.integers(0, 3, n)


RECIPE = Recipe(
    epochs=4,
    batch_size=16,
    least_batches=0,
    learning_rate=0.1,
    schedule="constant",
    weight_decay=0.0,
    shift=0,
    flip=False,
    tta=False,
)


def training_of(
    X: np.ndarray,
    y: IntArray,
    curriculum: Curriculum,
    recipe: Recipe = RECIPE,
    seed: int = 7,
    weights: np.ndarray | None = None,
) -> CoTraining:
    pixels = Pixels(X.reshape(len(X), 1, 1, -1), Plan())
    networks = [linear(1), linear(2)]
    scaling = Scaling((0.0,), (1 / 255,))
    targets = y[curriculum.rows]
    return CoTraining(networks, pixels, targets, curriculum, recipe, scaling, Plan(), weights=weights, seed=seed)


@pytest.mark.slow
def test_epochs_agree_with_the_slow_reference_to_rounding() -> None:
    X, y = features(90)
    curriculum = Curriculum(np.arange(60), np.arange(60, 90), 0.4, 0.5, warmup=2, ramp=2)
    weights = np.where(np.arange(90) < 60, 1.0, np.random.default_rng(1).random(90))
    training = training_of(X, y, curriculum, weights=weights)
    order = mixed(60, 30, 16, warmup=2)
    networks = [linear(1).double(), linear(2).double()]
    momenta = [[torch.zeros_like(p) for p in network.parameters()] for network in networks]
    for number, rate in enumerate((1.0, 0.8, 0.5, 0.5)):
        batches = order(number, np.random.default_rng(np.random.SeedSequence([7, number])))
        kept, left, agreed = reference.coteaching_epoch(
            networks, momenta, X, y.tolist(), weights.tolist(), batches, rate, learning_rate=0.1
        )
        training.run_epoch()
        epoch = training.history[-1]
        assert epoch.loss_kept == pytest.approx(kept, rel=1e-4)
        assert epoch.loss_left_out == pytest.approx(left, rel=1e-3, nan_ok=True)
        assert epoch.agreement == pytest.approx(agreed, abs=1e-6)
        for ours, theirs in zip(training.networks, networks, strict=True):
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
                np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=2e-4, atol=2e-5)
    assert [epoch.stage for epoch in training.history] == ["warm-up", "warm-up", "mixed", "mixed"]
    assert [epoch.images for epoch in training.history] == [60, 60, 90, 90]
    assert [epoch.keep_rate for epoch in training.history] == pytest.approx([1.0, 0.8, 0.5, 0.5])


# -- killed and resumed --


class KilledError(Exception):
    """Stands for SIGKILL."""


def test_a_training_goes_on_from_its_checkpoint_to_the_same_weights(tmp_path) -> None:
    X, y = features(90)
    curriculum = Curriculum(np.arange(60), np.arange(60, 90), 0.2, 0.2, warmup=1, ramp=1)
    recipe = Recipe(**{**RECIPE.__dict__, "optimizer": "adamw", "learning_rate": 0.01})
    unbroken = training_of(X, y, curriculum, recipe)
    run_to_end(unbroken)

    def kill(report) -> None:
        if report.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run_to_end(training_of(X, y, curriculum, recipe), tmp_path / "checkpoint.pt", kill)
    resumed = training_of(X, y, curriculum, recipe)
    run_to_end(resumed, tmp_path / "checkpoint.pt")
    for ours, theirs in zip(resumed.networks, unbroken.networks, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert [epoch.loss_kept for epoch in resumed.history] == [epoch.loss_kept for epoch in unbroken.history]


def test_a_loss_that_is_no_number_stops_and_leaves_the_last_good_checkpoint(tmp_path) -> None:
    X, y = features(60)
    file = tmp_path / "checkpoint.pt"
    training = training_of(X, y, vanilla_curriculum(60, 0.2, 4))

    def spoil(report) -> None:
        if report.epoch == 2:
            next(training.networks[0].parameters()).data.fill_(math.nan)

    with pytest.raises(InputError, match=r"loss is nan in batch 1 of epoch 3 at a learning rate of 0\.1"):
        run_to_end(training, file, spoil)
    assert load_checkpoint(file)["training"]["epoch"] == 2


class Harmful:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the checkpoint was unpickled",))


def test_a_foreign_checkpoint_is_refused_and_never_unpickled(tmp_path) -> None:
    file = tmp_path / "checkpoint.pt"
    for content in (pickle.dumps(Harmful()), b"no checkpoint at all"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            load_checkpoint(file)


def test_a_batch_of_which_nothing_would_be_kept_is_refused() -> None:
    X, y = features(60)
    recipe = Recipe(**{**RECIPE.__dict__, "batch_size": 2})
    with pytest.raises(InputError, match="a batch holds 2 images, of which nothing is kept at 70% noise; it takes 4"):
        training_of(X, y, vanilla_curriculum(60, 0.7, 4), recipe)
    of_few_images = Recipe(**{**RECIPE.__dict__, "batch_size": 125, "least_batches": 14})
    with pytest.raises(InputError, match="a batch holds 30 images, of which nothing is kept at 98% noise; it takes 50"):
        training_of(X, y, vanilla_curriculum(60, 0.98, 4), of_few_images)


def test_a_single_loss_that_is_no_number_stops_though_it_is_never_among_the_smallest() -> None:
    exchange = Exchange(lambda epoch: 0.5)
    logits = torch.randn(8, 3)
    broken = logits.clone()
    broken[3] = math.nan
    targets = torch.zeros(8, dtype=torch.int64)
    for_a, for_b = exchange([logits, broken], Batch(torch.arange(8), targets, 5))
    assert for_a.isnan()
    assert for_b.isnan()


def test_cross_entropy_of_each_sample_is_torchs() -> None:
    exchange = Exchange(lambda epoch: 1.0)
    logits, targets = torch.randn(8, 3), torch.randint(0, 3, (8,))
    for_a, for_b = exchange([logits, 2 * logits], Batch(torch.arange(8), targets, 5))
    assert float(for_a) == pytest.approx(float(functional.cross_entropy(logits, targets)), rel=1e-6)
    assert float(for_b) == pytest.approx(float(functional.cross_entropy(2 * logits, targets)), rel=1e-6)
    kept, left_out, agreement, images = exchange.take_record()
    assert math.isnan(left_out)
    assert (agreement, images) == (1.0, 8)
    assert kept == pytest.approx((float(for_a) + float(for_b)) / 2, rel=1e-6)
