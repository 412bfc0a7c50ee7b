"""Which graphs a device has."""

from __future__ import annotations

import torch

from cvcoteach.training.engine.graphs import CudaGraphs, Graphs
from cvcoteach.training.engine.rehearsal import RehearsedGraphs


def graphs_for(device: torch.device) -> Graphs:
    """Return graphs of CUDA, or a rehearsal of them on another device."""
    return CudaGraphs(device) if device.type == "cuda" else RehearsedGraphs(device)
