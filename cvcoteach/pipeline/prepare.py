"""From a source and settings to images or features with labels, and a trainer for them. Nothing is trained here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._files import digest
from cvcoteach._progress import duration
from cvcoteach._validation import InputError, IntArray, PredProbs, check_classes_repeat
from cvcoteach.crossval.groups import as_groups, n_units
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.data.images import Images, load_images, natural_size, size_for
from cvcoteach.data.levels import Levels
from cvcoteach.data.sources import Choices, Source, read_source
from cvcoteach.pipeline.copies import Content, bind_copies
from cvcoteach.pipeline.given_features import given_features
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import Machine, Settings
from cvcoteach.training.auto_preset import choose, seconds_to_extract
from cvcoteach.training.backbones import Backbone, load_backbone
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import choose_device
from cvcoteach.training.extraction import extract_features
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.presets import FINETUNE, PRESETS
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.torch_trainer import TorchTrainer


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images or features with labels, and a trainer for them, before anything is trained."""

    source: Source
    """Without unreadable images."""
    unreadable: Mapping[str, str]
    """Path -> why it was left out."""
    identity: dict[str, Any]
    """Everything that decides the result, for run.json."""
    make_trainer: Callable[[RunFolder], FoldTrainer]
    """Returns the trainer, with the compute plan that the folder records."""
    content: Content | None = None
    """What the images hold; None: not known."""
    seconds_reading: float = 0.0
    """Time that decoding and feature extraction took, seconds."""
    first_copy: IntArray | None = None
    """(n,) the first image with the same pixels or features, itself where there is none; None where there are none."""
    n_groups: int | None = None
    """Number of groups that were named."""
    images: Mapping[str, Any] = field(default_factory=dict)
    """Number of all images, and the digest of their content where they were read."""


@dataclass(frozen=True, eq=False)
class _OnRows:
    """A trainer for some rows of its images: image i of the run is row `rows[i]`."""

    trainer: FoldTrainer
    """For all rows."""
    rows: IntArray
    """(n,) rows of the run's images."""

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        return self.trainer.fit_predict(self.rows[train_idx], train_labels, self.rows[eval_idx], seed)


def prepare(
    source: Path | Source,
    settings: Settings,
    machine: Machine,
    progress: RunProgress,
    *,
    choices: Choices | None = None,
    groups: npt.ArrayLike | None = None,
) -> Prepared:
    """Read the source, decode its images, compute its features: whatever the settings need.

    Args:
        source: Images with labels, or where to read them.
        settings: What decides the result.
        machine: Where to compute.
        progress: Follows the reading.
        choices: How to read the source.
        groups: (n,) group of each image, of any kind, in the order of the source; None: the source's own, if any.

    Raises:
        InputError: Anything does not fit.
    """
    started = time.perf_counter()
    choose_device(machine.device)  # fails before a million images are read
    _check(settings)
    data = source
    if not isinstance(data, Source):
        data = read_source(data, **asdict(replace(choices or Choices(), cache_dir=machine.cache_dir)))
        progress.note(f"{data.description}.")
    check_classes_repeat(data.labels)
    if groups is not None:
        data = replace(data, groups=as_groups(groups, len(data)))
    incv, backbone = settings.cross_validation, None
    if settings.preset == "auto" and settings.features is None and settings.backbone is None:
        settings, backbone = _automatic(data, settings, machine, progress)
    if settings.features is not None:
        prepared = _with_features(data, settings, machine, progress)
    elif settings.backbone is not None and not settings.finetune:
        prepared = _with_backbone(data, settings, machine, progress, backbone)
    else:
        prepared = _with_images(data, settings, machine, progress, backbone)
    named = prepared.source.groups
    prepared = replace(prepared, n_groups=None if named is None else n_units(len(named), named))
    if prepared.content is not None:
        bound, first_copy = bind_copies(prepared.source, prepared.content, max(incv.folds(len(prepared.source))))
        prepared = replace(prepared, source=bound, first_copy=first_copy)
    kept = prepared.source
    folds = incv.folds(n_units(len(kept), kept.groups))
    identity: dict[str, Any] = {"select": incv.select, "folds": folds, "seed": incv.seed}
    if kept.groups is not None:
        identity |= {"groups_digest": digest(kept.groups)}
    if incv.select == "agreement":
        identity |= {"remove_ratio": incv.remove_ratio}
    labels_digest = digest(kept.labels, *kept.class_names)
    paths_digest = digest("\0".join(kept.paths))
    return replace(
        prepared,
        identity=identity | prepared.identity | {"labels_digest": labels_digest, "paths_digest": paths_digest},
        seconds_reading=time.perf_counter() - started,
        images={"count": len(data), **prepared.images},
    )


