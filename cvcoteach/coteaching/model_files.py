"""A trained classifier <-> one folder: weights as safetensors, everything else as JSON; nothing is unpickled."""

from __future__ import annotations

import copy
import importlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from cvcoteach._files import replacing, write_json
from cvcoteach._validation import InputError, PredProbs
from cvcoteach.data.levels import ORDINARY, Levels
from cvcoteach.training.batches import Pixels, Scaling, room_for
from cvcoteach.training.devices import Plan
from cvcoteach.training.loop import logits_of, predict
from cvcoteach.training.models import build_model, is_foreign

FORMAT = 1
WEIGHTS, ABOUT = "model.safetensors", "model.json"
EXPORTS = {"onnx": "model.onnx", "torch.export": "model.pt2"}


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier of images: one network or several, whose probabilities are averaged."""

    networks: Sequence[nn.Module]
    architecture: str
    """As `build_model` knows it."""
    class_names: tuple[str, ...]
    """K."""
    size: int
    """Pixels a side, to which whole images are squashed."""
    channels: int
    """1 or 3."""
    scaling: Scaling
    mirror: bool
    """Whether a prediction is the mean over an image and its mirror image."""
    levels: Levels = ORDINARY
    """Black and white of images that are not ordinary bytes, as of those that were trained on."""

    def predict_proba(self, pixels: npt.NDArray[np.uint8], plan: Plan) -> PredProbs:
        """Class probabilities (n, K) of images (n, size, size, channels)."""
        plan = replace(plan, resident=room_for(pixels, plan.torch_device))
        networks = [net.to(plan.torch_device).to(memory_format=plan.memory_format) for net in self.networks]
        rows = np.arange(len(pixels))
        if not len(rows):
            return np.zeros((0, len(self.class_names)), np.float32)
        return predict(networks, Pixels(pixels, plan), rows, self.scaling, plan, mirror=self.mirror)


def save_model(folder: Path, model: Model, *, weights: str = WEIGHTS, about: Mapping[str, Any] | None = None) -> None:
    """Write the weights and, with `about` in it, model.json; each file atomically."""
    save_weights(folder / weights, model.networks)
    content = {
        "format": FORMAT,
        "architecture": {"model": model.architecture, "channels": model.channels, "networks": len(model.networks)},
        "classes": list(model.class_names),
        "preprocessing": {
            "size": model.size,
            "resize": "the whole image, squashed and antialiased",
            "channels": model.channels,
            "mean": list(model.scaling.mean),
            "std": list(model.scaling.std),
            "mirror": model.mirror,
            "levels": model.levels.as_json(),
        },
        **(about or {}),
    }
    write_json(folder / ABOUT, content)


def load_model(folder: Path, *, trusted: str | None = None) -> Model:
    """The classifier in that folder, on the CPU.

    trusted: "package.module:function" if the model was built by one: a file may not choose whose code is run.

    Raises InputError where there is none, where a file is damaged, and where weights and model.json do not fit.
    """
    file = folder / ABOUT
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        known = content["format"]
        name, n_networks = content["architecture"]["model"], int(content["architecture"]["networks"])
        before = content["preprocessing"]
        scaling = Scaling(tuple(map(float, before["mean"])), tuple(map(float, before["std"])))
        size, channels, mirror = int(before["size"]), int(before["channels"]), bool(before["mirror"])
        levels = Levels.from_json(before.get("levels", []))
        classes = tuple(map(str, content["classes"]))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} holds no model of cvcoteach (no {ABOUT}).") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({type(error).__name__}: {error}).") from error
    if known != FORMAT:
        raise InputError(f"{file} has format {known}; this version of cvcoteach reads format {FORMAT}.")
    if is_foreign(name) and name != trusted:
        raise InputError(f"{file} asks for the code of {name!r}; if that is yours, name it yourself: --model {name}.")
    networks = [build_model(name, len(classes), channels, "none") for _ in range(n_networks)]
    load_weights(folder / WEIGHTS, networks, len(classes))
    return Model(networks, name, classes, size, channels, scaling, mirror, levels)


def save_weights(file: Path, networks: Sequence[nn.Module]) -> None:
    """All weights of the networks, `0.` before those of the first, atomically."""
    tensors = {
        f"{number}.{key}": value.detach().cpu().contiguous().clone()
        for number, network in enumerate(networks)
        for key, value in network.state_dict().items()
    }
    with replacing(file) as out:
        out.write(safetensors.torch.save(tensors))


def load_weights(file: Path, networks: Sequence[nn.Module], n_classes: int) -> None:
    """Fill the networks with what `save_weights` wrote.

    Raises InputError where the file is missing, damaged, or of other networks or other classes.
    """
    try:
        found = safetensors.torch.load_file(file)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist; a model is {WEIGHTS} and {ABOUT} in one folder.") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read as safetensors ({error}).") from error
    for number, network in enumerate(networks):
        own = network.state_dict()
        part = {key.partition(".")[2]: value for key, value in found.items() if key.partition(".")[0] == str(number)}
        if own.keys() != part.keys():
            raise InputError(f"{file} holds the weights of another network than {ABOUT} names.")
        odd = next((key for key in own if own[key].shape != part[key].shape), None)
        if odd is not None:
            there, here = tuple(part[odd].shape), tuple(own[odd].shape)
            if there[1:] == here[1:] and here[0] == n_classes:
                raise InputError(f"{file} is a model of {there[0]} classes, but {n_classes} are asked of it.")
            raise InputError(f"{file} has {odd} of shape {there}, but the network has {here}.")
        network.load_state_dict(part)


# -- export ------------------------------------------------------------------------------------------------------


class Whole(nn.Module):
    """From pixels to probabilities: scaling, all networks, the mirror image, their mean."""

    factor: Tensor
    offset: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.networks = nn.ModuleList(model.networks)
        self._mirror = model.mirror
        # numbers of its own: `normalise` remembers tensors, and an exporter's tensors are no numbers
        mean, std = torch.tensor(model.scaling.mean), torch.tensor(model.scaling.std)
        self.register_buffer("factor", 1 / (255 * std))
        self.register_buffer("offset", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (b, size, size, channels) -> probabilities (b, K)."""
        inputs = torch.addcmul(self.offset, images.to(torch.float32), self.factor).permute(0, 3, 1, 2)
        views = [inputs, inputs.flip(3)] if self._mirror else [inputs]
        answers = [logits_of(network(view)).softmax(dim=1) for network in self.networks for view in views]
        return torch.stack(answers).mean(dim=0)


