"""Image files made on the spot, and sources of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cvcoteach.data.sources import Source


def source_of(root: Path) -> Source:
    """All files below `root`, in order, with labels in turn."""
    paths = tuple(sorted(str(path.relative_to(root)) for path in root.rglob("*.*") if path.is_file()))
    return Source(root, root, paths, np.arange(len(paths)) % 2, ("a", "b"))


def noise_images(root: Path, n: int, side: int = 12, channels: int = 3, seed: int = 0) -> Source:
    """`n` PNG files of noise."""
    root.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (n, side, side, channels), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image.squeeze()).save(root / f"{i:04d}.png")
    return source_of(root)
