"""A trained classifier in a folder: weights as safetensors, everything else as JSON; nothing is unpickled."""

from __future__ import annotations

import copy
import importlib
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cvcoteach._files import check_regular, replacing, write_json
from cvcoteach._json import parsed
from cvcoteach._validation import InputError, PredProbs
from cvcoteach.data.images import LARGEST_SIZE
from cvcoteach.data.levels import ORDINARY, Levels
from cvcoteach.training.batches import DeviceImages, ImageBatches, room_for
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.loop import logits_of, predict
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.trust import check_trusted

FORMAT = 1
WEIGHTS, ABOUT = "model.safetensors", "model.json"
_MOST_NETWORKS = 100
_TINY = 1e-12
EXPORTS = {"onnx": "model.onnx", "torch.export": "model.pt2"}


@dataclass(frozen=True)
class ImageFormat:
    """The images that a classifier takes."""

    size: int
    """Height and width, pixels, to which whole images are squashed."""
    channels: int
    """1 or 3."""
    scaling: Scaling
    """Normalises them."""
    levels: Levels = ORDINARY
    """Black and white of values that are not ordinary bytes, as in the images that were trained on."""

    def __post_init__(self) -> None:
        mean, std = np.array(self.scaling.mean), np.array(self.scaling.std)
        if self.channels not in (1, 3) or not 1 <= self.size <= LARGEST_SIZE:
            raise InputError(
                f"its images are {self.size}×{self.size} pixels with {self.channels} channels; a classifier takes 1 "
                f"or 3 channels, and up to {LARGEST_SIZE:,} pixels a side."
            )
        if mean.shape != std.shape or len(mean) not in (1, 3) or not np.isfinite([mean, std]).all() or (std <= 0).any():
            raise InputError(
                f"its images are scaled by the mean {list(self.scaling.mean)} and the deviation "
                f"{list(self.scaling.std)}; it takes finite numbers, one for each channel, and deviations above 0."
            )


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier of images: one network or several, whose probabilities are averaged."""

    networks: Sequence[nn.Module]
    """At least one."""
    spec: ModelSpec
    """What each network is; its weights do not matter."""
    class_names: tuple[str, ...]
    """(K,) names."""
    images: ImageFormat
    """What it takes."""
    mirror: bool
    """Whether predictions are averaged over an image and its mirror image."""
    temperature: float = 1.0
    """What the logarithms of averaged probabilities are divided by, above 0."""

    def predict_proba(self, pixels: npt.NDArray[np.uint8], plan: ComputePlan) -> PredProbs:
        """Return class probabilities (n, K) of images (n, size, size, channels)."""
        plan = replace(plan, resident=room_for(pixels, plan.torch_device))
        networks = [plan.placed(network) for network in self.networks]
        rows = np.arange(len(pixels))
        if not len(rows):
            return np.zeros((0, len(self.class_names)), np.float32)
        source = ImageBatches(DeviceImages(pixels, plan), self.images.scaling)
        probs = tempered(predict(networks, source, rows, mirror=self.mirror), self.temperature)
        if not np.isfinite(probs).all():
            raise InputError(
                "the classifier computes no probabilities for some images: its weights or its temperature are damaged."
            )
        return probs


def save_model(folder: Path, model: Model, *, weights: str = WEIGHTS, about: Mapping[str, Any] | None = None) -> None:
    """Write the weights and model.json, which also holds what is in `about`; each file atomically."""
    images = model.images
    save_weights(folder / weights, model.networks)
    content = {
        "format": FORMAT,
        "architecture": {"model": str(model.spec), "channels": images.channels, "networks": len(model.networks)},
        "classes": list(model.class_names),
        "preprocessing": {
            "size": images.size,
            "resize": "the whole image, squashed and antialiased",
            "channels": images.channels,
            "mean": list(images.scaling.mean),
            "std": list(images.scaling.std),
            "mirror": model.mirror,
            "levels": images.levels.as_json(),
        },
        "temperature": model.temperature,
        **(about or {}),
    }
    write_json(folder / ABOUT, content)


def load_model(folder: Path, *, trusted: Collection[str] = ()) -> Model:
    """Load the classifier from a folder, onto the CPU.

    Args:
        folder: What `save_model` wrote.
        trusted: Names of code that the user allows to run, see `trust`: a file may not choose whose code runs.

    Raises:
        InputError: There is no classifier, a file is damaged, or weights and model.json do not fit each other.
    """
    file = folder / ABOUT
    check_regular(file)
    try:
        content = parsed(file.read_text(encoding="utf-8"))
        known = content["format"]
        spec, n_networks = (
            ModelSpec.parse(content["architecture"]["model"], "none"),
            int(content["architecture"]["networks"]),
        )
        before = content["preprocessing"]
        scaling = Scaling(tuple(map(float, before["mean"])), tuple(map(float, before["std"])))
        levels = Levels.from_json(before.get("levels", []))
        images = ImageFormat(int(before["size"]), int(before["channels"]), scaling, levels)
        mirror, temperature = bool(before["mirror"]), float(content.get("temperature", 1.0))
        if not 0 < temperature < math.inf:
            raise ValueError(f"its temperature is {temperature}, and takes a number above 0")
        classes = tuple(map(str, content["classes"]))
        if isinstance(content["classes"], str) or not 2 <= len(set(classes)) == len(classes):
            raise ValueError("it takes a list of two classes or more, each once")
        if not 1 <= n_networks <= _MOST_NETWORKS:
            raise ValueError(f"it has {n_networks:,} networks, and takes 1 to {_MOST_NETWORKS}")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} holds no model of cvcoteach (no {ABOUT}).") from None
    except InputError as error:
        raise InputError(f"{file} is damaged: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}: {error}).") from error
    if known != FORMAT:
        raise InputError(f"{file} has format {known}; this version of cvcoteach reads format {FORMAT}.")
    if spec.is_foreign:
        check_trusted(spec.name, trusted, str(file))
    models = ModelFactory(spec, trusted=trusted)
    weights = _read_weights(folder / WEIGHTS)
    if len({key.partition(".")[0] for key in weights}) != n_networks:
        raise InputError(f"{folder / WEIGHTS} does not hold the weights of {n_networks:,} networks, as {ABOUT} says.")
    networks = []
    for number in range(n_networks):  # one after the other: a file that says too much is found out by the first
        networks.append(models.build(len(classes), images.channels))
        _load_network(folder / WEIGHTS, weights, number, networks[-1], len(classes))
    return Model(networks, spec, classes, images, mirror, temperature)


def tempered(probs: PredProbs, temperature: float) -> PredProbs:
    """Return the softmax (n, K) of the logarithms of probabilities (n, K), divided by the temperature."""
    if temperature == 1:
        return probs
    logs = torch.from_numpy(probs).clamp_min(_TINY).log() / temperature
    result: PredProbs = logs.softmax(dim=1).numpy()
    return result


def save_weights(file: Path, networks: Sequence[nn.Module]) -> None:
    """Write all weights of the networks, those of the first prefixed with `0.`, atomically."""
    tensors = {
        f"{number}.{key}": value.detach().cpu().contiguous().clone()
        for number, network in enumerate(networks)
        for key, value in network.state_dict().items()
    }
    with replacing(file) as out:
        out.write(safetensors.torch.save(tensors))


def load_weights(file: Path, networks: Sequence[nn.Module], n_classes: int) -> None:
    """Load into the networks what `save_weights` wrote.

    Raises:
        InputError: The file is missing or damaged, or belongs to other networks or other classes.
    """
    found = _read_weights(file)
    for number, network in enumerate(networks):
        _load_network(file, found, number, network, n_classes)


def _read_weights(file: Path) -> dict[str, Tensor]:
    check_regular(file)
    try:
        return safetensors.torch.load_file(file)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist; a model is {WEIGHTS} and {ABOUT} in one folder.") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}).") from error


def _load_network(file: Path, found: Mapping[str, Tensor], number: int, network: nn.Module, n_classes: int) -> None:
    """Load the weights of one of several networks. Errors as of `load_weights`."""
    own = network.state_dict()
    part = {key.partition(".")[2]: value for key, value in found.items() if key.partition(".")[0] == str(number)}
    if own.keys() != part.keys():
        raise InputError(f"{file} holds the weights of another network than {ABOUT} names.")
    odd = next((key for key in own if own[key].shape != part[key].shape), None)
    if odd is not None:
        there, here = tuple(part[odd].shape), tuple(own[odd].shape)
        if there[1:] == here[1:] and here[0] == n_classes:
            raise InputError(f"{file} is a model of {there[0]} classes, but {n_classes} are expected.")
        raise InputError(f"{file} has {odd} of shape {there}, but the network has {here}.")
    network.load_state_dict(part)
    damaged = next((key for key, value in network.state_dict().items() if not value.isfinite().all()), None)
    if damaged is not None:
        raise InputError(f"{file} is damaged: {damaged} holds a number that is not finite.")


# -- export ------------------------------------------------------------------------------------------------------


class Whole(nn.Module):
    """From pixels to probabilities: scaling, all networks, mirror images, and their mean."""

    factor: Tensor
    offset: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.networks = nn.ModuleList(model.networks)
        self._mirror, self._temperature = model.mirror, model.temperature
        # its own tensors: `normalise` caches them, and an exporter's tensors have no values
        scaling = model.images.scaling
        mean, std = torch.tensor(scaling.mean), torch.tensor(scaling.std)
        self.register_buffer("factor", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (b, K) of uint8 images (b, size, size, channels)."""
        inputs = torch.addcmul(self.offset, images.to(torch.float32), self.factor).permute(0, 3, 1, 2)
        views = [inputs, inputs.flip(3)] if self._mirror else [inputs]
        answers = [logits_of(network(view)).softmax(dim=1) for network in self.networks for view in views]
        mean = torch.stack(answers).mean(dim=0)
        return mean if self._temperature == 1 else (mean.clamp_min(_TINY).log() / self._temperature).softmax(dim=1)


