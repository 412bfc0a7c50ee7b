"""How far long work has come, in one form for the command line, the App and Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Progress:
    """How far one stage of a run has come."""

    stage: str
    """What is being done: "reading images", "computing features", "training"."""
    done: float
    """In units of the stage (images; for "training" images times epochs), in [0, total]."""
    total: float
    """Of how many, above 0; may be corrected while the stage goes on."""
    message: str = ""
    """Details for people: "round 2 of 3, fold 1 of 5, epoch 3 of 10, 1,144 images/s"."""


OnProgress = Callable[[Progress], None]


class Watcher(Protocol):
    """Follows a run while it happens."""

    def note(self, sentence: str) -> None:
        """Take in something that the user should know."""

    def progress(self, update: Progress) -> None:
        """Take in how far a stage has come."""
