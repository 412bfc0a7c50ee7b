"""Recipes of Co-teaching by name."""

from __future__ import annotations

import pytest

from cvcoteach.coteaching.presets import COTEACHING_PRESETS, HEAD_RECIPE
from cvcoteach.training.recipe import learning_rate_at


def test_the_paper_preset_has_200_epochs_and_the_published_rates() -> None:
    paper = COTEACHING_PRESETS["paper"]
    assert (str(paper.model), paper.epochs, paper.batch_size) == ("resnet32", 200, 128)
    rates = [learning_rate_at(paper, epoch) for epoch in (0, 79, 80, 120, 160, 180)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5, 1e-6, 5e-7])


def test_heads_are_not_augmented() -> None:
    assert (HEAD_RECIPE.shift, HEAD_RECIPE.flip, HEAD_RECIPE.mirrors_predictions) == (0, False, False)
