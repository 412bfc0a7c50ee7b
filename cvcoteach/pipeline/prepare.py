"""From what the user named to images or features with labels, and a trainer over them. Nothing is trained here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cvcoteach._files import digest
from cvcoteach._validation import InputError, IntArray, PredProbs
from cvcoteach.crossval.final_scoring import HEAD_PASSES
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import ExtractionWatcher, Machine, Settings, Watcher

if TYPE_CHECKING:
    from cvcoteach.data.images import Images
    from cvcoteach.data.sources import Choices, Source
    from cvcoteach.training.backbones import Backbone
    from cvcoteach.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images or features with labels, and the trainer over them, before anything is trained."""

    source: Source
    unreadable: Mapping[str, str]
    """Path -> why."""
    identity: dict[str, Any]
    """What decides the result, as it goes into run.json."""
    make_trainer: Callable[[RunFolder], FoldTrainer]
    passes: int
    """Of the final scoring, unless the user said so."""
    seconds_reading: float = 0.0
    images: Mapping[str, Any] = field(default_factory=dict)
    """Number of all images, and the digest of what is in them where they were read."""


@dataclass(frozen=True, eq=False)
class _OnRows:
    """A trainer over some rows of its images: image i of the run is row `rows[i]`."""

    trainer: FoldTrainer
    rows: IntArray

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        return self.trainer.fit_predict(self.rows[train_idx], train_labels, self.rows[eval_idx], seed)


def prepare(
    source: Path,
    settings: Settings,
    machine: Machine,
    choices: Choices,
    watcher: Watcher,
) -> Prepared:
    """Read the source, decode its images, compute its features: whatever the settings need.

    Raises InputError, one sentence, for anything that does not fit.
    """
    from cvcoteach.data.sources import read_source
    from cvcoteach.training.devices import choose_device

    started = time.perf_counter()
    choose_device(machine.device)  # what cannot work is told before a million images are read
    _check(settings)
    data = read_source(source, **asdict(choices))
    watcher.note(f"{data.description}.")
    identity = {name: getattr(settings, name) for name in ("n_rounds", "n_folds", "remove_ratio", "seed", "select")}
    backbone = None
    if settings.preset == "auto" and settings.features is None and settings.backbone is None:
        settings, backbone = _automatic(data, settings, machine, watcher)
    if settings.features is not None:
        prepared = _with_features(data, settings, machine, watcher)
    elif settings.backbone is not None and not settings.finetune:
        prepared = _with_backbone(data, settings, machine, watcher, backbone)
    else:
        prepared = _with_images(data, settings, machine, watcher)
    kept = prepared.source
    passes = (settings.passes or prepared.passes) if settings.select == "posterior" else 1
    identity |= {"repeats": settings.repeats, "passes": passes}
    labels_digest = digest(kept.labels, *kept.class_names)
    paths_digest = digest("\0".join(kept.paths))
    return replace(
        prepared,
        identity=identity | prepared.identity | {"labels_digest": labels_digest, "paths_digest": paths_digest},
        passes=passes,
        seconds_reading=time.perf_counter() - started,
        images={"count": len(data), **prepared.images},
    )


_OF_NETWORKS = ("epochs", "learning_rate", "flip", "patience")
"""Settings that say how networks are trained on images, and nothing of heads on features."""


def _check(settings: Settings) -> None:
    if settings.finetune and settings.backbone is None:
        raise InputError("finetune is on without a backbone; --backbone names the network to fine-tune.")
    if settings.features is not None and settings.backbone is not None:
        raise InputError("features and backbone are both given; the features come from one of them.")


