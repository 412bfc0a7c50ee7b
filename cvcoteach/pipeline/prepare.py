"""From a source and settings to images or features with labels, and a trainer for them. Nothing is trained here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._files import digest
from cvcoteach._validation import InputError, IntArray, check_classes_repeat
from cvcoteach.crossval.groups import as_groups, n_units
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.crossval.views import check_views
from cvcoteach.data.images import Images, load_images, natural_size, size_for
from cvcoteach.data.levels import Levels
from cvcoteach.data.sources import Choices, Source, read_source
from cvcoteach.data.splits import as_splits
from cvcoteach.data.workers import in_processes
from cvcoteach.engines.chunks import RayTasks, features_on
from cvcoteach.pipeline.automatic import as_chosen, decide, decided, seconds_to_train
from cvcoteach.pipeline.copies import Content, Copies, bind_copies
from cvcoteach.pipeline.given_features import given_features
from cvcoteach.pipeline.learned import folds_of, n_learned, split_notes
from cvcoteach.pipeline.on_engine import here
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.second_view import check_same_images, second_trainer
from cvcoteach.pipeline.settings import Machine, Settings
from cvcoteach.pipeline.trainers import as_record, heads_trainer, network_trainer, on_rows, recorded_plan
from cvcoteach.training.backbones import Backbone, load_backbone
from cvcoteach.training.extraction import extract_features
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.presets import FINETUNE, PRESETS
from cvcoteach.training.recipe import Recipe


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
    copies: Copies | None = None
    """Which images are copies of which; None where nobody looked."""
    n_groups: int | None = None
    """Number of groups that were named."""
    images: Mapping[str, Any] = field(default_factory=dict)
    """Number of all images, and the digest of their content where they were read."""
    chosen: Mapping[str, Any] | None = None
    """What the preset "auto" chose, for run.json; None where it had nothing to choose."""
    make_second: Callable[[RunFolder], FoldTrainer] | None = None
    """Returns the trainer of a second view; None where there is none."""


def prepare(
    source: Path | Source,
    settings: Settings,
    machine: Machine,
    progress: RunProgress,
    *,
    choices: Choices | None = None,
    groups: npt.ArrayLike | None = None,
    splits: npt.ArrayLike | None = None,
    before: Mapping[str, Any] | None = None,
) -> Prepared:
    """Read the source, decode its images, compute its features: whatever the settings need.

    Args:
        source: Images with labels, or where to read them.
        settings: What decides the result.
        machine: Where to compute.
        progress: Follows the reading.
        choices: How to read the source.
        groups: (n,) group of each image, of any kind, in the order of the source; None: the source's own, if any.
        splits: (n,) name of the split of each image, in the order of the source; None: the source's own, if any.
        before: What the preset "auto" chose for an earlier run, with which this one goes on; None: it chooses.

    Raises:
        InputError: Anything does not fit.
    """
    started = time.perf_counter()
    local = here(machine)  # fails before a million images are read
    _check(settings)
    data = source
    if not isinstance(data, Source):
        data = read_source(data, **asdict(replace(choices or Choices(), cache_dir=machine.cache_dir)))
        progress.note(f"{data.description}.")
    check_classes_repeat(data.labels)
    if groups is not None:
        data = replace(data, groups=as_groups(groups, len(data)))
    if splits is not None:
        data = replace(data, splits=as_splits(splits, len(data)))
    for sentence in split_notes(data):
        progress.note(sentence)
    if settings.also_from_scratch:
        check_views(2, len(data), len(data.class_names), settings.selection)
    incv, automatic, backbone = settings.cross_validation, None, None
    if settings.is_open:
        automatic = decided(data, settings, local, before) if before else decide(data, settings, local)
        settings, backbone = automatic.settings, automatic.backbone
        if automatic.note:
            progress.note(automatic.note)
    if settings.features is not None:
        prepared = _with_features(data, settings, machine, progress)
    elif settings.backbone is not None and not settings.finetune:
        prepared = _with_backbone(data, settings, machine, progress, backbone)
    else:
        reason = automatic.reason if automatic else None
        prepared = _with_images(data, settings, machine, progress, backbone, reason)
    if settings.also_from_scratch:
        prepared = _with_second_view(data, prepared, settings, machine, progress)
    named = prepared.source.groups
    prepared = replace(prepared, n_groups=None if named is None else n_units(len(named), named))
    if prepared.content is not None:
        n_folds = max(incv.folds(len(prepared.source)))
        bound, copies = bind_copies(prepared.source, prepared.content, n_folds, bind_near=settings.bind_near_copies)
        prepared = replace(prepared, source=bound, copies=copies)
    kept = prepared.source
    identity: dict[str, Any] = {"select": incv.select, "folds": folds_of(incv, kept), "seed": incv.seed}
    if kept.annotations is not None:
        made = kept.annotations
        identity |= {"annotations_digest": digest(made.image, made.annotator, made.label, *made.annotators)}
    if kept.splits is not None:
        identity |= {"splits_digest": digest("\0".join(kept.splits.tolist()))}
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
        chosen=automatic.record if automatic else None,
    )


_OF_NETWORKS = ("epochs", "learning_rate", "flip", "patience")
"""Settings of networks on images that heads on features ignore."""


def _check(settings: Settings) -> None:
    if settings.finetune and settings.backbone is None:
        raise InputError("finetune is set without a backbone; name the network to fine-tune with --backbone.")
    if settings.features is not None and settings.backbone is not None:
        raise InputError("features and backbone are both given; features come from only one of them.")
    if settings.also_from_scratch and settings.selection == "agreement":
        raise InputError("also_from_scratch is set, but select agreement is algorithm 1, which has a single view.")
    by_features = settings.features is not None or (settings.backbone is not None and not settings.finetune)
    if settings.also_from_scratch and not (by_features or settings.is_open):
        raise InputError(
            "also_from_scratch is set without features to train heads on; add --backbone or --features, or leave the "
            "choice to the preset auto."
        )


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
    shown = not settings.also_from_scratch
    return heads_trainer(features, len(data.class_names), settings.head, machine, progress, shown=shown)


def _with_backbone(
    data: Source, settings: Settings, machine: Machine, progress: RunProgress, backbone: Backbone | None
) -> Prepared:
    assert settings.backbone is not None
    if backbone is None:
        backbone = load_backbone(settings.backbone, settings.weights, size=settings.image_size, trusted=machine.trusted)
    # smaller images are scaled up on the device, so that they stay small on disk
    size = min(natural_size(data), backbone.size)
    images = load(data, size, machine, progress)
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


def _with_second_view(
    data: Source, prepared: Prepared, settings: Settings, machine: Machine, progress: RunProgress
) -> Prepared:
    images = load(data, size_for(data, None), machine, progress)
    check_same_images(images, len(prepared.source))
    second = {
        "recipe": PRESETS["fast"].as_record(),
        "image_size": images.pixels.shape[1],
        "images_digest": images.content_key,
    }
    return replace(
        prepared,
        identity=prepared.identity | {"second_view": second},
        make_second=second_trainer(images, len(data.class_names), machine, progress),
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
        in_tasks=in_processes if machine.cluster is None else RayTasks(machine.cluster),
        progress=progress.reading,
        note=progress.note,
    )
    for sentence in images.notes:
        progress.note(sentence)
    return images


def extracted(backbone: Backbone, images: Images, machine: Machine, progress: RunProgress) -> npt.NDArray[np.float16]:
    """Return features (n, d) of all images, computed or from the cache; see `extract_features`."""
    cluster = machine.cluster
    return extract_features(
        backbone,
        images.pixels,
        images.content_key,
        elsewhere=None if cluster is None else features_on(cluster, backbone, images.pixels, machine.device),
        device=machine.device,
        threads=machine.threads,
        cache_dir=machine.cache_dir,
        progress=progress.extracting,
        note=progress.note,
    )


def _with_images(
    data: Source,
    settings: Settings,
    machine: Machine,
    progress: RunProgress,
    backbone: Backbone | None,
    reason: str | None,
) -> Prepared:
    recipe = _recipe(settings)
    models = ModelFactory(recipe.model, backbone, trusted=machine.trusted)
    size = settings.image_size or size_for(data, models.preprocessing.size)
    images = load(data, size, machine, progress)
    data, unreadable, readable = _readable(data, images)

    def make_trainer(run: RunFolder) -> FoldTrainer:
        plan = recorded_plan(run.record, machine)
        n_classes = len(data.class_names)
        trainer = network_trainer(images.pixels, n_classes, recipe, machine, progress, plan=plan, models=models)
        if plan is None and not run.done:
            run.save(plan=as_record(trainer.plan))
        if reason is not None and not run.done:
            folds = folds_of(settings.cross_validation, data)
            progress.note(as_chosen(reason, seconds_to_train(trainer, folds, n_learned(data))))
        return on_rows(trainer, readable)

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
    base = PRESETS["fast" if settings.preset == "auto" else settings.preset]
    model = base.model if settings.model is None else ModelSpec.parse(settings.model)
    return replace(base, model=model.with_weights(settings.weights), **changes)
