"""What decides a run: its settings, the machine, and who is told of its progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from cvcoteach.crossval.final_scoring import Select
from cvcoteach.crossval.trainer import FoldProgress

if TYPE_CHECKING:
    from cvcoteach.training.loop import EpochReport


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a run, beside the images and labels themselves."""

    preset: str = "fast"
    """"fast", "paper", or "auto": see `training.presets.choose`."""
    model: str | None = None
    weights: str | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    image_size: int | None = None
    flip: bool | None = None
    patience: int | None = None
    features: Path | None = None
    backbone: str | None = None
    """Whose frozen features heads are trained on; see `training.backbones.load_backbone`."""
    finetune: bool = False
    """Train the backbone itself in the folds."""
    head: Literal["linear", "mlp"] = "linear"
    select: Select = "posterior"
    """What the models of the final scoring learn from; see `FinalScoring`."""
    repeats: int = 1
    """Of each pass of the final scoring."""
    passes: int | None = None
    """Of the final scoring; None: 2 for heads, 1 for networks."""
    n_rounds: int = 4
    n_folds: int = 2
    remove_ratio: float | Literal["auto"] = "auto"
    seed: int = 0


@dataclass(frozen=True)
class Machine:
    """Where a run computes; none of it is part of the run's identity."""

    device: str | None = None
    threads: int | None = None
    precision: str | None = None
    cache_dir: Path | None = None
    max_pixels: int | None = None
    """Pixels of the largest image that is read; None: 268 million."""


class Watcher(Protocol):
    """Told what happens while it happens."""

    def note(self, sentence: str) -> None:
        """Something the user should know."""

    def reading(self, done: int, total: int) -> None:
        """Images decoded so far."""

    def fold(self, progress: FoldProgress) -> None:
        """A training begins or has ended."""

    def epoch(self, progress: EpochReport) -> None:
        """An epoch has ended."""


@runtime_checkable
class ExtractionWatcher(Watcher, Protocol):
    """A watcher that also shows how features come about."""

    def extracting(self, done: int, total: int, images_per_second: float) -> None:
        """Features computed so far."""


class Silent:
    """A watcher that says nothing."""

    def note(self, sentence: str) -> None:
        """Nothing."""

    def reading(self, done: int, total: int) -> None:
        """Nothing."""

    def fold(self, progress: FoldProgress) -> None:
        """Nothing."""

    def epoch(self, progress: EpochReport) -> None:
        """Nothing."""
