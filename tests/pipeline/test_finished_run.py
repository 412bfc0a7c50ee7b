"""A finished run, as retraining needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.finished_run import FinishedRun
from tests.pipeline.test_find_issues import QUICK, fake, source_of

__all__ = ["fake"]


@pytest.fixture
def folder(tmp_path: Path, fake: Any) -> Path:
    """The folder of a finished run."""
    source, trainer = source_of()
    fake(trainer)
    return find_issues(source, tmp_path / "run", QUICK).folder


def test_results_and_how_they_were_made_are_read(folder: Path) -> None:
    run, record = FinishedRun.read(folder), json.loads((folder / "run.json").read_text())
    assert run.identity == record["identity"]
    assert run.noise_rate == record["rounds"][0]["noise_rate"]
    assert run.results.folder == folder
    assert run.wrong is not None
    np.testing.assert_array_equal(run.wrong, 1 - run.results.issues().label_quality)


def test_what_has_not_finished_or_is_a_classifier_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run of cvcoteach"):
        FinishedRun.read(tmp_path / "empty")
    (folder / "model.json").write_text("{}")
    with pytest.raises(InputError, match="is a classifier that retrain wrote"):
        FinishedRun.read(folder)
    (folder / "model.json").unlink()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"state": "running"}))
    with pytest.raises(InputError, match="is not finished; run its find-issues again"):
        FinishedRun.read(folder)
