"""A finished run of find-issues, as retraining needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray
from cvcoteach.crossval.final_scoring import verdict
from cvcoteach.pipeline.run_folder import RunFolder

_RESULTS = "probabilities.npz"


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a run found about n labels."""

    folder: Path
    """The run folder."""
    record: dict[str, Any]
    """The content of run.json."""
    paths: tuple[str, ...]
    """n images, as the source names them."""
    class_names: tuple[str, ...]
    """(K,) names."""
    labels: IntArray
    """(n,) given labels, 0..K-1."""
    selected: BoolArray
    """(n,) S of INCV."""
    candidate: BoolArray
    """(n,) C of INCV."""
    is_label_issue: BoolArray
    """(n,) flags."""
    wrong: FloatArray | None
    """(n,) probability that each label is wrong, in [0, 1]; None if the posterior is not believable."""
    suggested: IntArray
    """(n,) most probable class."""
    suggested_prob: FloatArray
    """(n,) its probability, in [0, 1]."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run folder.

        Raises:
            InputError: It holds no run of find-issues, or one that has not finished.
        """
        run = RunFolder.read(folder)
        if (folder / "model.json").exists():
            raise InputError(f"{folder} is a classifier that retrain wrote; it takes the run folder of find-issues.")
        if not run.done or not (folder / _RESULTS).exists():
            raise InputError(f"{folder} is not finished; run its find-issues again, which resumes where it stopped.")
        return cls(folder, run.record, **_results(folder))

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decided the result of the run."""
        return dict(self.record["identity"])

    @property
    def noise_rate(self) -> float:
        """ε̂, as the first round of INCV estimated it, in [0, 1)."""
        return float(self.record["rounds"][0]["noise_rate"])


def _results(folder: Path) -> dict[str, Any]:
    """Read the fields of `FinishedRun` that are not in run.json."""
    with np.load(folder / _RESULTS, allow_pickle=False) as arrays:
        labels = arrays["labels"].astype(np.int64)
        posterior, flags = verdict(labels, arrays["pred_probs"])
        return {
            "paths": tuple(arrays["paths"].tolist()),
            "class_names": tuple(arrays["class_names"].tolist()),
            "labels": labels,
            "selected": arrays["selected"],
            "candidate": arrays["candidate"],
            "is_label_issue": flags,
            "wrong": posterior.wrong if posterior.believable else None,
            "suggested": posterior.suggested,
            "suggested_prob": posterior.suggested_prob,
        }
