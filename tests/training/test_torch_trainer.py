"""Folds trained by PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from cvcoteach._validation import InputError, IntArray
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.loop import EpochReport
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.torch_trainer import TorchTrainer

PLAN = ComputePlan(threads=1)
QUICK = Recipe(epochs=2, batch_size=16)


def images(n: int = 48, channels: int = 3, size: int = 8) -> tuple[npt.NDArray[np.uint8], IntArray]:
    """Dark images with a bright bar whose place tells the class, 0..2."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    pixels = rng.integers(0, 80, (n, size, size, channels), dtype=np.uint8)
    for k in range(3):
        pixels[labels == k, 2 * k : 2 * k + 2] += 150
    return pixels, labels


def fold(n: int = 48) -> tuple[IntArray, IntArray, IntArray]:
    _, labels = images(n)
    return np.arange(0, n, 2), labels[::2], np.arange(1, n, 2)


def test_it_keeps_the_contract_of_folds() -> None:
    pixels, _ = images()
    trainer: FoldTrainer = TorchTrainer(pixels, 4, QUICK, plan=PLAN)
    train, labels, rest = fold()
    probs = trainer.fit_predict(train, labels, rest, seed=0)
    assert probs.shape == (24, 4)  # class 3 is in no training image and keeps its column
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    assert trainer.fit_predict(train, labels, rest[:0], seed=0).shape == (0, 4)
    with pytest.raises(InputError, match="train_idx is empty"):
        trainer.fit_predict(train[:0], labels[:0], rest, seed=0)
    with pytest.raises(InputError, match="train_labels has 24 labels up to 4"):
        trainer.fit_predict(train, labels + 2, rest, seed=0)


