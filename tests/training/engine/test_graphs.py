"""Graphs of CUDA, as far as they can be looked at without one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cvcoteach.training.engine import graphs
from cvcoteach.training.engine.graphs import CudaGraphs


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Return the devices of the streams that are made, in turn."""
    devices: list[torch.device] = []

    def stream(device: torch.device) -> SimpleNamespace:
        devices.append(device)
        return SimpleNamespace()

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(graphs, "_free_streams", {})
    return devices


def test_as_many_streams_are_made_as_trainings_run_at_the_same_time(made: list[torch.device]) -> None:
    cuda = torch.device("cuda")
    for _ in range(20):
        together = [CudaGraphs(cuda) for _ in range(3)]
        assert len({id(each._stream) for each in together}) == 3, "each has its own"
        del together
    assert len(made) == 3


def test_a_stream_of_another_card_is_not_taken(made: list[torch.device]) -> None:
    CudaGraphs(torch.device("cuda", 1))
    CudaGraphs(torch.device("cuda"))
    CudaGraphs(torch.device("cuda", 0))
    CudaGraphs(torch.device("cuda", 1))
    assert made == [torch.device("cuda", 1), torch.device("cuda")]