def export_model(model: Model, folder: Path, kind: str) -> Path:
    """Write `model.onnx` or `model.pt2` (torch.export): uint8 images (b, size, size, channels) -> probabilities (b, K).

    Raises:
        InputError: The kind is unknown, or a package that ONNX needs is missing.
    """
    check_export(kind)
    file, images = folder / EXPORTS[kind], model.images
    # copies, since an exporter may leave its own tensors in what it traces
    whole = Whole(replace(model, networks=[copy.deepcopy(network).cpu() for network in model.networks])).eval()
    whole = whole.to(memory_format=torch.contiguous_format)
    example = torch.zeros((2, images.size, images.size, images.channels), dtype=torch.uint8)
    dynamic = {"images": {0: torch.export.Dim("n", min=1)}}
    if kind == "torch.export":
        program = torch.export.export(whole, (example,), dynamic_shapes=dynamic)
        content = io.BytesIO()  # a temporary file with another ending would cause a warning
        torch.export.save(program, content)
        with replacing(file) as out:
            out.write(content.getbuffer())
        return file
    onnx: Any = torch.onnx.export(
        whole,
        (example,),
        dynamic_shapes=dynamic,
        input_names=["images"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
    )
    with replacing(file) as out:
        out.write(onnx.model_proto.SerializeToString())
    return file


def check_export(kind: str) -> None:
    """Raise InputError where the kind of an export is unknown, or a package that it needs is missing."""
    if kind not in EXPORTS:
        raise InputError(f"export is {kind!r}; it takes {' or '.join(EXPORTS)}.")
    for package in ("onnx", "onnxscript") if kind == "onnx" else ():
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"an export to ONNX needs the package {package}; pip install onnx onnxscript, or export torch.export."
            ) from error
