"""How a network is trained."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from cvcoteach._validation import InputError
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.recipe import Recipe, learning_rate_at, shift_for


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing() -> None:
    recipe = Recipe(epochs=8, schedule="one-cycle", warmup=0.25, learning_rate=0.4)
    assert [learning_rate_at(recipe, e) for e in (0, 1, 2, 5, 8)] == pytest.approx([0, 0.2, 0.4, 0.2, 0])
    assert learning_rate_at(replace(recipe, warmup=0), 0) == 0.4


def test_a_constant_rate_stays() -> None:
    assert learning_rate_at(Recipe(schedule="constant", learning_rate=0.3), 5) == 0.3


def test_only_colour_images_are_mirrored_unless_the_recipe_says() -> None:
    assert Recipe().for_channels(3).flip is True
    assert Recipe().for_channels(1).flip is False
    assert Recipe(flip=True).for_channels(1).flip is True


def test_small_images_are_shifted_by_an_eighth_at_most() -> None:
    shifts = [shift_for(Recipe(shift=4), size, 64) for size in (7, 8, 16, 32, 64)]
    assert shifts == [0, 1, 2, 4, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it takes 1 or more"),
        ({"optimizer": "adamm"}, "did you mean adam"),
        ({"schedule": "cosine"}, "schedule is 'cosine'"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it takes a number above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"warmup": 1.0}, r"in \[0, 1\)"),
        ({"held_back": 0.0}, r"in \(0, 1\)"),
        ({"patience": 0}, "patience is 0"),
        ({"shift": -1}, "shift is -1"),
        ({"model": "small"}, "model is 'small'; it takes a ModelSpec"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(**change)


def test_few_images_are_trained_on_in_small_batches_but_in_the_papers_to_the_letter() -> None:
    assert [PRESETS["fast"].batch_of(n) for n in (100, 700, 1400, 10_000)] == [32, 50, 100, 125]
    assert PRESETS["paper"].batch_of(100) == 128


def test_predictions_are_mirrored_if_training_mirrors_and_nothing_forbids_it() -> None:
    assert Recipe(flip=True).mirrors_predictions
    assert not Recipe(flip=True, tta=False).mirrors_predictions
    assert not Recipe(flip=False).mirrors_predictions
    assert not Recipe().mirrors_predictions, "not decided"


def test_a_record_is_plain_json_with_the_model_as_text_as_earlier_versions_wrote_it() -> None:
    recipe = Recipe(model=ModelSpec.parse("backbone:timm:vit_tiny_patch16_224@96", "w.pth"), milestones=((20, 0.5),))
    record = json.loads(json.dumps(recipe.as_record()))
    assert list(record)[:3] == ["model", "weights", "epochs"]
    assert (record["model"], record["weights"]) == ("backbone:timm:vit_tiny_patch16_224@96", "w.pth")
    assert record["milestones"] == [[20, 0.5]]
    assert Recipe().as_record()["weights"] is None
    assert ModelSpec.parse(record["model"], record["weights"]) == recipe.model


def test_a_recipe_that_hides_nothing_is_recorded_as_by_earlier_versions() -> None:
    assert "hidden" not in Recipe().as_record()
    assert Recipe(hidden=0.3).as_record()["hidden"] == 0.3
    with pytest.raises(InputError, match="hidden is 1; it is a share of the features"):
        Recipe(hidden=1)
