"""What a user passes an estimator as X: features, or images as an array, paths or a torch Dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import Dataset

from cvcoteach._validation import InputError
from cvcoteach.data.decode import as_pixels, squash
from cvcoteach.data.images import LARGEST_SMALL_IMAGE, load_images, size_for
from cvcoteach.data.sources import Source

Kind = Literal["features", "images", "paths", "dataset"]


def kind_of(X: Any) -> Kind:
    """Return what X is: a torch Dataset, paths, an array of images, or else features."""
    if isinstance(X, Dataset):
        return "dataset"
    if isinstance(X, np.ndarray):
        if X.ndim in (3, 4):
            return "images"
        return "paths" if X.ndim == 1 and len(X) and isinstance(X[0], str | os.PathLike) else "features"
    if isinstance(X, Sequence) and not isinstance(X, str) and len(X) and isinstance(X[0], str | os.PathLike):
        return "paths"
    return "features"


def images_of(
    X: Any,
    kind: Kind,
    size: int | None = None,
    channels: int | None = None,
    *,
    own_size: int | None = None,
    where: str = "X",
) -> npt.NDArray[np.uint8]:
    """Return images as (n, size, size, C) uint8.

    Args:
        X: (n, H, W) or (n, H, W, 1|3|4) uint8, uint16, bool, or floats in [0, 1]; paths; or a torch Dataset of images
            (PIL, tensors C×H×W, arrays H×W×C) or of tuples that begin with one.
        kind: Of X, see `kind_of`; not "features".
        size: Height and width, pixels; None: `own_size`, else the size of the images, at most 64.
        channels: 1 or 3; None: as many as the images have.
        own_size: The size that the network was trained with, pixels; None: any.
        where: What error messages call X.

    Raises:
        InputError: X is anything else, or an image cannot be read.
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
    return images.pixels


def _source(X: Any, where: str) -> Source:
    """Return a source without labels."""
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
    """Return a source of images whose labels are not known: all 0."""
    return Source(location, root, tuple(paths), np.zeros(len(paths), np.int64), ("",), array=array)


def _from_dataset(dataset: Any) -> npt.NDArray[np.uint8]:
    """Decode all images of a Dataset once; if their sizes differ, squash them to the size of the first."""
    images = [_image(dataset[row], row) for row in range(len(dataset))]
    if not images:
        raise InputError("X is an empty dataset; it takes one image per label.")
    size = images[0].shape[:2]
    channels = max(image.shape[2] for image in images)
    if any(image.shape[:2] != size for image in images):
        side = min(max(8, min(size)), LARGEST_SMALL_IMAGE)
        channels = 1 if channels == 1 else 3
        squashed = [as_pixels(squash(_picture(image), side), channels) for image in images]
        return np.stack([np.broadcast_to(image, (side, side, channels)) for image in squashed])
    return np.stack([np.broadcast_to(image, (*size, channels)) for image in images])


def _picture(image: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _image(item: Any, row: int) -> npt.NDArray[np.uint8]:
    """Return the image of an item as (H, W, C) uint8."""
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
    """Return the second value of each item.

    Raises:
        InputError: The items hold no label.
    """
    targets = getattr(dataset, "targets", None)
    if targets is not None and len(targets) == len(dataset):
        return np.asarray(targets)
    items = [dataset[row] for row in range(len(dataset))]
    if not all(isinstance(item, tuple | list) and len(item) > 1 for item in items):
        raise InputError("y is missing, and the items of the dataset hold no label; give y.")
    return np.asarray([int(item[1]) if isinstance(item[1], torch.Tensor) else item[1] for item in items])
