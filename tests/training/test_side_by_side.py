"""Folds side by side: as one after the other, and with less at a time where memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cvcoteach._validation import InputError
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.crossval.trainer import Fold, ParallelFoldTrainer
from cvcoteach.pipeline.trainers import on_rows
from cvcoteach.training import side_by_side
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.loop import EpochReport, Training
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.together import run_together
from cvcoteach.training.torch_trainer import TorchTrainer

PLAN = ComputePlan()
RECIPE = Recipe(ModelSpec.parse(f"{__name__}:Plain"), epochs=3, batch_size=16, learning_rate=0.02)
BESIDE = ComputePlan(captured=True, side_by_side=3)
N = 50


class Plain(nn.Module):
    """Linear, behind batch normalisation."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(192, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm(images).flatten(1))
        return out


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)


def folds(n_folds: int = 5) -> list[Fold]:
    every, labels = np.arange(N), np.arange(N) % 3
    return [
        Fold(every[every % n_folds != k], labels[every % n_folds != k], every[every % n_folds == k], k)
        for k in range(n_folds)
    ]


def test_only_a_plan_for_several_makes_a_trainer_of_folds_side_by_side() -> None:
    assert not isinstance(TorchTrainer(pixels(), 3, RECIPE, plan=PLAN), ParallelFoldTrainer)
    assert isinstance(TorchTrainer(pixels(), 3, RECIPE, plan=BESIDE), ParallelFoldTrainer)


def test_folds_side_by_side_answer_as_one_after_the_other() -> None:
    alone = TorchTrainer(pixels(), 3, RECIPE, plan=PLAN)
    beside = TorchTrainer(pixels(), 3, RECIPE, plan=BESIDE)
    answers = dict(beside.fit_predict_each(folds()))
    assert sorted(answers) == [0, 1, 2, 3, 4]
    for position, fold in enumerate(folds()):
        np.testing.assert_allclose(answers[position], alone.fit_predict(*fold), atol=1e-4)
    # whichever others train beside it
    part = dict(beside.fit_predict_each(folds()[3:]))
    np.testing.assert_array_equal(part[0], answers[3])


def test_folds_side_by_side_in_eager_steps_answer_to_the_bit() -> None:
    alone = TorchTrainer(pixels(), 3, RECIPE, plan=PLAN)
    beside = TorchTrainer(pixels(), 3, RECIPE, plan=replace(PLAN, side_by_side=2))
    for position, answer in beside.fit_predict_each(folds()):
        np.testing.assert_array_equal(answer, alone.fit_predict(*folds()[position]))


def test_folds_that_stop_early_answer_as_one_after_the_other() -> None:
    recipe = replace(RECIPE, epochs=8, patience=1, learning_rate=0.5)
    alone = TorchTrainer(pixels(), 3, recipe, plan=PLAN)
    beside = TorchTrainer(pixels(), 3, recipe, plan=replace(PLAN, side_by_side=5))
    for position, answer in beside.fit_predict_each(folds()):
        np.testing.assert_array_equal(answer, alone.fit_predict(*folds()[position]))


@pytest.mark.slow
def test_a_whole_cross_validation_is_the_same() -> None:
    labels, recipe = np.arange(N) % 3, replace(RECIPE, model=ModelSpec("own", "small"))
    alone = cross_validate(TorchTrainer(pixels(), 3, recipe, plan=PLAN), labels, n_folds=4)
    beside = cross_validate(TorchTrainer(pixels(), 3, recipe, plan=BESIDE), labels, n_folds=4)
    np.testing.assert_allclose(beside, alone, atol=1e-4)


def test_folds_without_images_to_answer_for_and_wrong_ones() -> None:
    beside = TorchTrainer(pixels(), 3, RECIPE, plan=BESIDE)
    first, second = folds(2)
    answers = dict(beside.fit_predict_each([first._replace(eval_idx=first.eval_idx[:0]), second]))
    assert answers[0].shape == (0, 3)
    assert answers[1].shape == (25, 3)
    with pytest.raises(InputError, match="train_idx is empty"):
        list(beside.fit_predict_each([second, first._replace(train_idx=first.train_idx[:0])]))


