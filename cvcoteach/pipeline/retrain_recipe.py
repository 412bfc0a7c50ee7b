"""Decide how a classifier is retrained: the user's settings, the run's network and the preset, in that order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cvcoteach._validation import InputError, near
from cvcoteach.coteaching.presets import COTEACHING_PRESETS, HEAD_RECIPE
from cvcoteach.pipeline.settings import RetrainSettings
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.presets import FINETUNE
from cvcoteach.training.recipe import Recipe


def recipe_of(settings: RetrainSettings, record: Mapping[str, Any]) -> Recipe:
    """Return the preset with the run's own network, overruled by what the user set.

    Pretrained networks are trained as find-issues trains them: frozen ones by heads on their features, fine-tuned ones
    gently.

    Args:
        settings: What the user set.
        record: The run.json of the finished run.

    Raises:
        InputError: The preset is unknown, or a setting does not fit the model.
    """
    if settings.preset not in COTEACHING_PRESETS:
        raise InputError(f"preset is {settings.preset!r}; {near(settings.preset, COTEACHING_PRESETS)}")
    base = COTEACHING_PRESETS[settings.preset]
    used, flip = _used_by(record) if settings.preset == "fast" else (None, None)
    model = ModelSpec.parse(settings.model) if settings.model is not None else used or base.model
    if used is not None and model.name == used.name:
        model = model.with_weights(used.weights)
    if settings.weights is not None:
        model = model.with_weights(settings.weights)
    if model.kind == "frozen":
        if settings.preset != "fast" or settings.flip is not None:
            option = "preset paper" if settings.preset != "fast" else "flip"
            raise InputError(f"model is {str(model)!r}, whose heads see features; {option} is for networks on images.")
        base = HEAD_RECIPE
    elif model.kind == "backbone" and settings.preset == "fast":
        base = FINETUNE
    recipe = replace(base, model=model, flip=base.flip if flip is None else flip)
    wanted = {name: getattr(settings, name) for name in ("epochs", "learning_rate", "flip")}
    return replace(recipe, **{name: value for name, value in wanted.items() if value is not None})


def _used_by(record: Mapping[str, Any]) -> tuple[ModelSpec | None, bool | None]:
    """Return the model that the run used, with its weights, and whether its recipe mirrored images; None: not known."""
    identity = record["identity"]
    recipe = identity.get("recipe", {})
    weights, flip = record.get("weights", recipe.get("weights")), recipe.get("flip")
    if "backbone" in identity:
        return ModelSpec("frozen", identity["backbone"], None, weights), flip
    return (ModelSpec.parse(recipe["model"], weights) if "model" in recipe else None), flip
