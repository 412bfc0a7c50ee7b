"""Forward and backward passes on one batch that lies ready, with nothing around them: see `gpu.py`."""

from __future__ import annotations

import time

import torch
from torch.nn import functional

from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.models import ModelFactory

K = 10


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
