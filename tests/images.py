"""Small images made on the spot: two or three kinds of shape that a small network tells apart at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cvcoteach._validation import IntArray

CLASSES = ("bar", "cross", "ring")


def draw(label: int, rng: np.random.Generator, side: int = 12) -> np.ndarray:
    """One grey image (side, side) uint8 of a class, moved and noisy."""
    rows, cols = np.mgrid[:side, :side]
    x, y = cols - rng.integers(side // 2 - 1, side // 2 + 2), rows - rng.integers(side // 2 - 1, side // 2 + 2)
    shape = [abs(x) <= 1, (abs(x) <= 1) | (abs(y) <= 1), abs(np.hypot(x, y) - side / 3.5) < 1.2][label]
    return np.clip(shape * 200 + rng.normal(20, 12, (side, side)), 0, 255).astype(np.uint8)


def dataset(n: int, wrong: float, seed: int = 0) -> tuple[np.ndarray, IntArray, IntArray]:
    """Images (n, 12, 12) uint8, true labels, given labels with a share `wrong` of wrong ones."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % len(CLASSES)
    images = np.stack([draw(int(label), rng) for label in true])
    given = true.copy()
    flipped = rng.permutation(n)[: round(wrong * n)]
    given[flipped] = (given[flipped] + rng.integers(1, len(CLASSES), len(flipped))) % len(CLASSES)
    return images, true, given


def class_folders(folder: Path, n: int = 90, wrong: float = 0.1) -> set[str]:
    """Write a folder of class folders; the paths under a wrong name."""
    images, true, given = dataset(n, wrong)
    for number, (image, label) in enumerate(zip(images, given, strict=True)):
        file = folder / CLASSES[label] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return {f"{CLASSES[given[i]]}/{i:03d}.png" for i in np.flatnonzero(given != true)}
