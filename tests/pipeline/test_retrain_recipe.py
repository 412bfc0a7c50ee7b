"""How a classifier is retrained, by settings, run and preset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cvcoteach._validation import InputError
from cvcoteach.coteaching.presets import COTEACHING_PRESETS
from cvcoteach.pipeline.retrain_recipe import recipe_of
from cvcoteach.pipeline.settings import RetrainSettings
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.presets import FINETUNE


def test_what_is_trained_follows_from_how_the_run_judged() -> None:
    fine_tuned = {
        "identity": {"recipe": replace(FINETUNE, model=ModelSpec.parse("backbone:torchvision:resnet18")).as_record()}
    }
    assert recipe_of(RetrainSettings(), fine_tuned).learning_rate == FINETUNE.learning_rate
    assert recipe_of(RetrainSettings(), fine_tuned).body_rate == 0.1
    scratch = recipe_of(RetrainSettings(model="small", learning_rate=0.5), fine_tuned)
    assert (str(scratch.model), scratch.learning_rate, scratch.optimizer) == ("small", 0.5, "sgd")
    frozen = {"identity": {"backbone": "torchvision:resnet18", "image_size": 224}, "weights": "none"}
    heads = recipe_of(RetrainSettings(), frozen)
    assert (str(heads.model), heads.model.weights, heads.optimizer) == ("frozen:torchvision:resnet18", "none", "adamw")
    fine = recipe_of(RetrainSettings(model="backbone:torchvision:resnet18"), frozen)
    assert fine.model.weights == "none", "those of the run"
    assert recipe_of(RetrainSettings(model="backbone:torchvision:resnet50"), frozen).model.weights is None
    with pytest.raises(InputError, match="heads see features; flip is for networks on images"):
        recipe_of(RetrainSettings(flip=True), frozen)
    with pytest.raises(InputError, match="heads see features; preset paper is for networks"):
        recipe_of(RetrainSettings(preset="paper", model="frozen:torchvision:resnet18"), frozen)
    absolute = {**fine_tuned, "weights": "/elsewhere/w.pth"}
    assert recipe_of(RetrainSettings(), absolute).model.weights == "/elsewhere/w.pth"
    assert str(recipe_of(RetrainSettings(preset="paper"), frozen).model) == "resnet32"


def test_mirroring_of_the_run_is_kept_unless_the_user_sets_it() -> None:
    run = {"identity": {"recipe": {"model": "small", "weights": None, "flip": True}}}
    assert recipe_of(RetrainSettings(), run).flip is True
    assert recipe_of(RetrainSettings(flip=False), run).flip is False
    assert recipe_of(RetrainSettings(preset="paper"), run) == COTEACHING_PRESETS["paper"]


def test_an_unknown_preset_is_refused_by_naming_a_near_one() -> None:
    with pytest.raises(InputError, match="preset is 'fats'; did you mean fast"):
        recipe_of(RetrainSettings(preset="fats"), {"identity": {}})
