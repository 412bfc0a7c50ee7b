"""Real pictures of three classes: clothes of Fashion-MNIST where they are installed, else handwritten digits."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

VARIABLE = "CVCOTEACH_FASHION_MNIST"
"""Environment variable that names the folder of Fashion-MNIST's files."""
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts them."""
_CLOTHES = {1: "trouser", 3: "dress", 8: "bag"}
_DIGITS = {3: "three", 5: "five", 8: "eight"}


def three_classes(n: int, n_wrong: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images (n, H, W) uint8, true and given labels (n,) 0..2, class names. n_wrong of the given ones are wrong."""
    folder = Path(os.environ.get(VARIABLE) or DEBIAN)
    if (folder / "t10k-images-idx3-ubyte.gz").is_file():
        images, labels, names = _idx(folder, "images", 16).reshape(-1, 28, 28), _idx(folder, "labels", 8), _CLOTHES
    else:
        digits = load_digits()
        images, labels, names = np.round(digits.images * 15).astype(np.uint8), digits.target, _DIGITS
    rng = np.random.default_rng(seed)
    rows = np.concatenate([np.flatnonzero(labels == label)[: n // 3] for label in names])
    rng.shuffle(rows)
    true = np.searchsorted(list(names), labels[rows])
    given = true.copy()
    wrong = rng.permutation(len(rows))[:n_wrong]
    given[wrong] = (given[wrong] + rng.integers(1, 3, n_wrong)) % 3
    return images[rows], true, given, tuple(names.values())


def _idx(folder: Path, what: str, header: int) -> np.ndarray:
    (file,) = folder.glob(f"t10k-{what}-*-ubyte.gz")
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)
