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
    finished: str = ""
    """The part of the stage that has just ended, worth a line in a log: "round 2 of 3"; else empty."""


OnProgress = Callable[[Progress], None]


class Watcher(Protocol):
    """Follows a run while it happens."""

    def note(self, sentence: str) -> None:
        """Take in something that the user should know."""

    def progress(self, update: Progress) -> None:
        """Take in how far a stage has come."""


class Silent:
    """A watcher that shows nothing."""

    def note(self, sentence: str) -> None:
        """Ignore it."""

    def progress(self, update: Progress) -> None:
        """Ignore it."""


def duration(seconds: float) -> str:
    """Return a time as people say it: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
