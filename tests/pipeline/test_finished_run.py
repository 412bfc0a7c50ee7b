"""A finished run, as retraining needs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.pipeline.finished_run import FinishedRun

LABELS = np.arange(30) % 3


def write_run(folder: Path, state: str = "done") -> Path:
    """The folder of a run whose models doubt label 4 alone."""
    pred_probs = np.full((30, 3), 0.05, np.float32)
    pred_probs[np.arange(30), LABELS] = 0.9
    pred_probs[4] = [0.05, 0.05, 0.9]
    record = {"format": 1, "state": state, "identity": {"seed": 0}, "rounds": [{"noise_rate": 0.2}]}
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record))
    np.savez(
        folder / "probabilities.npz",
        labels=LABELS,
        pred_probs=pred_probs,
        paths=np.array([f"{i}.png" for i in range(30)]),
        class_names=np.array(["ant", "bee", "cat"]),
        selected=np.arange(30) != 4,
        candidate=np.arange(30) == 4,
    )
    return folder


def test_labels_sets_and_estimates_are_read(tmp_path: Path) -> None:
    run = FinishedRun.read(write_run(tmp_path / "run"))
    assert run.paths[4] == "4.png"
    assert run.class_names == ("ant", "bee", "cat")
    assert run.labels.tolist() == LABELS.tolist()
    assert (run.noise_rate, run.identity) == (0.2, {"seed": 0})
    assert np.flatnonzero(~run.selected).tolist() == np.flatnonzero(run.candidate).tolist() == [4]
    assert run.suggested[4] == 2
    assert run.is_label_issue[4]


def test_what_has_not_finished_or_is_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run of cvcoteach"):
        FinishedRun.read(tmp_path)
    with pytest.raises(InputError, match="is not finished; run its find-issues again"):
        FinishedRun.read(write_run(tmp_path / "running", "running"))
    model = write_run(tmp_path / "model")
    (model / "model.json").write_text("{}")
    with pytest.raises(InputError, match="is a classifier that retrain wrote"):
        FinishedRun.read(model)
