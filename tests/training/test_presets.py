"""Recipes by name."""

from __future__ import annotations

import pytest

from cvcoteach.training.presets import FINETUNE, PRESETS
from cvcoteach.training.recipe import learning_rate_at


def test_the_paper_preset_is_what_incv_published() -> None:
    paper = PRESETS["paper"]
    assert (str(paper.model), paper.optimizer, paper.learning_rate, paper.batch_size) == ("resnet32", "adam", 1e-3, 128)
    assert (paper.epochs, paper.shift, paper.flip, paper.patience) == (50, 4, True, None)
    rates = [learning_rate_at(paper, epoch) for epoch in (0, 19.99, 20, 29.99, 30, 39.99, 40, 49.99)]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1e-4, 1e-4])


def test_fine_tuning_moves_the_body_a_tenth_as_fast_as_the_last_layer() -> None:
    assert (FINETUNE.body_rate, FINETUNE.optimizer, FINETUNE.epochs) == (0.1, "adamw", 5)
