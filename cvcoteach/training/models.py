"""Networks by name: ours for small images, CIFAR ResNet-32, torchvision's, and any function that builds one."""

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
from torch.nn import functional

from cvcoteach._checks import InputError, near
from cvcoteach.training.devices import seeded

if TYPE_CHECKING:
    from cvcoteach.training.backbones import Backbone

OWN = ("small", "resnet32")
BACKBONE = "backbone:"
"""Before the name of a backbone (see `backbones.load_backbone`), to which a fresh last layer is added."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# -- our own -----------------------------------------------------------------------------------------------------


class SmallNet(nn.Module):
    """A narrow residual network for images from 8 pixels up, made for short trainings on a CPU.

    A 2×2 stem without padding and pooling before each normalisation, as in Jordan, "94% on CIFAR-10 in 3.29 seconds"
    (2024), leave 31, 15, 7 and 3 pixels of 32. The stem need not learn edges and colours first: it starts with them.
    """

    def __init__(self, n_classes: int, channels: int, widths: tuple[int, int, int] = (48, 96, 192)) -> None:
        super().__init__()
        a, b, c = widths
        stem = edges_and_colours(channels)
        first = nn.Conv2d(channels, len(stem), 2, bias=False)
        first.weight.data.copy_(stem)
        self.layers = nn.Sequential(
            nn.Sequential(first, nn.BatchNorm2d(len(stem)), nn.ReLU(inplace=True)),
            _Convolution(len(stem), a, pool=True),
            _Convolution(a, b, pool=True),
            _Residual(_Convolution(b, b)),
            _Convolution(b, c, pool=True),
            _Residual(_Convolution(c, c)),
        )
        self.head = nn.Linear(c, n_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(b, C, H, W) -> logits (b, K)."""
        features: Tensor = self.layers(images)
        logits: Tensor = self.head(features.amax(dim=(2, 3)))
        return logits / 4  # the largest of a map is large: unscaled, the first steps would overshoot


def edges_and_colours(channels: int) -> Tensor:
    """The Haar basis of 2×2 patches in opponent colours and its negative, (8·channels, channels, 2, 2), each of norm 1.

    Nearly the principal components of patches of photographs: with a normalisation after it, nearly a whitening.
    """
    places = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).view(4, 2, 2) / 2
    colours = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]]) if channels == 3 else torch.eye(channels)
    colours = colours / colours.norm(dim=1, keepdim=True)
    basis = torch.einsum("kc,pij->pkcij", colours, places).reshape(4 * channels, channels, 2, 2)
    return torch.cat([basis, -basis])


class _Convolution(nn.Module):
    """3×3 convolution, pooling by two while there are pixels for it, normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.pool and min(x.shape[2:]) >= 4:
            x = functional.max_pool2d(x, 2)
        return functional.relu(self.norm(x), inplace=True)


class _Residual(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.layer(x))


class CifarResNet(nn.Module):
    """The residual network for CIFAR of He et al. (CVPR 2016, section 4.2): 6·n + 2 layers, 32 for n = 5.

    Shortcuts have no parameters (option A): every second pixel, missing channels filled with zeros.
    """

    def __init__(self, n_classes: int, channels: int, n: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        blocks: list[nn.Module] = []
        width = 16
        for stage, wider in enumerate((16, 32, 64)):
            for number in range(n):
                blocks.append(_BasicBlock(width, wider, stride=2 if stage and number == 0 else 1))
                width = wider
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, n_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """(b, C, H, W) -> logits (b, K)."""
        features: Tensor = self.blocks(self.stem(images))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class _BasicBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.stride, self.wider = stride, n_out - n_in

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride > 1:
            shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.wider))
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + shortcut)


class GreyAsColour(nn.Module):
    """A network for colour images, given grey ones: the one channel is repeated."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """(b, 1 or 3, H, W) -> what the network answers."""
        return self.network(images.expand(-1, 3, -1, -1))


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
        n_classes, or `BACKBONE` and the name of one.
    channels: of the images, 1 or 3; torchvision's networks see grey images repeated to three channels.
    weights: "default" for the published ones, "none" for a fresh initialisation, or a file (state dict of torch, or
        .safetensors); None is "default" where there are any. A last layer for another number of classes starts fresh.

    Raises InputError for an unknown name, weights that do not fit or cannot be fetched, and a function that fails.
    """
    with seeded(seed, torch.device("cpu")):
        network = _build(name, n_classes, channels, weights)
        if weights is not None and weights not in ("default", "none") and not name.startswith(BACKBONE):
            load_weights(network, Path(weights))
    return network


def preprocessing(name: str, weights: str | None = None) -> Preprocessing:
    """What the weights were trained with; nothing in particular for networks that start fresh.

    Raises InputError for an unknown name.
    """
    if name.startswith(BACKBONE):
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
    if name.startswith(BACKBONE):
        from cvcoteach.training.backbones import Classifier

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

    return load_backbone(name.removeprefix(BACKBONE), weights)


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
