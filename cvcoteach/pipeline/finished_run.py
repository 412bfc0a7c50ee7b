"""A finished run of find-issues: what it found, and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cvcoteach._validation import FloatArray, InputError
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """The results of a run, and its record."""

    results: RunResults
    """What it found about n labels."""
    record: Mapping[str, Any]
    """The content of run.json."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run folder.

        Raises:
            InputError: It holds no run of find-issues, or one that has not finished.
        """
        run = RunFolder.read(folder)
        if (folder / "model.json").exists():
            raise InputError(f"{folder} is a classifier that retrain wrote; it takes the run folder of find-issues.")
        if not run.done:
            raise InputError(f"{folder} is not finished; run its find-issues again, which resumes where it stopped.")
        results = RunResults.load(folder)
        first = results.rounds[0] if results.rounds else None
        rate = first.get("noise_rate") if isinstance(first, Mapping) else None
        if not isinstance(rate, int | float):
            raise InputError(f"{folder / 'run.json'} is damaged: its first round has no noise_rate.")
        return cls(results, run.record)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decided the result of the run."""
        return dict(self.record["identity"])

    @property
    def noise_rate(self) -> float:
        """ε̂, as round 1 estimated it, in [0, 1)."""
        return float(self.record["rounds"][0]["noise_rate"])

    @property
    def wrong(self) -> FloatArray | None:
        """(n,) probability that each label is wrong, in [0, 1]; None if the run could not tell."""
        return self.results.found.wrong if self.results.found.has_signal else None
