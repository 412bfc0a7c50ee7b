"""Two networks on their way through a curriculum; killed and resumed."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cvcoteach._validation import InputError, IntArray
from cvcoteach.coteaching.curriculum import Curriculum, mixed, vanilla_curriculum
from cvcoteach.coteaching.selection import Selection
from cvcoteach.coteaching.training import CoTeachingTask, CoTraining, enough_epochs, two_networks, with_epochs
from cvcoteach.training.batches import FeatureBatches
from cvcoteach.training.checkpoints import load_checkpoint, run_to_end
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.engine.rehearsal import RehearsedGraphs
from cvcoteach.training.inputs import FeatureInputs
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.recipe import Recipe
from tests import reference


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
    source = FeatureBatches(X, ComputePlan())
    networks = [linear(1), linear(2)]
    targets = y[curriculum.rows]
    return CoTraining(networks, source, targets, curriculum, recipe, weights=weights, seed=seed)


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


class KilledError(Exception):
    """Stands for SIGKILL."""


def test_a_training_resumes_from_its_checkpoint_to_the_same_weights(tmp_path) -> None:
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


def test_a_loss_that_is_not_a_number_stops_and_leaves_the_last_good_checkpoint(tmp_path) -> None:
    X, y = features(60)
    file = tmp_path / "checkpoint.pt"
    training = training_of(X, y, vanilla_curriculum(60, 0.2, 4))

    def spoil(report) -> None:
        if report.epoch == 2:
            next(training.networks[0].parameters()).data.fill_(math.nan)

    with pytest.raises(InputError, match=r"loss is nan in batch 1 of epoch 3 at a learning rate of 0\.1"):
        run_to_end(training, file, spoil)
    assert load_checkpoint(file)["training"]["epoch"] == 2


def test_a_batch_of_which_nothing_would_be_kept_is_refused() -> None:
    X, y = features(60)
    recipe = Recipe(**{**RECIPE.__dict__, "batch_size": 2})
    with pytest.raises(InputError, match="a batch holds 2 images, of which nothing is kept at 70% noise; it takes 4"):
        training_of(X, y, vanilla_curriculum(60, 0.7, 4), recipe)
    of_few_images = Recipe(**{**RECIPE.__dict__, "batch_size": 125, "least_batches": 14})
    with pytest.raises(InputError, match="a batch holds 30 images, of which nothing is kept at 98% noise; it takes 50"):
        training_of(X, y, vanilla_curriculum(60, 0.98, 4), of_few_images)


def test_a_task_is_assembled_as_one_would_by_hand() -> None:
    X, y = features(90)
    selection = Selection(y, np.arange(90) < 60, np.arange(90) >= 60, 0.2, weights=np.linspace(0.1, 1, 90))
    curriculum = selection.curriculum(3, 4)
    task = CoTeachingTask(FeatureInputs(X), selection, 3, RECIPE, curriculum, seed=7)
    started = task.start(ComputePlan())
    run_to_end(started)
    networks = two_networks(lambda seed: FeatureInputs(X).network(3, seed), ComputePlan(), 7)
    assert selection.weights is not None
    by_hand = CoTraining(
        networks,
        FeatureBatches(X, ComputePlan()),
        y[curriculum.rows],
        curriculum,
        RECIPE,
        weights=selection.weights[curriculum.rows],
        seed=7,
    )
    run_to_end(by_hand)
    for ours, theirs in zip(started.networks, by_hand.networks, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_epochs_count_the_images_of_all_and_settle_a_small_selection() -> None:
    selection = Selection(np.zeros(1000, np.int64), np.arange(1000) < 500, np.zeros(1000, bool), 0.2)
    recipe = replace(RECIPE, epochs=12)
    assert with_epochs(recipe, selection).epochs == 24
    milestones = replace(recipe, milestones=((3, 0.1),))
    assert with_epochs(milestones, selection) is milestones
    few = Selection(np.zeros(40, np.int64), np.arange(40) < 20, np.zeros(40, bool), 0.2)
    assert with_epochs(replace(RECIPE, epochs=1), few, settle=False).epochs == 2
    assert with_epochs(replace(RECIPE, epochs=1), few).epochs == 80, "160 batches, two per epoch"


def test_few_images_are_trained_on_for_160_batches_at_least() -> None:
    assert enough_epochs(PRESETS["fast"], 64).epochs == 80
    assert enough_epochs(PRESETS["fast"], 50_000).epochs == PRESETS["fast"].epochs


def test_certain_soft_labels_teach_what_the_labels_teach() -> None:
    X, y = features(60)
    curriculum = vanilla_curriculum(60, 0.0, 4)
    hard, networks = training_of(X, y, curriculum), [linear(1), linear(2)]
    certain = np.eye(3, dtype=np.float32)[y]
    soft = CoTraining(networks, FeatureBatches(X, ComputePlan()), certain, curriculum, RECIPE, seed=7)
    for training in (hard, soft):
        run_to_end(training)
    for a, b in zip(hard.networks, soft.networks, strict=True):
        torch.testing.assert_close(a[1].weight, b[1].weight)
    assert [epoch.keep_rate for epoch in soft.history] == [1] * 4


def test_weights_that_are_all_0_are_refused() -> None:
    X, y = features(60)
    with pytest.raises(InputError, match="all 60 weights are 0, so there is nothing to train on"):
        training_of(X, y, vanilla_curriculum(60, 0.0, 4), weights=np.zeros(60))


def test_what_memory_does_not_hold_captured_is_trained_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: RehearsedGraphs, step: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(RehearsedGraphs, "capture", full)
    X, y = features(90)
    curriculum = Curriculum(np.arange(60), np.arange(60, 90), 0.4, 0.5, warmup=2, ramp=2)
    ends = []
    for plan in (ComputePlan(), ComputePlan(captured=True)):
        source = FeatureBatches(X, plan)
        training = CoTraining([linear(1), linear(2)], source, y[curriculum.rows], curriculum, RECIPE, seed=7)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            run_to_end(training)
        records = [replace(epoch, images_per_second=1) for epoch in training.history]
        ends.append((torch.cat([p.flatten() for n in training.networks for p in n.parameters()]), records))
    assert [str(each.message) for each in told] == ["the memory of cpu is full: steps run one by one, not captured."]
    assert torch.equal(ends[1][0], ends[0][0])
    assert str(ends[1][1]) == str(ends[0][1]), "nothing is left in the records of what the capture tried"


@pytest.mark.parametrize("weighted", [False, True])
def test_captured_epochs_are_those_of_eager_steps(weighted: bool) -> None:
    X, y = features(90)
    curriculum = Curriculum(np.arange(60), np.arange(60, 90), 0.4, 0.5, warmup=2, ramp=2)
    weights = np.random.default_rng(1).random(90) if weighted else None
    ends = []
    for plan in (ComputePlan(), ComputePlan(captured=True)):
        networks = [linear(1), linear(2)]
        training = CoTraining(
            networks, FeatureBatches(X, plan), y[curriculum.rows], curriculum, RECIPE, weights=weights, seed=7
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing was left to eager steps
            run_to_end(training)
        ends.append((torch.cat([p.flatten() for n in networks for p in n.parameters()]), training.history))
    torch.testing.assert_close(ends[1][0], ends[0][0], rtol=1e-4, atol=1e-5)
    for one, other in zip(ends[0][1], ends[1][1], strict=True):
        assert (other.epoch, other.stage, other.images, other.keep_rate) == (
            one.epoch,
            one.stage,
            one.images,
            one.keep_rate,
        )
        assert (other.loss_kept, other.loss_left_out, other.agreement) == pytest.approx(
            (one.loss_kept, one.loss_left_out, one.agreement), rel=1e-4, nan_ok=True
        )
