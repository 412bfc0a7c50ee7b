"""Live progress on standard error: one moving line on a terminal, a plain line per finished part elsewhere."""

from __future__ import annotations

import os
import re
import time
from typing import TextIO

import click

from cvcoteach._progress import Progress
from cvcoteach.pipeline.progress import Bar, TimeLeft

_HEARTBEAT = 300.0  # seconds after which a log gets a line although no part has ended

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that a terminal obeys instead of showing, save for tab and newline, and bytes that are not UTF-8."""


def plain(text: str) -> str:
    r"""Return text that a terminal shows as it is: an escape sequence in a name becomes `\u001b[31m` in letters."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str, *, err: bool = False) -> None:
    """Print text on standard output, or on standard error."""
    click.echo(plain(text), err=err)


class Display:
    """A watcher that shows notes and progress on `stream`."""

    def __init__(self, stream: TextIO) -> None:
        """Show a moving line if `stream` is a terminal, else one line per finished part."""
        self._stream = stream
        self._bar = Bar(stream) if stream.isatty() and _has_room(stream) else None
        self._left = TimeLeft()
        self._last_line = time.monotonic()

    def note(self, sentence: str) -> None:
        """Show a sentence on a line of its own."""
        self.close()
        self._say(f"note: {sentence}")

    def progress(self, update: Progress) -> None:
        """Show how far a stage has come."""
        if self._bar is not None:
            self._bar.progress(update)
            return
        left = self._left.after(update)
        if update.finished:
            self._say(f"{update.stage}: {update.finished} done{left}")
        elif time.monotonic() - self._last_line > _HEARTBEAT:
            self._say(f"{update.stage}: {update.message}{left}")

    def close(self) -> None:
        """Take the moving line away."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        print(plain(line), file=self._stream, flush=True)


def _has_room(stream: TextIO) -> bool:
    """Return whether a terminal has a size; without one, as in some containers, a moving line is not drawn at all."""
    try:
        return min(os.get_terminal_size(stream.fileno())) > 0
    except (OSError, ValueError):  # not a file: it draws what it is given
        return True


class Quiet(Display):
    """Shows notes only: a note may say that the data are not what they seem."""

    def progress(self, update: Progress) -> None:
        """Ignore it."""
