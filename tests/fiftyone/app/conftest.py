"""What several stories in a browser begin with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fiftyone as fo
import pytest

from cvcoteach.fiftyone import install
from tests.fiftyone.conftest import NoisyDataset
from tests.fiftyone.store.test_runs import imported


@pytest.fixture
def found(tmp_path: Path) -> Iterator[NoisyDataset]:
    """Sixty images, 24 with a wrong label, a run, and a place where an App finds the plugin."""
    install.install(Path(fo.config.plugins_dir))
    made = NoisyDataset.make(tmp_path, 60, 24)
    made.dataset.name, made.dataset.persistent = f"found-{os.getpid()}", True
    imported(made)
    yield made
    made.dataset.delete()
