"""What all tests share."""

from __future__ import annotations

import os

import pytest

# One thread a process, before torch is loaded: two busy OpenMP programs on two cores are ten times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test depends on a hub of weights.
os.environ.setdefault("CVCOTEACH_OFFLINE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    needy = [item for item in items if item.get_closest_marker("gpu")]
    if needy and not _has_gpu():
        for item in needy:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_gpu() -> bool:
    import torch  # takes seconds, so only where a test asks

    return torch.cuda.is_available()
