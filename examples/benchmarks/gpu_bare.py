"""What a network does with a batch that lies ready, with nothing around it: see `gpu.py`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from cvcoteach.training.backbones import Backbone
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.extraction import Extractor, extract_features
from cvcoteach.training.models import ModelFactory

K = 10
_TURNS = 3


def bare_step(factory: ModelFactory, plan: ComputePlan, batch: int, *, captured: bool, steps: int) -> float:
    """Images a second of forward and backward passes on one batch that lies ready."""
    network = plan.placed(factory.build(K, 3, seed=0)).train()
    images = torch.randn(batch, 3, 32, 32, device=plan.device).contiguous(memory_format=plan.memory_format)
    targets = torch.arange(batch, device=plan.device) % K

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with plan.autocast():
            out = network(images)
        functional.cross_entropy(out.float(), targets).backward()

    def wait() -> None:
        if plan.device == "cuda":
            torch.cuda.synchronize()

    replay = step
    if captured and plan.device == "cuda":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        network.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            step()
        replay = graph.replay
    for _ in range(3):
        replay()
    wait()
    began = time.perf_counter()
    for _ in range(steps):
        replay()
    wait()
    return steps * batch / (time.perf_counter() - began)


def extraction_speeds(name: str, pixels: npt.NDArray[np.uint8], device: str, work: Path) -> tuple[float, float]:
    """Images a second of the bare network of torchvision's, and of features (n, d) written to a folder in `work`."""
    torch.manual_seed(0)
    network = nn.Sequential(models.get_model(name, weights=None).features).eval()
    mean = std = (0.5, 0.5, 0.5)
    backbone = Backbone(name, network, "", size=128, mean=mean, std=std, interpolation="bilinear", trainable=True)
    extractor = Extractor(backbone, pixels, torch.device(device))
    b = min(extractor.batch_size, len(pixels))
    ready = extractor.prepared(torch.from_numpy(pixels[:b]).to(device))
    bare, ours = [], []
    for turn in range(1 + _TURNS):
        began = time.perf_counter()
        with torch.inference_mode(), extractor.plan.autocast():
            for _ in range(len(pixels) // b):
                network(ready)
        if device == "cuda":
            torch.cuda.synchronize()
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=work) as folder:
            extract_features(backbone, pixels, "benchmark", device=device, cache_dir=Path(folder))
        if turn:  # the first warms up
            bare.append(len(pixels) // b * b / (middle - began))
            ours.append(len(pixels) / (time.perf_counter() - middle))
    return float(np.median(bare)), float(np.median(ours))
