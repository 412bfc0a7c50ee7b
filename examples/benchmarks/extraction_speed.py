"""Images a second of `extract_features`, beside the bare network on a batch that is ready.

    python examples/benchmarks/extraction_speed.py [--threads 2]    # under two minutes

Efficientnet-lite0 at 96 px on 32-pixel images: the extraction scales, normalises, pools and writes to disk as well.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from data import RESOLUTION, efficientnet_lite0, load_cifar10n
from tables import markdown, publish
from torch import Tensor, nn

from cvcoteach.training.backbones import load_backbone
from cvcoteach.training.devices import choose_device, set_threads
from cvcoteach.training.extraction import Extractor, extract_features
from cvcoteach.training.pretrained import Preprocessing

N_IMAGES = 512
TURNS = 5


class Features(nn.Module):
    """The feature maps of an efficientnet-lite0."""

    preprocessing = Preprocessing(RESOLUTION, (127 / 255,) * 3, (128 / 255,) * 3)

    def __init__(self) -> None:
        super().__init__()
        self.network = efficientnet_lite0()

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, 96, 96) -> (b, 1280, 3, 3)."""
        maps: Tensor = self.network.extract_features(images)
        return maps


def lite0() -> nn.Module:
    """For `--backbone extraction_speed:lite0 --trust extraction_speed:lite0`."""
    return Features()


def main() -> None:
    """Measure both in turns, publish the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    threads = set_threads(args.threads)
    device = choose_device()
    pixels = load_cifar10n().images[:N_IMAGES]
    backbone = load_backbone("extraction_speed:lite0", trusted=["extraction_speed:lite0"])
    extractor = Extractor(backbone, pixels, device)
    ready = extractor.prepared(torch.from_numpy(pixels[: extractor.batch_size]))
    n_batches = N_IMAGES // extractor.batch_size

    bare, ours = [], []
    for turn in range(TURNS + 1):
        began = time.perf_counter()
        with torch.inference_mode():
            for _ in range(n_batches):
                backbone.network(ready)
            if device.type == "cuda":
                torch.cuda.synchronize()
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            extract_features(backbone, pixels, "benchmark", threads=threads, cache_dir=Path(folder))
        if turn:  # the first warms up
            bare.append(n_batches * extractor.batch_size / (middle - began))
            ours.append(N_IMAGES / (time.perf_counter() - middle))
    ratio = float(np.median(np.divide(ours, bare)))
    rows = [["the bare network, a ready batch", round(np.median(bare)), ""]]
    rows += [["extract_features, onto the disk", round(np.median(ours)), f"{ratio:.2f}"]]
    text = f"{device.type}, {threads} threads; median of {TURNS} turns.\n\n"
    publish("extraction-speed", text + markdown(["", "images a second", "ratio"], rows))


if __name__ == "__main__":
    main()
