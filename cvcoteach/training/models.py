"""From a `ModelSpec` to networks: our own, torchvision's, the user's, and those on a backbone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import Backbone, Classifier, FrozenClassifier, load_backbone
from cvcoteach.training.devices import seeded
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.networks import CifarResNet, GreyAsColour, SmallNet, wide_net
from cvcoteach.training.pretrained import (
    Preprocessing,
    imported,
    last_layer,
    load_pretrained,
    oneline,
    published_weights,
    torchvision_network,
)
from cvcoteach.training.trust import check_trusted


class ModelFactory:
    """Builds fresh networks of one model. A backbone is loaded once and copied for each network."""

    def __init__(self, spec: ModelSpec, backbone: Backbone | None = None, *, trusted: Collection[str] = ()) -> None:
        """Check what can be checked without building a network.

        Args:
            spec: The model.
            backbone: The spec's backbone, if it is loaded already; None: it is loaded when first needed.
            trusted: Names of code that the user allows to run, see `trust`.

        Raises:
            InputError: The name or the weights cannot be, or the model is code that is not trusted.
        """
        _check(spec)
        if spec.kind == "function":
            check_trusted(spec.name, trusted)
        self.spec = spec
        self._backbone = backbone
        self._trusted = trusted

    @property
    def backbone(self) -> Backbone:
        """The backbone of a spec that has one, loaded on first use.

        Raises:
            InputError: It cannot be loaded.
        """
        if self._backbone is None:
            spec = self.spec
            self._backbone = load_backbone(spec.name, spec.weights, size=spec.image_size, trusted=self._trusted)
        return self._backbone

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing that the weights were trained with; open for networks that start fresh.

        Raises:
            InputError: The backbone cannot be loaded.
        """
        spec = self.spec
        if spec.has_backbone:
            own = self.backbone
            return Preprocessing(own.size, own.mean, own.std)
        published = published_weights(spec.name) if spec.kind == "torchvision" else None
        if published is None:
            return Preprocessing(None, None, None)
        transforms = published.transforms()
        size = int(transforms.crop_size[0])
        if spec.weights == "none":
            return Preprocessing(size, None, None)
        return Preprocessing(size, tuple(transforms.mean), tuple(transforms.std))

    def build(self, n_classes: int, channels: int, *, seed: int = 0) -> nn.Module:
        """Return a freshly initialised network on the CPU; torch's random state stays as it was.

        Args:
            n_classes: K. A last layer for another number of classes starts fresh.
            channels: Of the images, 1 or 3; networks of torchvision see grey images repeated to three channels.
            seed: Decides what is drawn at random.

        Raises:
            InputError: The weights do not fit or cannot be fetched, or the user's function fails.
        """
        spec = self.spec
        with seeded(seed, torch.device("cpu")):
            if spec.kind == "frozen":  # normalised by the three means of its weights, a grey image has three channels
                return FrozenClassifier(self.backbone.copied(), n_classes)
            if spec.kind == "backbone":
                return _for_channels(Classifier(self.backbone.copied(), n_classes), channels)
            network = self._without_backbone(n_classes, channels)
            if spec.weights_file is not None:
                load_pretrained(network, Path(spec.weights_file))
        return network

    def _without_backbone(self, n_classes: int, channels: int) -> nn.Module:
        spec = self.spec
        if spec.kind == "own":
            return _OWN[spec.name](n_classes, channels)
        if spec.kind == "function":
            return _from_function(spec.name, n_classes)
        network = torchvision_network(spec.name, spec.weights in (None, "default"))
        _replace_classifier(network, n_classes)
        return _for_channels(network, channels)


_OWN: dict[str, Callable[[int, int], nn.Module]] = {"small": SmallNet, "wide": wide_net, "resnet32": CifarResNet}


def _check(spec: ModelSpec) -> None:
    if spec.kind == "own" and spec.weights == "default":
        raise InputError(f"{spec.name} has no published weights; it takes weights none or a file.")
    if spec.weights_file is not None and not Path(spec.weights_file).is_file():
        raise InputError(f"weights is {spec.weights!r}, which is not a file; it takes a file, default or none.")
    if spec.kind == "torchvision":
        published_weights(spec.name)


def _for_channels(network: nn.Module, channels: int) -> nn.Module:
    return GreyAsColour(network) if channels == 1 else network


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
