"""Seconds to read a dataset for the first time, beside torchvision's ImageFolder with as many workers.

    python examples/benchmarks/reading.py [--images 5000] [--workers 2] [--turns 3]    # three minutes; 20 s for 5,000

The same made PNGs of 32 px as class folders, embedded in a Parquet, and in WebDataset shards. Ours is from the path to
the decoded array in an empty cache, hashed, checked and on disk; torchvision's is one pass of a DataLoader of an
ImageFolder that decodes to tensors. Both start with the files in the page cache.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tables import markdown, publish
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import PILToTensor

from cvcoteach.data.images import load_images
from cvcoteach.data.sources import read_source

SIZE = 32
N_CLASSES = 10
PER_SHARD = 10_000


def encoded(n: int) -> list[bytes]:
    """Return n smooth pictures with a little noise, as PNG."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).resize((8, 8))
    base = np.asarray(small.resize((2 * SIZE, 2 * SIZE), Image.Resampling.BICUBIC), np.int16)
    result = []
    for _ in range(n):
        row, column = rng.integers(0, SIZE, 2)
        picture = base[row : row + SIZE, column : column + SIZE] + rng.integers(-12, 13, (SIZE, SIZE, 3))
        file = io.BytesIO()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        result.append(file.getvalue())
    return result


def write_all(folder: Path, images: list[bytes]) -> dict[str, Path]:
    """Write the images in three formats; what was written, by its name."""
    labels = [i % N_CLASSES for i in range(len(images))]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = folder / "folder" / f"class{label}" / f"{i:06}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
    pd.DataFrame({"image": images, "label": labels}).to_parquet(folder / "images.parquet")
    (folder / "shards").mkdir()
    for start in range(0, len(images), PER_SHARD):
        with tarfile.open(folder / "shards" / f"{start // PER_SHARD:04}.tar", "w") as archive:
            for i in range(start, min(start + PER_SHARD, len(images))):
                for name, content in ((f"{i:06}.png", images[i]), (f"{i:06}.cls", str(labels[i]).encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return {"class folders": folder / "folder", "Parquet": folder / "images.parquet", "WebDataset": folder / "shards"}


def of_torchvision(folder: Path, workers: int) -> int:
    """Decode all images of class folders; how many there were."""
    dataset = ImageFolder(str(folder), PILToTensor())
    loader = DataLoader(dataset, 256, num_workers=workers if workers > 1 else 0)
    return sum(len(labels) for _, labels in loader)


def of_ours(source: Path, workers: int) -> int:
    """Read a source into a cache that is empty; how many images there were."""
    with tempfile.TemporaryDirectory(dir=source.parent) as cache:
        read = read_source(source, cache_dir=cache)
        images = load_images(read, SIZE, cache_dir=Path(cache), workers=workers)
        assert images.readable.all()
        return len(images.pixels)


def seconds(call: Callable[..., int], *arguments: object) -> float:
    """Return how long a call takes."""
    os.sync()  # what was written before is no part of it
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def main() -> None:
    """Measure all in turns, publish the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        sources = write_all(Path(name), encoded(args.images))
        theirs: list[float] = []
        ours: dict[str, list[float]] = {kind: [] for kind in sources}
        for turn in range(args.turns):
            theirs.append(seconds(of_torchvision, sources["class folders"], args.workers))
            for kind, source in sources.items():
                ours[kind].append(seconds(of_ours, source, args.workers))
            said = ", ".join(f"{kind} {found[-1]:.1f} s" for kind, found in ours.items())
            print(f"turn {turn + 1}: ImageFolder {theirs[-1]:.1f} s; {said}", flush=True)
    rows = [["torchvision's ImageFolder", f"{np.median(theirs):.1f}", ""]]
    for kind, found in ours.items():
        ratio = np.median(np.divide(found, theirs))
        rows.append([f"ours, {kind}", f"{np.median(found):.1f}", f"{ratio:.2f}"])
    said = "one turn" if args.turns == 1 else f"median of {args.turns} turns"
    text = f"{args.images:,} images of {SIZE} px, {args.workers} workers; {said}.\n\n"
    table = markdown(["", "seconds", "ratio"], rows)
    if args.images == parser.get_default("images"):
        publish("reading", text + table)
    else:
        print(text + table)


if __name__ == "__main__":
    main()
