"""Arrays, tensors, paths or a Dataset, from Python -> pixels and labels. No torch is imported here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from cvcoteach._validation import InputError, as_array
from cvcoteach.data.brightness import brightness_levels
from cvcoteach.data.decode import as_pixels, squash
from cvcoteach.data.images import LARGEST_SMALL_IMAGE, Images, load_images, natural_size, size_for
from cvcoteach.data.levels import ORDINARY, Levels, Pixels, bytes_of, levels_of, merged, range_of
from cvcoteach.data.sources import Source, check_images, spread, unlabelled

Kind = Literal["features", "images", "paths", "dataset"]

_LOOKED_AT = 16
_COMPARED = 16
"""Items whose labels are compared with the dataset's `targets`."""


def kind_of(X: Any) -> Kind:
    """Return what X is: a torch Dataset, paths, an array of images, or else features.

    Raises:
        InputError: for what cannot be read row by row: a DataLoader, an iterable or Hugging Face dataset.
    """
    _refuse_streams(X)
    if isinstance(X, pd.Series | pd.Index):
        X = X.to_numpy()
    if hasattr(X, "__array__"):
        n_axes = len(getattr(X, "shape", ()))
        if n_axes in (3, 4):
            return "images"
        return "paths" if n_axes == 1 and len(X) and isinstance(X[0], str | os.PathLike) else "features"
    if isinstance(X, Sequence) and not isinstance(X, str | bytes) and len(X):
        if isinstance(X[0], str | os.PathLike):
            return "paths"
        if isinstance(X[0], Image.Image) or len(getattr(X[0], "shape", ())) in (2, 3):
            return "dataset"
        return "features"
    is_a_dataset = not isinstance(X, Sequence) and hasattr(X, "__getitem__") and not hasattr(X, "shape")
    return "dataset" if is_a_dataset and hasattr(X, "__len__") else "features"


def _refuse_streams(X: Any) -> None:
    """Raise InputError for data without rows that can be asked for by number."""
    home = type(X).__module__.split(".")[0]
    if home == "datasets" and type(X).__name__ in ("DatasetDict", "IterableDatasetDict"):
        raise InputError(
            f"X holds the splits {', '.join(map(str, X))}; take one of them: X[{next(iter(X), 'train')!r}]."
        )
    if home == "datasets":
        raise InputError(
            "X is a Hugging Face dataset; hand over its columns: X=[row for row in dataset['image']], "
            "y=dataset['label']."
        )
    if isinstance(X, dict):
        raise InputError(f"X is a dict of {', '.join(map(str, list(X)[:5]))}; hand over its images.")
    if hasattr(X, "batch_sampler") and hasattr(X, "dataset"):
        raise InputError("X is a DataLoader; hand over its dataset: X.dataset.")
    streams = any(each.__name__ == "IterableDataset" for each in type(X).__mro__)
    if streams or not (hasattr(X, "__len__") or hasattr(X, "__array__") or hasattr(X, "shape")):
        raise InputError(
            f"X is a {type(X).__name__}, which has no length; it takes an array, a list, or a Dataset whose items can "
            "be asked for by number."
        )


def load_any(
    X: Any,
    kind: Kind,
    *,
    size: int | None = None,
    channels: int | None = None,
    own_size: int | None = None,
    levels: Levels | None = None,
    where: str = "X",
) -> Images:
    """Return images as (n, size, size, C) uint8.

    Args:
        X: (n, H, W) or (n, H, W, 1|3|4) numbers or bool; paths; or a torch Dataset or list of images (PIL, tensors
            C×H×W, arrays H×W×C), or of tuples that begin with one.
        kind: what X is; see `kind_of`.
        size: pixels a side; None takes `own_size`, or the images' own, 64 at most.
        channels: 1 or 3; None as the images are.
        own_size: of the network.
        levels: black and white as of images that were trained on; None: by the range of these.
        where: what X is called in messages.

    Raises:
        InputError: for anything else, and where an image cannot be read.
    """
    found = levels
    if kind == "dataset":
        X, found = _from_dataset(X, levels, where)
    source = _source(X, where)
    if size is None:
        size = size_for(source, own_size)
    images = load_images(source, size, channels=channels, levels=ORDINARY if kind == "dataset" else levels)
    if images.errors:
        first = min(images.errors)
        raise InputError(f"{where}[{first}] cannot be read, {source.paths[first]}: {images.errors[first]}.")
    return images if found is None else replace(images, levels=found)


def pixels_of(X: Any, where: str = "X", size: int | None = None) -> Pixels:
    """Return images as pixels (n, H, W, 1|3) uint8: arrays of them as they are, everything else by `load_any`.

    size: pixels a side; None: the images' own, 64 at most.
    """
    if isinstance(X, np.ndarray) and X.dtype == np.uint8 and X.ndim == 4 and X.shape[3] in (1, 3) and X.size:
        return X
    X, kind = _imaged(X, where)
    return load_any(X, kind, size=size, where=where).pixels


