"""The preset `auto` at work: a look at the images, a choice, or the choice that an earlier run began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cvcoteach._progress import duration
from cvcoteach.data.brightness import brightness_levels
from cvcoteach.data.images import natural_size, size_for
from cvcoteach.data.sources import Source
from cvcoteach.engines.trainer import RayTrainer
from cvcoteach.noise_model.top_probs import many
from cvcoteach.pipeline.learned import folds_of, n_learned
from cvcoteach.pipeline.settings import Machine, Settings
from cvcoteach.training.auto_preset import (
    BACKBONES,
    ENOUGH_FROM_SCRATCH,
    PACKAGED_BACKBONE,
    TIME_FOR_A_SECOND_VIEW,
    Look,
    choose,
    seconds_to_extract,
)
from cvcoteach.training.backbones import Backbone, load_backbone
from cvcoteach.training.devices import choose_device, choose_threads, set_threads
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.torch_trainer import TorchTrainer


@dataclass(frozen=True, eq=False)
class Automatic:
    """What the preset `auto` decided."""

    settings: Settings
    """With the network that was chosen."""
    backbone: Backbone | None
    """Loaded; None for the small network."""
    record: Mapping[str, Any]
    """For run.json: what a later run goes on with."""
    note: str | None
    """What was chosen, why, and how long it takes; None where that is only known once networks are timed."""
    reason: str | None
    """The same without the time, for networks that are timed later."""


def decide(data: Source, settings: Settings, machine: Machine) -> Automatic:
    """Choose for these images and this machine. Raises InputError where no image can be read."""
    device = choose_device(machine.device)
    look = Look(len(data), natural_size(data), brightness_levels(data))
    choice = choose(look, device, size=settings.image_size)
    backbone = choice.backbone
    record: dict[str, Any] = {
        "backbone": backbone.name if backbone else None,
        "finetune": choice.finetune,
        "image_size": backbone.size if backbone else settings.image_size,
        "also_from_scratch": False,
    }
    if backbone is None or choice.finetune:
        return Automatic(replace(settings, **record), backbone, record, None, choice.reason)
    set_threads(choose_threads(machine.threads))
    seconds, reason, wanted = seconds_to_extract(backbone, look, device), choice.reason, settings.also_from_scratch
    enough = look.n_images >= ENOUGH_FROM_SCRATCH and not many(len(data), len(data.class_names)) and wanted is not False
    if settings.selection == "posterior" and (wanted or enough):
        more = _seconds_from_scratch(data, settings, machine)
        has_time = more is not None and more <= TIME_FOR_A_SECOND_VIEW
        record["also_from_scratch"] = bool(wanted or has_time)
        if record["also_from_scratch"]:
            seconds += more or 0.0
            reason += ", and small networks from scratch as a second view"
    return Automatic(replace(settings, **record), backbone, record, as_chosen(reason, seconds), None)


def _seconds_from_scratch(data: Source, settings: Settings, machine: Machine) -> float | None:
    """Estimate how long all trainings of small networks on these images take; None where that is not known."""
    side = size_for(data, None)
    sample = np.zeros((min(len(data), PRESETS["fast"].batch_size), side, side, 3), np.uint8)
    trainer = TorchTrainer(sample, len(data.class_names), device=machine.device, threads=machine.threads)
    return seconds_to_train(trainer, folds_of(settings.cross_validation, data), n_learned(data))


def decided(data: Source, settings: Settings, machine: Machine, before: Mapping[str, Any]) -> Automatic:
    """Return what an earlier run began with. Raises InputError where its network cannot be loaded now.

    before: its `record`; one that this preset cannot have written is not followed.
    """
    name, size = before.get("backbone"), before.get("image_size")
    finetune, second = before.get("finetune"), before.get("also_from_scratch")
    known = name is None or name in (*BACKBONES.values(), PACKAGED_BACKBONE)
    fits = known and isinstance(finetune, bool) and isinstance(second, bool) and isinstance(size, int | None)
    if not fits or (second and (name is None or finetune or settings.selection == "agreement")):
        return decide(data, settings, machine)
    backbone = None if name is None else load_backbone(name, size=size)
    record: dict[str, Any] = {
        "backbone": name, "finetune": finetune, "image_size": size, "also_from_scratch": second,
    }  # fmt: skip
    what = "a small network" if name is None else f"fine-tuning of {name}" if finetune else f"features of {name}"
    what += " and networks from scratch" if second else ""
    note = f"preset auto goes on with {what}, as it began."
    return Automatic(replace(settings, **record), backbone, record, note, None)


def as_chosen(reason: str, seconds: float | None) -> str:
    """Return what was chosen, why, and how long it takes, in one sentence."""
    time = "" if seconds is None else f"; that takes about {duration(seconds)}"
    return f"preset auto takes {reason}{time}."


def seconds_to_train(trainer: TorchTrainer | RayTrainer, folds: Sequence[int], n_images: int) -> float | None:
    """Estimate how long all trainings take, by the speed that the trainer's plan measured; None where it did not."""
    plan, recipe = trainer.plan, trainer.recipe
    if plan is None or recipe is None or not plan.measured:
        return None
    at_once = trainer.side_by_side if isinstance(trainer, RayTrainer) else 1
    turns = sum(-(-n_folds // at_once) * (n_folds - 1) / n_folds for n_folds in folds)  # a training leaves one part out
    return float(recipe.epochs * turns * n_images / max(plan.measured.values()))