def export_model(model: Model, folder: Path, kind: str) -> Path:
    """Write `model.onnx` or `model.pt2` (torch.export): uint8 images (b, size, size, channels) -> probabilities (b, K).

    Raises InputError for another kind, and where a package that ONNX needs is missing.
    """
    if kind not in EXPORTS:
        raise InputError(f"export is {kind!r}; there are {' and '.join(EXPORTS)}.")
    file = folder / EXPORTS[kind]
    # copies: an exporter may leave its own tensors in what it traces
    whole = Whole(replace(model, networks=[copy.deepcopy(network).cpu() for network in model.networks])).eval()
    whole = whole.to(memory_format=torch.contiguous_format)
    example = torch.zeros((2, model.size, model.size, model.channels), dtype=torch.uint8)
    dynamic = {"images": {0: torch.export.Dim("n", min=1)}}
    if kind == "torch.export":
        program = torch.export.export(whole, (example,), dynamic_shapes=dynamic)
        content = io.BytesIO()  # a temporary file by another name would draw a warning
        torch.export.save(program, content)
        with replacing(file) as out:
            out.write(content.getbuffer())
        return file
    _check_onnx()
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


def _check_onnx() -> None:
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"an export to ONNX needs the package {package}; pip install onnx onnxscript, or export torch.export."
            ) from error