_OF_NETWORKS = ("epochs", "learning_rate", "flip", "patience")
"""Settings of networks on images that heads on features ignore."""


def _check(settings: Settings) -> None:
    if settings.finetune and settings.backbone is None:
        raise InputError("finetune is set without a backbone; name the network to fine-tune with --backbone.")
    if settings.features is not None and settings.backbone is not None:
        raise InputError("features and backbone are both given; features come from only one of them.")


def _automatic(
    data: Source, settings: Settings, machine: Machine, progress: RunProgress
) -> tuple[Settings, Backbone | None]:
    if settings.model is not None:
        raise InputError(f"model is {settings.model!r}, but preset auto chooses the model; leave one of them out.")
    device = choose_device(machine.device)
    load = partial(load_backbone, weights=settings.weights, trusted=machine.trusted)
    choice = choose(len(data), natural_size(data), device, size=settings.image_size, load=load)
    progress.note(f"preset auto takes {choice.reason}.")
    name = choice.backbone.name if choice.backbone else None
    return replace(settings, backbone=name, finetune=choice.finetune), choice.backbone


def _with_features(data: Source, settings: Settings, machine: Machine, progress: RunProgress) -> Prepared:
    assert settings.features is not None
    given = given_features(settings.features, data, progress, machine.max_pixels)
    data, features = given.source, given.features
    _check_classes(data)
    trainer = _heads(features, data, settings, machine, progress)
    identity = {"head": settings.head, "features_digest": digest(features)}
    return Prepared(data, given.unreadable, identity, lambda run: trainer, content=Content(features))


def _heads(
    features: npt.NDArray[Any], data: Source, settings: Settings, machine: Machine, progress: RunProgress
) -> FoldTrainer:
    ignored = [name for name in _OF_NETWORKS if getattr(settings, name) is not None]
    if ignored:
        progress.note(f"ignored for heads on features: {', '.join(ignored)}.")
    return HeadTrainer(
        features,
        len(data.class_names),
        settings.head,
        device=machine.device,
        threads=machine.threads,
        on_epoch=progress.epoch,
    )


def _with_backbone(
    data: Source, settings: Settings, machine: Machine, progress: RunProgress, backbone: Backbone | None
) -> Prepared:
    assert settings.backbone is not None
    if backbone is None:
        backbone = load_backbone(settings.backbone, settings.weights, size=settings.image_size, trusted=machine.trusted)
    # smaller images are scaled up on the device, so that they stay small on disk
    size = min(natural_size(data), backbone.size)
    images = load(data, size, machine, progress)
    if settings.preset == "auto":
        seconds = seconds_to_extract(backbone, images.pixels, choose_device(machine.device))
        progress.note(
            f"the features of {len(data):,} images take about {duration(seconds)} unless they are in the cache."
        )
    features: npt.NDArray[Any] = extracted(backbone, images, machine, progress)
    data, unreadable, readable = _readable(data, images)
    if readable is not None:
        features = features[readable]
    trainer = _heads(features, data, settings, machine, progress)
    identity = {
        "head": settings.head,
        "backbone": settings.backbone,
        "image_size": backbone.size,
        "weights_digest": backbone.digest,
        "images_digest": images.content_key,
    }
    return Prepared(
        data,
        unreadable,
        identity,
        lambda run: trainer,
        content=Content(images.pixels, readable),
        images={"digest": images.content},
    )


def load(
    data: Source,
    size: int,
    machine: Machine,
    progress: RunProgress,
    *,
    channels: int | None = None,
    levels: Levels | None = None,
) -> Images:
    """Load images, and note what is worth a look about them; the options are those of `load_images`."""
    images = load_images(
        data,
        size,
        channels=channels,
        levels=levels,
        cache_dir=machine.cache_dir,
        max_pixels=machine.max_pixels,
        progress=progress.reading,
        note=progress.note,
    )
    for sentence in images.notes:
        progress.note(sentence)
    return images


