"""Networks by name: our own, torchvision's, and any function that builds one; and their weights."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.error import URLError

import torch
from torch import Tensor, nn

from cvcoteach._checks import InputError, near
from cvcoteach.training.devices import seeded
from cvcoteach.training.networks import CifarResNet, GreyAsColour, SmallNet

if TYPE_CHECKING:
    from cvcoteach.training.backbones import Backbone

OWN = ("small", "resnet32")
BACKBONE = "backbone:"
"""Before the name of a backbone (see `backbones.load_backbone`), to which a fresh last layer is added."""
FROZEN = "frozen:"
"""Before the name of a backbone that stays as it is, with two fresh heads on its features. "@96" after the name: it
sees images of 96 pixels a side."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# -- any, by name ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preprocessing:
    """What a network wants its images to be like."""

    size: int | None
    """Height and width it was made for, in pixels; None: any."""
    mean: tuple[float, ...] | None
    """Of each channel, values 0..1; None: that of the training images."""
    std: tuple[float, ...] | None
    """Likewise."""


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
        from cvcoteach.training.backbones import Classifier, FrozenClassifier

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
    from cvcoteach.training.backbones import load_backbone

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


def imported(name: str, what: str = "model") -> Any:
    """What "package.module:function" names. Raises InputError where it cannot be imported."""
    module_name, _, function_name = name.partition(":")
    sys.path.insert(0, "")  # a file beside the user is found, as python -m would
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{what} is {name!r}, which cannot be imported: {error}.") from error
    finally:
        sys.path.remove("")


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


def published_weights(name: str) -> Any:
    """torchvision's default weights of that network, None where there are none."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"model is {name!r}; {near(name, (*OWN, *known))}")
    return getattr(models.get_model_weights(name), "DEFAULT", None)


def torchvision_network(name: str, pretrained: bool) -> nn.Module:
    """As torchvision builds it, without auxiliary classifiers. Raises InputError where weights cannot be fetched."""
    from torchvision import models

    weights = published_weights(name) if pretrained else None
    # the published initialisation of these two is slow, and they ask which one is wanted
    extra = {"init_weights": True} if name in ("googlenet", "inception_v3") and weights is None else {}
    try:
        network: nn.Module = models.get_model(name, weights=weights, **extra)
    except (URLError, OSError, RuntimeError) as error:
        url = getattr(weights, "url", "")
        raise InputError(
            f"the weights of {name} could not be fetched ({oneline(error)}); bring {url} and give --weights FILE, "
            "or start fresh with --weights none."
        ) from error
    if hasattr(network, "aux_logits"):  # auxiliary classifiers would keep 1,000 classes
        network.aux_logits = cast(Any, False)
        network.transform_input = cast(Any, True)  # as with published weights, which a classifier's replace later
        for part in ("AuxLogits", "aux1", "aux2"):
            if hasattr(network, part):
                setattr(network, part, None)
    return network


def last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The classifier of a network, by order of its modules: its path and itself.

    Raises InputError where there is none.
    """
    for path, layer in reversed(list(network.named_modules())):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            return path, layer
    raise InputError(f"{type(network).__name__} has no linear or convolutional layer to classify with.")


def _replace_classifier(network: nn.Module, n_classes: int) -> None:
    path, last = last_layer(network)
    fresh: nn.Module
    if isinstance(last, nn.Linear):
        fresh = nn.Linear(last.in_features, n_classes, bias=last.bias is not None)
    else:
        fresh = nn.Conv2d(last.in_channels, n_classes, cast(Any, last.kernel_size), bias=last.bias is not None)
    network.set_submodule(path, fresh)


def load_weights(network: nn.Module, file: Path) -> None:
    """Weights from a file into the network; of the last layer only if it has the same classes.

    Raises InputError for a file that is none of weights, or of another network.
    """
    own = network.state_dict()
    found = {_bare(key): value for key, value in _read(file).items()}
    inner = isinstance(network, GreyAsColour)
    found = {("network." + key if inner and not key.startswith("network.") else key): v for key, v in found.items()}
    head = list(own)[-1].rpartition(".")[0]
    fitting = {key: value for key, value in found.items() if key in own and own[key].shape == value.shape}
    missing = [key for key in own if key not in fitting and key.rpartition(".")[0] != head]
    if missing:
        raise InputError(
            f"{file} holds {len(found)} weights, but {len(missing)} of the network's {len(own)} are not among them in "
            f"the same shape, {missing[0]} to begin with; it takes the weights of the same network."
        )
    network.load_state_dict(fitting, strict=False)


def _bare(key: str) -> str:
    return key.removeprefix("module.").removeprefix("_orig_mod.")


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            loaded = importlib.import_module("safetensors.torch").load_file(file)
        else:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise InputError(f"{file} needs the package safetensors to be read; pip install safetensors.") from error
    except Exception as error:  # unpickling raises all kinds
        raise InputError(f"{file} cannot be read as weights: {oneline(error)}.") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{file} holds {type(loaded).__name__}; it takes a state dict, names to tensors.")
    return dict(loaded)


def oneline(error: BaseException) -> str:
    """An error as the part of a sentence."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__