def look_at(X: Any, where: str = "X") -> tuple[int, int, int]:
    """Return the number of images, their height and width in pixels, and the levels of gray that one uses.

    X and errors as of `pixels_of`.
    """
    X, kind = _imaged(X, where)
    if kind == "dataset":
        if not len(X):
            raise InputError(f"{where} is an empty dataset; it takes one image per label.")
        images = [_image(X[row], f"{where}[{row}]") for row in spread(len(X), _LOOKED_AT).tolist()]
        gray = [len(np.unique(image[..., :3].mean(axis=2))) for image in images]
        return len(X), int(np.median([min(image.shape[:2]) for image in images])), int(np.median(gray))
    source = _source(X, where)
    return len(source), natural_size(source), brightness_levels(source)


def _imaged(X: Any, where: str) -> tuple[Any, Kind]:
    """Return X and its kind, which is not features. Raises InputError for what is no images."""
    kind = kind_of(X)
    if kind == "features":
        array = as_array(X, where)
        if array.ndim not in (3, 4):
            raise InputError(
                f"{where} has shape {array.shape}; it takes images (n, H, W) or (n, H, W, C), paths, or a Dataset."
            )
        return array, "images"
    return X, kind


def _source(X: Any, where: str) -> Source:
    """Return a source without labels."""
    here = Path.cwd()
    array = X if isinstance(X, np.ndarray) else None if isinstance(X, list | tuple) else as_array(X, where)
    if array is None or array.ndim == 1:
        paths = [os.path.abspath(path) for path in (X if array is None else array)]
        common = Path(os.path.commonpath(paths)) if len({*paths}) > 1 else Path(paths[0]).parent
        return unlabelled(common, common, paths)
    check_images(array, where)
    return unlabelled(here, here, [f"{where}[{row}]" for row in range(len(array))], array)


def _from_dataset(dataset: Any, levels: Levels | None, where: str) -> tuple[Pixels, Levels]:
    """Return all images of a Dataset, squashed to the size of the first where they differ, and their levels."""
    images = [_image(dataset[row], f"{where}[{row}]") for row in range(len(dataset))]
    if not images:
        raise InputError(f"{where} is an empty dataset; it takes one image per label.")
    if levels is None:
        levels = levels_of(merged([range_of(image[..., :3]) for image in images]))
    pixels = [bytes_of(image, levels) for image in images]
    size = pixels[0].shape[:2]
    channels = max(image.shape[2] for image in pixels)
    if any(image.shape[:2] != size for image in pixels):
        side = min(max(8, min(size)), LARGEST_SMALL_IMAGE)
        squares = [as_pixels(squash(_picture(image), side), 3) for image in pixels]
        array = np.stack([np.broadcast_to(square, (side, side, channels)) for square in squares])
    else:
        array = np.stack([np.broadcast_to(image, (*size, channels)) for image in pixels])
    return array, levels


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _image(item: Any, where: str) -> npt.NDArray[Any]:
    """Return one item's image as (H, W, C) of any numbers."""
    image = item[0] if isinstance(item, tuple | list) else item
    if isinstance(item, dict):
        raise InputError(f"{where} is a dict; a dataset gives images, or tuples of an image and a label.")
    if isinstance(image, Image.Image):
        whole = image.mode in ("1", "L", "RGB", "RGBA", "I", "F") or image.mode.startswith("I;16")
        image = np.asarray(image if whole else image.convert("RGB"))
    elif hasattr(image, "detach"):  # a tensor of torch
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image  # numpy knows no bfloat16
        image = (image.permute(1, 2, 0) if image.ndim == 3 else image).numpy()
    array = as_array(image, where)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InputError(f"{where} has shape {array.shape}; a dataset gives images of 1, 3 or 4 channels.")
    check_images(array[None], where)
    return array


def labels_of_dataset(dataset: Any) -> npt.NDArray[Any]:
    """Return the second value of each item.

    `targets`, where the dataset has them, spare a look at every item; they are not taken where items differ from them.

    Raises:
        InputError: where items hold no label.
    """
    targets = getattr(dataset, "targets", None)
    if targets is not None and getattr(dataset, "target_transform", None) is None and len(targets) == len(dataset):
        known = np.asarray(targets)
        rows = spread(len(known), _COMPARED).tolist()
        if known.ndim == 1 and all(_label(dataset[row], row) == known[row] for row in rows):
            return known
    return np.asarray([_label(dataset[row], row) for row in range(len(dataset))])


def _label(item: Any, row: int) -> Any:
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError("y is missing, and the items of the dataset hold no label; give y.")
    label = item[1]
    if hasattr(label, "shape") and hasattr(label, "item"):
        if int(np.prod(label.shape)) != 1:
            raise InputError(f"the label of item {row} has shape {tuple(label.shape)}; it takes one label per image.")
        return label.item()
    return label
