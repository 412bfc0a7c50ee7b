"""Networks by name: our own, torchvision's, and any function that builds one; and their weights."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import Backbone, Classifier, FrozenClassifier, load_backbone
from cvcoteach.training.devices import seeded
from cvcoteach.training.networks import OWN, CifarResNet, GreyAsColour, SmallNet
from cvcoteach.training.pretrained import (
    Preprocessing,
    imported,
    last_layer,
    load_weights,
    oneline,
    published_weights,
    torchvision_network,
)

BACKBONE = "backbone:"
"""Before the name of a backbone (see `backbones.load_backbone`), to which a fresh last layer is added."""
FROZEN = "frozen:"
"""Before the name of a backbone that stays as it is, with two fresh heads on its features. "@96" after the name: it
sees images of 96 pixels a side."""


def build_model(name: str, n_classes: int, channels: int, weights: str | None = None, *, seed: int = 0) -> nn.Module:
    """A freshly initialised network on the CPU; torch's random state is as it was before.

    name: "small", "resnet32", a classification model of torchvision's, or "package.module:function", called with
        n_classes, or `BACKBONE` or `FROZEN` and the name of one.
    channels: of the images, 1 or 3; torchvision's networks see grey images repeated to three channels.
    weights: "default" for the published ones, "none" for a fresh initialisation, or a file (state dict of torch, or
        .safetensors); None is "default" where there are any. A last layer for another number of classes starts fresh.

    Raises InputError for an unknown name, weights that do not fit or cannot be fetched, and a function that fails.
    """
    with seeded(seed, torch.device("cpu")):
        network = _build(name, n_classes, channels, weights)
        if weights is not None and weights not in ("default", "none") and not name.startswith((BACKBONE, FROZEN)):
            load_weights(network, Path(weights))
    return network


def preprocessing(name: str, weights: str | None = None) -> Preprocessing:
    """What the weights were trained with; nothing in particular for networks that start fresh.

    Raises InputError for an unknown name.
    """
    if name.startswith((BACKBONE, FROZEN)):
        own = _backbone(name, weights)
        return Preprocessing(own.size, own.mean, own.std)
    if name in OWN or ":" in name:
        return Preprocessing(None, None, None)
    published = published_weights(name)
    if published is None:
        return Preprocessing(None, None, None)
    transforms = published.transforms()
    size = int(transforms.crop_size[0])
    if weights == "none":
        return Preprocessing(size, None, None)
    return Preprocessing(size, tuple(transforms.mean), tuple(transforms.std))


def check_model(name: str, weights: str | None = None) -> None:
    """Raises InputError for a name or weights that `build_model` would refuse at once, without building anything."""
    if name in OWN and weights == "default":
        raise InputError(f"{name} has no published weights; it takes weights none or a file.")
    if weights is not None and weights not in ("default", "none") and not Path(weights).is_file():
        raise InputError(f"weights is {weights!r}, which is no file; it takes a file, default or none.")
    if name not in OWN and ":" not in name:
        published_weights(name)


def _build(name: str, n_classes: int, channels: int, weights: str | None) -> nn.Module:
    check_model(name, weights)
    if name == "small":
        return SmallNet(n_classes, channels)
    if name == "resnet32":
        return CifarResNet(n_classes, channels)
    if name.startswith((BACKBONE, FROZEN)):
        if name.startswith(FROZEN):  # scaled by the three numbers of its weights, a grey image has three channels
            return FrozenClassifier(_backbone(name, weights), n_classes)
        return _for_channels(Classifier(_backbone(name, weights), n_classes), channels)
    if ":" in name:
        return _from_function(name, n_classes)
    network = torchvision_network(name, weights in (None, "default"))
    _replace_classifier(network, n_classes)
    return _for_channels(network, channels)


def _for_channels(network: nn.Module, channels: int) -> nn.Module:
    return GreyAsColour(network) if channels == 1 else network


def _backbone(name: str, weights: str | None) -> Backbone:
    bare, size = backbone_of(name)
    return load_backbone(bare, weights, size=size)


def backbone_of(name: str) -> tuple[str, int | None]:
    """The backbone in the name of a model, and the size (pixels) after its "@"; of another model, its own name."""
    whole = name.removeprefix(BACKBONE).removeprefix(FROZEN)
    bare, _, size = whole.rpartition("@")
    return (bare, int(size)) if bare and size.isdecimal() and whole != name else (whole, None)


def is_foreign(name: str) -> bool:
    """Whether building that network runs the code of someone else than this package, torchvision and timm."""
    if not name.startswith((BACKBONE, FROZEN)):
        return ":" in name
    return not backbone_of(name)[0].startswith(("torchvision:", "timm:"))


def _from_function(name: str, n_classes: int) -> nn.Module:
    function = imported(name)
    try:
        by_name = "n_classes" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        by_name = False
    try:
        network = function(n_classes=n_classes) if by_name else function(n_classes)
    except Exception as error:
        raise InputError(f"{name}, called with n_classes = {n_classes}, raised {oneline(error)}.") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} returned {type(network).__name__}; it takes a function that returns a nn.Module.")
    return network


def _replace_classifier(network: nn.Module, n_classes: int) -> None:
    path, last = last_layer(network)
    fresh: nn.Module
    if isinstance(last, nn.Linear):
        fresh = nn.Linear(last.in_features, n_classes, bias=last.bias is not None)
    else:
        fresh = nn.Conv2d(last.in_channels, n_classes, cast(Any, last.kernel_size), bias=last.bias is not None)
    network.set_submodule(path, fresh)