def test_progress_counts_the_folds_that_wait() -> None:
    reports: list[EpochReport] = []
    plan = replace(PLAN, side_by_side=2)
    list(TorchTrainer(pixels(), 3, RECIPE, plan=plan, on_epoch=reports.append).fit_predict_each(folds(4)))
    # two of four are trained first: after their three epochs, one and a half of the four are done on average
    assert [report.epoch for report in reports] == [1, 1, 2, 1, 2, 3]
    assert all(report.n_epochs == 3 and report.images_per_second > 0 for report in reports)


def test_where_memory_runs_out_fewer_folds_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def crowded(trainings: Sequence[Training]) -> list[EpochReport]:
        tried.append(len(trainings))
        if len(trainings) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return run_together(trainings)

    monkeypatch.setattr(side_by_side, "run_together", crowded)
    notes: list[str] = []
    trainer = TorchTrainer(pixels(), 3, RECIPE, plan=replace(PLAN, side_by_side=5), note=notes.append)
    answers = dict(trainer.fit_predict_each(folds()))
    assert notes == ["the memory of cpu is full: 2 of 5 networks at the same time."]
    assert tried == [5] + [2] * 6 + [1] * 3
    alone = TorchTrainer(pixels(), 3, RECIPE, plan=PLAN)
    for position, fold in enumerate(folds()):
        np.testing.assert_array_equal(answers[position], alone.fit_predict(*fold))


class Greedy(nn.Module):
    """Runs out of memory on more than `room` images."""

    room = 5
    error = torch.OutOfMemoryError

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise self.error("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        out: Tensor = self.linear(images.mean(dim=(2, 3)))
        return out


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("captured", [False, True])
def test_where_one_network_is_too_much_batches_shrink(
    captured: bool, error: type[RuntimeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greedy, "error", error)
    notes: list[str] = []
    recipe = replace(RECIPE, model=ModelSpec.parse(f"{__name__}:Greedy"), least_batches=0)
    plan = replace(PLAN, captured=captured, side_by_side=2)
    trainer = TorchTrainer(pixels(), 3, recipe, plan=plan, note=notes.append)
    answers = dict(trainer.fit_predict_each(folds(2)))
    assert {position: answer.shape for position, answer in answers.items()} == {0: (25, 3), 1: (25, 3)}
    assert notes == [
        "the memory of cpu is full: 1 of 2 networks at the same time.",
        "the memory of cpu is full: batches of 8 images, not 16.",
        "the memory of cpu is full: batches of 4 images, not 8.",
    ]


def test_where_nothing_fits_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Greedy, "room", 1)
    recipe = replace(RECIPE, model=ModelSpec.parse(f"{__name__}:Greedy"))
    trainer = TorchTrainer(pixels(), 3, recipe, plan=PLAN, note=[].append)
    with pytest.raises(InputError, match="the memory of cpu does not hold the training of one network on two images"):
        trainer.fit_predict(*folds()[0])


def test_what_a_network_cannot_be_captured_for_is_said_once() -> None:
    notes: list[str] = []
    recipe = replace(RECIPE, model=ModelSpec.parse(f"{__name__}:Wavering"))
    trainer = TorchTrainer(pixels(), 3, recipe, plan=BESIDE, note=notes.append)
    answers = dict(trainer.fit_predict_each(folds()))
    assert len(notes) == 1
    assert notes[0].startswith("steps run one by one, since they cannot be captured")
    eager = TorchTrainer(pixels(), 3, recipe, plan=PLAN)
    np.testing.assert_array_equal(answers[2], eager.fit_predict(*folds()[2]))


class Wavering(Greedy):
    """Looks at its input."""

    room = N

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(-images if bool(images.mean() > 0) else images)


def test_a_trainer_of_some_rows_trains_as_many_at_the_same_time() -> None:
    rows = np.arange(N)[::2]
    every = TorchTrainer(pixels(), 3, RECIPE, plan=BESIDE)
    some, labels = on_rows(every, rows), np.arange(25) % 3
    asked = [Fold(np.arange(k, 25, 2), labels[k::2], np.arange(1 - k, 25, 2), k) for k in range(2)]
    assert isinstance(some, ParallelFoldTrainer)
    assert not isinstance(on_rows(TorchTrainer(pixels(), 3, RECIPE, plan=PLAN), rows), ParallelFoldTrainer)
    answers = dict(some.fit_predict_each(asked))
    for position, fold in enumerate(asked):
        np.testing.assert_array_equal(answers[position], some.fit_predict(*fold))