def _automatic(
    data: Source, settings: Settings, machine: Machine, watcher: Watcher
) -> tuple[Settings, Backbone | None]:
    from cvcoteach.data.images import natural_size
    from cvcoteach.training.backbones import load_backbone
    from cvcoteach.training.devices import choose_device
    from cvcoteach.training.presets import choose

    if settings.model is not None:
        raise InputError(f"model is {settings.model!r}, but preset auto chooses it; leave one of them out.")
    device = choose_device(machine.device)
    load = partial(load_backbone, weights=settings.weights)
    choice = choose(len(data), natural_size(data), device, size=settings.image_size, load=load)
    watcher.note(f"preset auto takes {choice.reason}.")
    name = choice.backbone.name if choice.backbone else None
    return replace(settings, backbone=name, finetune=choice.finetune), choice.backbone


def _with_features(data: Source, settings: Settings, machine: Machine, watcher: Watcher) -> Prepared:
    from cvcoteach.training.head_trainer import load_features

    assert settings.features is not None
    features = load_features(settings.features)
    if len(features) != len(data.labels):
        raise InputError(
            f"{settings.features} has {len(features):,} rows, but the source has {len(data.labels):,} images; "
            "it takes one row an image, in the order of the source."
        )
    trainer = _heads(features, data, settings, machine, watcher)
    identity = {"head": settings.head, "features_digest": digest(features)}
    return Prepared(data, {}, identity, lambda run: trainer, HEAD_PASSES)


def _heads(
    features: npt.NDArray[Any], data: Source, settings: Settings, machine: Machine, watcher: Watcher
) -> FoldTrainer:
    from cvcoteach.training.head_trainer import HeadTrainer

    passed_over = [name for name in _OF_NETWORKS if getattr(settings, name) is not None]
    if passed_over:
        watcher.note(f"not used: {', '.join(passed_over)}; heads on features are trained in a way of their own.")
    return HeadTrainer(
        features,
        len(data.class_names),
        settings.head,
        device=machine.device,
        threads=machine.threads,
        on_epoch=watcher.epoch,
    )


def _with_backbone(
    data: Source, settings: Settings, machine: Machine, watcher: Watcher, backbone: Backbone | None
) -> Prepared:
    from cvcoteach.data.images import load_images, natural_size
    from cvcoteach.training.backbones import load_backbone
    from cvcoteach.training.devices import choose_device
    from cvcoteach.training.presets import seconds_to_extract

    assert settings.backbone is not None
    if backbone is None:
        backbone = load_backbone(settings.backbone, settings.weights, size=settings.image_size)
    # smaller images are scaled up by the device: on disk they stay small
    size = min(natural_size(data), backbone.size)
    images = load_images(
        data, size, cache_dir=machine.cache_dir, max_pixels=machine.max_pixels, progress=watcher.reading
    )
    if settings.preset == "auto":
        seconds = seconds_to_extract(backbone, images.pixels, choose_device(machine.device))
        watcher.note(
            f"the features of {len(data):,} images take about {duration(seconds)} unless they are kept from before."
        )
    features: npt.NDArray[Any] = extracted(backbone, images, machine, watcher)
    for sentence in images.notes:
        watcher.note(sentence)
    data, unreadable, readable = _readable(data, images)
    if readable is not None:
        features = features[readable]
    trainer = _heads(features, data, settings, machine, watcher)
    identity = {
        "head": settings.head,
        "backbone": settings.backbone,
        "image_size": backbone.size,
        "weights_digest": backbone.digest,
        "images_digest": images.content_key,
    }
    return Prepared(data, unreadable, identity, lambda run: trainer, HEAD_PASSES, images={"digest": images.content})


def extracted(backbone: Backbone, images: Images, machine: Machine, watcher: Watcher) -> npt.NDArray[np.float16]:
    """Features (n, d) of all images, by this machine or from its cache; see `extract_features`."""
    from cvcoteach.training.extraction import extract_features

    return extract_features(
        backbone,
        images.pixels,
        images.content_key,
        device=machine.device,
        threads=machine.threads,
        cache_dir=machine.cache_dir,
        progress=watcher.extracting if isinstance(watcher, ExtractionWatcher) else None,
    )