def test_it_learns_bars() -> None:
    pixels, labels = images(160)
    trainer = TorchTrainer(pixels, 3, replace(QUICK, epochs=10, shift=0, learning_rate=0.05), plan=PLAN)
    probs = cross_validate(trainer, labels, n_folds=2)
    assert (probs.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_seed_and_plan_decide_every_bit_whatever_ran_before(dtype: str) -> None:
    pixels, _ = images()
    plan = replace(PLAN, dtype=dtype, channels_last=True)
    first = TorchTrainer(pixels, 3, QUICK, plan=plan)
    answer = first.fit_predict(*fold(), seed=5)
    torch.manual_seed(1)
    other = first.fit_predict(*fold(), seed=6)
    assert not np.array_equal(answer, other)
    assert np.array_equal(first.fit_predict(*fold(), seed=5), answer)
    assert np.array_equal(TorchTrainer(pixels, 3, QUICK, plan=plan).fit_predict(*fold(), seed=5), answer)


IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from test_torch_trainer import PLAN, QUICK, fold, images
from cvcoteach.training.torch_trainer import TorchTrainer
sys.stdout.write(TorchTrainer(images()[0], 3, QUICK, plan=PLAN).fit_predict(*fold(), seed=5).tobytes().hex())
"""


@pytest.mark.slow
def test_another_process_gives_the_same_bits() -> None:
    here = TorchTrainer(images()[0], 3, QUICK, plan=PLAN).fit_predict(*fold(), seed=5)
    code = IN_ANOTHER_PROCESS.format(tests=str(Path(__file__).parent))
    # another wish for threads must not matter: the plan's number counts
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path(__file__).parents[2])}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout == here.tobytes().hex()


def test_held_out_labels_cannot_matter_since_no_signature_takes_them() -> None:
    pixels, _ = images()
    train, labels, rest = fold()
    trainer = TorchTrainer(pixels, 3, replace(QUICK, patience=1), plan=PLAN)
    answer = trainer.fit_predict(train, labels, rest, seed=0)
    alone = trainer.fit_predict(train, labels, rest[:5], seed=0)
    np.testing.assert_allclose(alone, answer[:5], atol=1e-5)  # what is asked about does not steer the training


def test_what_stops_early_is_a_part_of_the_training_images() -> None:
    reports: list[EpochReport] = []
    pixels, _ = images()
    recipe = replace(QUICK, epochs=30, patience=1, learning_rate=1.0)
    TorchTrainer(pixels, 3, recipe, plan=PLAN, on_epoch=reports.append).fit_predict(*fold(), seed=0)
    assert all(report.validation_loss is not None for report in reports)
    assert len(reports) < 30


def test_progress_is_told_after_each_epoch() -> None:
    reports: list[EpochReport] = []
    pixels, _ = images()
    TorchTrainer(pixels, 3, QUICK, plan=PLAN, on_epoch=reports.append).fit_predict(*fold(), seed=0)
    assert [(report.epoch, report.n_epochs) for report in reports] == [(1, 2), (2, 2)]
    assert all(report.images_per_second > 0 and report.validation_loss is None for report in reports)


def test_mirrored_prediction_is_for_mirrored_training_only() -> None:
    pixels, _ = images(channels=1)
    grey = TorchTrainer(pixels, 3, QUICK, plan=PLAN).fit_predict(*fold(), seed=0)
    without = TorchTrainer(pixels, 3, replace(QUICK, tta=False), plan=PLAN).fit_predict(*fold(), seed=0)
    assert np.array_equal(grey, without)
    mirrored = replace(QUICK, flip=True)
    grey = TorchTrainer(pixels, 3, mirrored, plan=PLAN).fit_predict(*fold(), seed=0)
    without = TorchTrainer(pixels, 3, replace(mirrored, tta=False), plan=PLAN).fit_predict(*fold(), seed=0)
    assert not np.array_equal(grey, without)


def test_a_memory_map_gives_what_an_array_gives(tmp_path: Path) -> None:
    pixels, _ = images()
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    expected = TorchTrainer(pixels, 3, QUICK, plan=PLAN).fit_predict(*fold(), seed=0)
    for resident in (False, True):
        trainer = TorchTrainer(mapped, 3, QUICK, plan=replace(PLAN, resident=resident))
        assert np.array_equal(trainer.fit_predict(*fold(), seed=0), expected)


def test_a_probed_plan_repeats_the_result() -> None:
    pixels, _ = images()
    probed = TorchTrainer(pixels, 3, QUICK, device="cpu", threads=1)
    answer = probed.fit_predict(*fold(), seed=0)
    assert probed.plan.device == "cpu"
    assert probed.plan.threads == 1
    assert "float32" in probed.plan.measured
    again = TorchTrainer(pixels, 3, QUICK, plan=ComputePlan.recorded({"plan": asdict(probed.plan)}, None))
    assert np.array_equal(again.fit_predict(*fold(), seed=0), answer)


class TwoColumns(nn.Module):
    """Answers with two columns, whatever it is asked."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(images.mean(dim=(2, 3)))
        return out


def test_networks_that_do_not_fit_the_images_or_classes_are_one_sentence() -> None:
    pixels, _ = images()
    with pytest.raises(InputError, match=r"returns shape \(1, 2\) for one image; 3 classes need \(1, 3\)"):
        TorchTrainer(pixels, 3, replace(QUICK, model=ModelSpec.parse(f"{__name__}:TwoColumns")), plan=PLAN).fit_predict(
            *fold(), seed=0
        )
    recipe = replace(QUICK, model=ModelSpec.parse("alexnet", "none"))
    with pytest.raises(InputError, match="alexnet does not take images of 8×8 pixels with 3 channels"):
        _ = TorchTrainer(pixels, 3, recipe).plan


def test_what_cannot_be_is_refused_before_anything_is_trained() -> None:
    pixels, _ = images()
    with pytest.raises(InputError, match="did you mean small"):
        TorchTrainer(pixels, 3, replace(QUICK, model=ModelSpec.parse("smal")))
    with pytest.raises(InputError, match="heads on frozen features are trained with backbone torchvision:resnet18"):
        TorchTrainer(pixels, 3, replace(QUICK, model=ModelSpec.parse("frozen:torchvision:resnet18")))
    with pytest.raises(InputError, match="which this machine does not have"):
        TorchTrainer(pixels, 3, device="tpu")
    with pytest.raises(InputError, match="it takes uint8"):
        TorchTrainer(pixels.astype(np.float32), 3)


@pytest.mark.slow
def test_handwritten_digits_are_read_out_of_sample() -> None:
    digits = load_digits()
    pixels = (digits.images[..., None] * 255 / 16).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    probs = cross_validate(TorchTrainer(pixels, 10, threads=1, device="cpu"), labels, n_folds=2)
    assert (probs.argmax(axis=1) == labels).mean() > 0.96
