"""Images from Python, and the trainers that the preset chooses for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cvcoteach._validation import InputError, check_rows, near
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.data.images import LARGEST_SMALL_IMAGE
from cvcoteach.data.items import look_at, pixels_of
from cvcoteach.data.levels import Pixels
from cvcoteach.noise_model.top_probs import many
from cvcoteach.pipeline.automatic import as_chosen, seconds_to_train
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.settings import InMemorySettings
from cvcoteach.training.auto_preset import (
    ENOUGH_FROM_SCRATCH,
    TIME_FOR_A_SECOND_VIEW,
    Look,
    choose,
    seconds_to_extract,
)
from cvcoteach.training.backbones import Backbone
from cvcoteach.training.devices import choose_device, choose_threads, set_threads
from cvcoteach.training.extraction import Extractor
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.torch_trainer import TorchTrainer


def trainers_for(
    images: Any, n_classes: int, settings: InMemorySettings, n_labels: int, progress: RunProgress, n_learned: int
) -> tuple[Pixels, Sequence[FoldTrainer]]:
    """Return the images as pixels (n, H, W, C), and the trainers that the preset chooses, one for each view.

    Args:
        images: Of any kind, see `pixels_of`.
        n_classes: K.
        settings: Their preset and rounds count.
        n_labels: As many images there shall be.
        progress: Is told what was chosen, and follows the features.
        n_learned: Images that models learn from, those held out not being among them.

    Raises:
        InputError: For another number of images, what is no images, and an unknown preset.
    """
    if settings.preset not in ("auto", *PRESETS):
        raise InputError(f"preset is {settings.preset!r}; {near(settings.preset, ('auto', *PRESETS))}")
    if settings.preset != "auto":
        pixels = pixels_of(images, "images")
        check_rows(n_labels, "images", len(pixels))
        return pixels, [TorchTrainer(pixels, n_classes, PRESETS[settings.preset])]
    look, device = Look(*look_at(images, "images")), choose_device(None)
    check_rows(n_labels, "images", look.n_images)
    choice = choose(look, device)
    if choice.backbone is None:
        progress.note(as_chosen(choice.reason, None))
        pixels = pixels_of(images, "images")
        return pixels, [TorchTrainer(pixels, n_classes)]
    set_threads(choose_threads(None))
    pixels = pixels_of(images, "images", min(look.side, choice.backbone.size))
    seconds = seconds_to_extract(choice.backbone, look, device)
    second = _second(pixels, n_classes, settings)
    more = None if second is None else seconds_to_train(second, settings.cross_validation.folds(n_learned), n_learned)
    reason = choice.reason
    if choice.finetune:  # of a folder; from Python heads are trained all the same
        reason = f"heads on features of {choice.backbone.name} at {choice.backbone.size} pixels, since "
        reason += f"the {n_labels:,} images look like photographs"
    if second is None or more is None or more > TIME_FOR_A_SECOND_VIEW:
        progress.note(as_chosen(reason, seconds))
        return pixels, [_heads(pixels, n_classes, choice.backbone, progress)]
    progress.note(as_chosen(reason + ", and small networks from scratch as a second view", seconds + more))
    return pixels, [_heads(pixels, n_classes, choice.backbone, progress), second]


def _heads(pixels: Pixels, n_classes: int, backbone: Backbone, progress: RunProgress) -> FoldTrainer:
    extractor = Extractor(backbone, pixels, choose_device(None))
    features, done = [], 0
    for batch in extractor.features(0, len(pixels)):
        features.append(batch)
        done += len(batch)
        progress.extracting(done, len(pixels))
    return HeadTrainer(np.concatenate(features), n_classes)


def _second(pixels: Pixels, n_classes: int, settings: InMemorySettings) -> TorchTrainer | None:
    """Return the trainer of small networks from scratch, None where these images or rounds are not for them."""
    fits = len(pixels) >= ENOUGH_FROM_SCRATCH and max(pixels.shape[1:3]) <= LARGEST_SMALL_IMAGE
    fits &= not many(len(pixels), n_classes)
    return TorchTrainer(pixels, n_classes) if fits and settings.filter_by == "posterior" else None