def _with_images(data: Source, settings: Settings, machine: Machine, watcher: Watcher) -> Prepared:
    from cvcoteach.data.images import load_images, size_for
    from cvcoteach.training.devices import Plan
    from cvcoteach.training.models import preprocessing
    from cvcoteach.training.torch_trainer import TorchTrainer

    recipe = _recipe(settings)
    size = settings.image_size or size_for(data, preprocessing(recipe.model, recipe.weights).size)
    images = load_images(
        data, size, cache_dir=machine.cache_dir, max_pixels=machine.max_pixels, progress=watcher.reading
    )
    for sentence in images.notes:
        watcher.note(sentence)
    data, unreadable, readable = _readable(data, images)

    def make_trainer(run: RunFolder) -> FoldTrainer:
        plan = Plan.recorded(run.record, machine.device)
        trainer = TorchTrainer(
            images.pixels,
            len(data.class_names),
            recipe,
            device=machine.device,
            plan=plan,
            threads=machine.threads,
            precision=machine.precision,
            on_epoch=watcher.epoch,
        )
        if plan is None and not run.done:
            run.save(plan=asdict(trainer.plan))
            if settings.preset == "auto" and trainer.plan.measured:
                trainings = settings.n_rounds * settings.n_folds * 0.6 + 4 * settings.repeats * (settings.passes or 1)
                seconds = recipe.epochs * trainings * len(data) / max(trainer.plan.measured.values())
                watcher.note(f"all trainings together take about {duration(seconds)}.")
        return trainer if readable is None else _OnRows(trainer, readable)

    identity = {"recipe": asdict(recipe), "image_size": size, "images_digest": images.content_key}
    return Prepared(data, unreadable, identity, make_trainer, 1, images={"digest": images.content})


def _readable(data: Source, images: Images) -> tuple[Source, dict[str, str], IntArray | None]:
    """The source without unreadable images, these with the reasons, and the rows that are left (None: all)."""
    unreadable = {data.paths[i]: reason for i, reason in images.errors.items()}
    if not unreadable:
        return data, unreadable, None
    rows = np.flatnonzero(images.readable)
    data = data.subset(rows)
    if len(np.unique(data.labels)) < 2:
        raise InputError(f"{data.root} has readable images of one class only; a wrong label needs a second class.")
    return data, unreadable, rows


def _recipe(settings: Settings) -> Recipe:
    """The preset, with what the user set himself in its place."""
    from cvcoteach.training.models import BACKBONE
    from cvcoteach.training.recipe import FINETUNE, PRESETS

    changes = {
        name: getattr(settings, name)
        for name in ("model", "weights", "epochs", "learning_rate", "flip", "patience")
        if getattr(settings, name) is not None
    }
    if settings.finetune:
        return replace(FINETUNE, **changes | {"model": f"{BACKBONE}{settings.backbone}"})
    if settings.preset != "auto" and settings.preset not in PRESETS:
        raise InputError(f"preset is {settings.preset!r}; there are {', '.join(PRESETS)}, auto.")
    return replace(PRESETS["fast" if settings.preset == "auto" else settings.preset], **changes)


def rare_classes(data: Source, n_folds: int) -> list[str]:
    """Return a sentence on the classes that some fold will not see, where there are any."""
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    rare = np.flatnonzero(counts < n_folds)
    if not len(rare):
        return []
    if len(rare) == 1:
        k = int(rare[0])
        return [
            f"class {data.class_names[k]!r} has {counts[k]} image{'' if counts[k] == 1 else 's'}, fewer than the "
            f"{n_folds} folds: some model never sees the class, so look at its images yourself."
        ]
    names = ", ".join(repr(data.class_names[k]) for k in rare[:5]) + (
        f" and {len(rare) - 5:,} more" if len(rare) > 5 else ""
    )
    return [
        f"{len(rare):,} of {len(counts):,} classes have fewer images than the {n_folds} folds: {names}. Some model "
        "never sees them, so look at their images yourself."
    ]


def duration(seconds: float) -> str:
    """For people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