def extracted(backbone: Backbone, images: Images, machine: Machine, progress: RunProgress) -> npt.NDArray[np.float16]:
    """Return features (n, d) of all images, computed or from the cache; see `extract_features`."""
    return extract_features(
        backbone,
        images.pixels,
        images.content_key,
        device=machine.device,
        threads=machine.threads,
        cache_dir=machine.cache_dir,
        progress=progress.extracting,
        note=progress.note,
    )


def _with_images(
    data: Source, settings: Settings, machine: Machine, progress: RunProgress, backbone: Backbone | None
) -> Prepared:
    recipe = _recipe(settings)
    models = ModelFactory(recipe.model, backbone, trusted=machine.trusted)
    size = settings.image_size or size_for(data, models.preprocessing.size)
    images = load(data, size, machine, progress)
    data, unreadable, readable = _readable(data, images)

    def make_trainer(run: RunFolder) -> FoldTrainer:
        plan = ComputePlan.recorded(run.record, machine.device)
        trainer = TorchTrainer(
            images.pixels,
            len(data.class_names),
            recipe,
            device=machine.device,
            plan=plan,
            models=models,
            threads=machine.threads,
            precision=machine.precision,
            on_epoch=progress.epoch,
        )
        if plan is None and not run.done:
            run.save(plan=asdict(trainer.plan))
            if settings.preset == "auto" and trainer.plan.measured:
                # each is on all images but one part, about
                trainings = sum(
                    n_folds - 1 for n_folds in settings.cross_validation.folds(n_units(len(data), data.groups))
                )
                seconds = recipe.epochs * trainings * len(data) / max(trainer.plan.measured.values())
                progress.note(f"all trainings together take about {duration(seconds)}.")
        return trainer if readable is None else _OnRows(trainer, readable)

    identity = {"recipe": recipe.as_record(), "image_size": size, "images_digest": images.content_key}
    content = Content(images.pixels, readable)
    return Prepared(data, unreadable, identity, make_trainer, content, images={"digest": images.content})


def _readable(data: Source, images: Images) -> tuple[Source, dict[str, str], IntArray | None]:
    """Return the source without unreadable images, why each is unreadable, and the remaining rows (None: all)."""
    unreadable = {data.paths[i]: reason for i, reason in images.errors.items()}
    if not unreadable:
        return data, unreadable, None
    rows = np.flatnonzero(images.readable)
    data = data.subset(rows)
    _check_classes(data)
    return data, unreadable, rows


def _check_classes(data: Source) -> None:
    if len(np.unique(data.labels)) < 2:
        raise InputError(
            f"{data.root} has readable images of a single class; a label can only be wrong if there is a second one."
        )


def _recipe(settings: Settings) -> Recipe:
    """Return the preset, overruled by what the user set."""
    changes = {
        name: getattr(settings, name)
        for name in ("epochs", "learning_rate", "flip", "patience")
        if getattr(settings, name) is not None
    }
    if settings.finetune:
        return replace(FINETUNE, model=ModelSpec.parse(f"backbone:{settings.backbone}", settings.weights), **changes)
    if settings.preset != "auto" and settings.preset not in PRESETS:
        raise InputError(f"preset is {settings.preset!r}; it takes {', '.join(PRESETS)} or auto.")
    base = PRESETS["fast" if settings.preset == "auto" else settings.preset]
    model = base.model if settings.model is None else ModelSpec.parse(settings.model)
    return replace(base, model=model.with_weights(settings.weights), **changes)


def lone_images(data: Source) -> list[str]:
    """Return a sentence on the classes with a single image, or images of a single group, if there are any."""
    units = np.arange(len(data)) if data.groups is None else data.groups
    pairs = np.unique(np.stack([data.labels, units]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(data.class_names))
    lone = [repr(data.class_names[k]) for k in np.flatnonzero(counts == 1)]
    what = "1 image" if data.groups is None else "images of 1 group"
    if len(lone) == 1:
        return [f"class {lone[0]} has {what}: the models that score it never see the class, so look at it yourself."]
    names = ", ".join(lone[:5]) + (f" and {len(lone) - 5:,} more" if len(lone) > 5 else "")
    return lone and [
        f"{len(lone):,} of {len(counts):,} classes have {what}: {names}; the models that score them never see their "
        "class, so look at these images yourself."
    ]
