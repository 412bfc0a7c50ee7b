"""Networks and weights from elsewhere: torchvision, the user's functions, files."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, cast
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models

from cvcoteach._files import check_regular
from cvcoteach._validation import InputError, near
from cvcoteach.data.unpacking import check_archive
from cvcoteach.training.model_spec import OWN
from cvcoteach.training.networks import GreyAsColour
from cvcoteach.training.trust import names_function, weights_only

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing that a network was trained with."""

    size: int | None
    """Height and width, pixels; None: any."""
    mean: tuple[float, ...] | None
    """(C,) per channel, in [0, 1]; None: the mean of the training images."""
    std: tuple[float, ...] | None
    """(C,) per channel, above 0; None: the standard deviation of the training images."""


own_code = [""]
"""Folders in which "package.module:function" is looked for last: the working one and, in workers, the command's."""


class _OwnCode(MetaPathFinder):
    """Finds modules in the folders of `own_code`, and what these import themselves beside them; installed ones first.

    What installed modules import, and may find or not, is never looked for there.
    """

    def __init__(self) -> None:
        self.wanted = set[str]()
        self.found = dict[str, str]()  # in which folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None:
            return None
        beside = self.found.get(_importer())
        for folder in own_code if fullname in self.wanted else [] if beside is None else [beside]:
            with suppress(FileNotFoundError):  # a working folder that is gone
                folder = os.path.abspath(folder)  # later, the working folder may be another
                spec = PathFinder.find_spec(fullname, [folder])
                if spec is not None:
                    self.found[fullname] = folder
                    return spec
        return None


_own = _OwnCode()


def _importer() -> str:
    """Return the package whose import is under way."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and _package(frame) in ("importlib", "_frozen_importlib", "_frozen_importlib_external"):
        if frame.f_code.co_name in ("create_module", "exec_module"):  # of a module in C, which has no frame itself
            return str(getattr(frame.f_locals.get("self"), "name", "")).partition(".")[0]
        frame = frame.f_back
    return "" if frame is None else _package(frame)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def imported(name: str, what: str = "model") -> Any:
    """Import what "package.module:function" names: an installed module, else a file of the working folder.

    Raises InputError if it cannot be imported.
    """
    module_name, _, function_name = name.partition(":")
    sys.meta_path[:] = [*(finder for finder in sys.meta_path if finder is not _own), _own]  # stays, for later imports
    _own.wanted.add(_top(name))
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{what} is {name!r}, which cannot be imported: {error}.") from error
    finally:
        _own.wanted.discard(_top(name))


def of_working_folder(name: str) -> bool:
    """Return whether "package.module:function" is of no installed package, so that it is looked for there."""
    if not names_function(name):
        return False
    try:
        return importlib.util.find_spec(_top(name)) is None or _top(name) in _own.found
    except ValueError:  # it is there, but does not say from where
        return False


def _top(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]


def published_weights(name: str) -> Any:
    """Return torchvision's default weights for that network, None if there are none."""
    known = torchvision_models.list_models(module=torchvision_models)
    if name not in known:
        raise InputError(f"model is {name!r}; {near(name, (*OWN, *known))}")
    return getattr(torchvision_models.get_model_weights(name), "DEFAULT", None)


def torchvision_network(name: str, pretrained: bool) -> nn.Module:
    """Build a network of torchvision without auxiliary classifiers. Raises InputError if weights cannot be fetched."""
    weights = published_weights(name) if pretrained else None
    # these two warn unless told whether to use their slow published initialisation
    extra = {"init_weights": True} if name in ("googlenet", "inception_v3") and weights is None else {}
    try:
        with weights_only():
            network: nn.Module = torchvision_models.get_model(name, weights=weights, **extra)
    except (URLError, OSError, RuntimeError) as error:
        url = getattr(weights, "url", "")
        raise InputError(
            f"the weights of {name} could not be fetched ({oneline(error)}); bring {url} and give --weights FILE, "
            "or start fresh with --weights none."
        ) from error
    if hasattr(network, "aux_logits"):  # auxiliary classifiers would keep 1,000 classes
        network.aux_logits = cast(Any, False)
        network.transform_input = cast(Any, True)  # as with published weights, which may be loaded later
        for part in ("AuxLogits", "aux1", "aux2"):
            if hasattr(network, part):
                setattr(network, part, None)
    return network


def last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Return path and module of a network's last linear or convolutional layer, its classifier.

    Raises:
        InputError: There is no such layer.
    """
    for path, layer in reversed(list(network.named_modules())):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            return path, layer
    raise InputError(f"{type(network).__name__} has no linear or convolutional layer to classify with.")


def load_pretrained(network: nn.Module, file: Path) -> None:
    """Load weights from a file into a network; its last layer only if it has the same classes.

    Raises:
        InputError: The file holds no weights, or those of another network.
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
            f"{file} holds {len(found)} weights, but {len(missing)} of the network's {len(own)} are missing or "
            f"have another shape, {missing[0]} first; it takes the weights of the same network."
        )
    network.load_state_dict(fitting, strict=False)


def _bare(key: str) -> str:
    return key.removeprefix("module.").removeprefix("_orig_mod.")


def _read(file: Path) -> dict[str, Tensor]:
    check_regular(file)
    try:
        if file.suffix == ".safetensors":
            loaded = importlib.import_module("safetensors.torch").load_file(file)
        else:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    check_archive(archive, file.name, "save the weights again with torch.save")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the content of foreign files, which are refused
                loaded = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{file} needs the package safetensors to be read; pip install safetensors.") from error
    except Exception as error:  # unpickling raises all kinds of errors
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):  # torch advises to run what it is
            raise InputError(
                f"{file} cannot be read as weights: it is damaged, or holds more than tensors and plain values, and "
                "nothing is unpickled; save the network's state_dict()."
            ) from None
        raise InputError(f"{file} cannot be read as weights: {oneline(error)}.") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{file} holds {type(loaded).__name__}; it takes a state dict, names to tensors.")
    return dict(loaded)


def oneline(error: BaseException) -> str:
    """Return an error as part of a sentence."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__
