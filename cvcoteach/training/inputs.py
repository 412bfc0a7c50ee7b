"""What a user calls X, ready for the training loop: images of any kind, or features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from cvcoteach._validation import FloatArray, InputError, IntArray
from cvcoteach.data.decode import as_pixels, squash
from cvcoteach.data.images import LARGEST_SMALL_IMAGE, load_images, size_for
from cvcoteach.data.sources import Source
from cvcoteach.training.batches import Pixels, Scaling, room_for, scaling_of
from cvcoteach.training.devices import Plan, choose_device, choose_threads
from cvcoteach.training.models import build_model, preprocessing
from cvcoteach.training.networks import feature_head
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.torch_trainer import TorchTrainer

Kind = Literal["features", "images", "paths", "dataset"]


def kind_of(X: Any) -> Kind:
    """What X is: a torch Dataset, paths, an array of images, or else features."""
    if isinstance(X, Dataset):
        return "dataset"
    if isinstance(X, np.ndarray):
        if X.ndim in (3, 4):
            return "images"
        return "paths" if X.ndim == 1 and len(X) and isinstance(X[0], str | os.PathLike) else "features"
    if isinstance(X, Sequence) and not isinstance(X, str) and len(X) and isinstance(X[0], str | os.PathLike):
        return "paths"
    return "features"


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images or features as the training loop takes them."""

    array: npt.NDArray[Any]
    """(n, size, size, C) uint8; features (n, 1, 1, d) float32, standardised."""
    are_features: bool

    def __len__(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size, C) of each; features (1, 1, d)."""
        return self.array.shape[1:]

    def on(self, plan: Plan) -> Pixels:
        """Batches of them on a device."""
        return Pixels(self.array, plan)

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe for them: whether to mirror is settled."""
        return replace(recipe, shift=0, flip=False) if self.are_features else recipe.for_channels(self.shape[2])

    def scaling(self, recipe: Recipe, rows: IntArray) -> Scaling:
        """What the loop is to normalise with: as the weights were trained, else as these rows are."""
        if self.are_features:
            return Scaling((0.0,), (1 / 255,))  # they are standardised already; the loop divides by 255
        wanted = preprocessing(recipe.model, recipe.weights)
        if wanted.mean is not None and wanted.std is not None:
            return Scaling(wanted.mean, wanted.std)
        return scaling_of(self.array, rows)

    def plan(
        self,
        recipe: Recipe,
        n_classes: int,
        *,
        device: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> Plan:
        """How to compute: images as a short probe says (see `TorchTrainer.plan`), features in float32 by default."""
        if not self.are_features:
            trainer = TorchTrainer(self.array, n_classes, recipe, device=device, threads=threads, precision=precision)
            return trainer.plan
        where = choose_device(device)
        resident = room_for(self.array, where)
        return Plan(str(where), precision or "float32", threads=choose_threads(threads), resident=resident)

    def build(self, recipe: Recipe, n_classes: int, seed: int) -> nn.Module:
        """A fresh network for them, on the CPU."""
        return build_network(self.shape, self.are_features, recipe.model, recipe.weights, n_classes, seed)


def build_network(
    shape: Sequence[int], are_features: bool, model: str, weights: str | None, n_classes: int, seed: int
) -> nn.Module:
    """A fresh network for inputs of that shape; features get a head with one hidden layer, whatever the model."""
    if not are_features:
        return build_model(model, n_classes, shape[2], weights, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return feature_head(shape[2], n_classes)


def features_of(X: npt.NDArray[np.floating[Any]], center: FloatArray, scale: FloatArray) -> Inputs:
    """Features (n, d), less `center` and divided by `scale` (d,) each."""
    standard = ((X - center) / scale).astype(np.float32)
    return Inputs(np.ascontiguousarray(standard)[:, None, None, :], are_features=True)


def standard_of(X: npt.NDArray[np.floating[Any]]) -> tuple[FloatArray, FloatArray]:
    """Mean and deviation (d,) of each feature; a deviation of nothing counts as 1."""
    center, scale = X.mean(axis=0, dtype=np.float64), X.std(axis=0, dtype=np.float64)
    return center, np.where(scale > 0, scale, 1.0)


def images_of(
    X: Any, kind: Kind, size: int | None, channels: int | None, *, own_size: int | None = None, where: str = "X"
) -> Inputs:
    """Images as (n, size, size, C) uint8.

    X: (n, H, W) or (n, H, W, 1|3|4) uint8, uint16, bool, or floats in [0, 1]; paths; or a torch Dataset of images
    (PIL, tensors C×H×W, arrays H×W×C) or of tuples that begin with one. size: None takes `own_size`, or the
    images' own, 64 at most. channels: 1 or 3; None as the images are.

    Raises InputError for anything else, and where an image cannot be read.
    """
    if kind == "dataset":
        X = _from_dataset(X)
    source = _source(X, where)
    if size is None:
        size = size_for(source, own_size)
    images = load_images(source, size, channels=channels)
    if images.errors:
        first = min(images.errors)
        raise InputError(f"{where}[{first}] cannot be read, {source.paths[first]}: {images.errors[first]}.")
    return Inputs(images.pixels, are_features=False)


def _source(X: Any, where: str) -> Source:
    """A source without labels."""
    here = Path.cwd()
    if not isinstance(X, np.ndarray) or X.ndim == 1:
        paths = [os.path.abspath(path) for path in X]
        common = Path(os.path.commonpath(paths)) if len({*paths}) > 1 else Path(paths[0]).parent
        return unlabelled(common, common, paths)
    if 0 in X.shape or (X.ndim == 4 and X.shape[3] not in (1, 3, 4)):
        turned = X.ndim == 4 and X.shape[1] in (1, 3, 4)
        raise InputError(
            f"{where} has shape {X.shape}; images are (n, H, W) or (n, H, W, 1|3|4)"
            + (", channels last: X.transpose(0, 2, 3, 1)." if turned else ".")
        )
    if X.dtype.kind == "f":
        if not (X.min() >= 0 and X.max() <= 1):
            raise InputError(f"{where} has values from {X.min():g} to {X.max():g}; images of floats lie in [0, 1].")
    elif X.dtype not in (np.uint8, np.uint16, np.bool_):
        raise InputError(f"{where} holds {X.dtype}; images are uint8, uint16 or floats in [0, 1].")
    return unlabelled(here, here, [f"{where}[{row}]" for row in range(len(X))], X)


def unlabelled(location: Path, root: Path, paths: Sequence[str], array: npt.NDArray[Any] | None = None) -> Source:
    """A source of images whose labels are not known: all 0."""
    return Source(location, root, tuple(paths), np.zeros(len(paths), np.int64), ("",), array=array)


def _from_dataset(dataset: Any) -> npt.NDArray[np.uint8]:
    """All images of a Dataset, decoded once; squashed to the size of the first where they differ."""
    images = [_image(dataset[row], row) for row in range(len(dataset))]
    if not images:
        raise InputError("X is an empty dataset; it takes one image for each label.")
    size = images[0].shape[:2]
    channels = max(image.shape[2] for image in images)
    if any(image.shape[:2] != size for image in images):
        side = min(max(8, min(size)), LARGEST_SMALL_IMAGE)
        return np.stack([as_pixels(squash(_picture(image), side), 1 if channels == 1 else 3) for image in images])
    return np.stack([np.broadcast_to(image, (*size, channels)) for image in images])


def _picture(image: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _image(item: Any, row: int) -> npt.NDArray[np.uint8]:
    """One item's image as (H, W, C) uint8."""
    image = item[0] if isinstance(item, tuple | list) else item
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"))
    elif isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.permute(1, 2, 0) if image.ndim == 3 else image).numpy()
    array = np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InputError(f"X[{row}] has shape {array.shape}; a dataset gives images of 1, 3 or 4 channels.")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise InputError(
                f"X[{row}] has values from {array.min():g} to {array.max():g}; floats lie in [0, 1], not normalised."
            )
        return (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"X[{row}] holds {array.dtype}; a dataset gives images of uint8 or floats in [0, 1].")
    return array


def labels_of_dataset(dataset: Any) -> npt.NDArray[Any]:
    """The second value of each item.

    Raises InputError where items hold no label.
    """
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == len(dataset):
        return np.asarray(targets)
    items = [dataset[row] for row in range(len(dataset))]
    if not all(isinstance(item, tuple | list) and len(item) > 1 for item in items):
        raise InputError("y is missing, and the items of the dataset hold no label; give y.")
    return np.asarray([int(item[1]) if isinstance(item[1], torch.Tensor) else item[1] for item in items])
