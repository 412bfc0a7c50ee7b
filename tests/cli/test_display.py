"""What a terminal and a log show of a run."""

from __future__ import annotations

import io
import os
import pty
import termios

import pytest

from cvcoteach._progress import Progress
from cvcoteach.cli import display as module
from cvcoteach.cli.display import Display, Quiet, plain


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def a_run(display: Display) -> None:
    """Two rounds of two folds."""
    for number in (1, 2):
        for fold in (1, 2):
            name = f"round {number} of 2"
            done = 2 * (number - 1) + fold
            display.progress(Progress("training", done - 1, 4, f"{name}, fold {fold} of 2"))
            display.progress(Progress("training", done, 4, f"{name}, fold {fold} of 2", name if fold == 2 else ""))


def test_a_log_gets_one_line_per_finished_round() -> None:
    stream = io.StringIO()
    a_run(Display(stream))
    assert stream.getvalue().splitlines() == ["training: round 1 of 2 done", "training: round 2 of 2 done"]


def test_a_log_is_not_silent_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    display = Display(stream)
    display.progress(Progress("training", 0, 100, "round 1 of 2, epoch 1 of 50"))
    clock[0] = 400.0
    display.progress(Progress("training", 10, 100, "round 1 of 2, epoch 6 of 50"))
    display.progress(Progress("training", 12, 100, "round 1 of 2, epoch 7 of 50"))
    assert stream.getvalue() == "training: round 1 of 2, epoch 6 of 50, about 1 h 0 min left\n"


def test_a_terminal_gets_one_moving_line_and_notes_on_their_own() -> None:
    stream = Terminal()
    display = Display(stream)
    display.progress(Progress("training", 1, 4, "round 1 of 2"))
    display.note("a sentence")
    a_run(display)
    display.close()
    assert " 25% |" in stream.getvalue()
    lines = stream.getvalue().split("\n")
    assert len(lines) == 2
    assert lines[0].endswith("note: a sentence")


def test_quiet_shows_notes_only() -> None:
    stream = io.StringIO()
    display = Quiet(stream)
    a_run(display)
    without = stream.getvalue()
    display.note("a sentence")
    assert "training" not in without
    assert stream.getvalue().endswith("note: a sentence\n")


def test_names_cannot_steer_a_terminal() -> None:
    assert plain("a\x1b[31mb\x9b2J\u202e\udce9\tc\nd é 猫") == r"a\u001b[31mb\u009b2J\u202e\udce9" + "\tc\nd é 猫"
    stream = io.StringIO()
    Display(stream).note("class '\x1b]0;title\x07' has 1 image")
    assert stream.getvalue() == "note: class '\\u001b]0;title\\u0007' has 1 image\n"


@pytest.mark.parametrize(("rows", "shown"), [(0, "training: round 1 of 1 done\n"), (40, "100% |")])
def test_a_terminal_without_a_size_gets_lines(rows: int, shown: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (rows, 100))
    with open(theirs, "w") as stream:
        display = Display(stream)
        display.progress(Progress("training", 1, 1, "round 1 of 1", "round 1 of 1"))
        stream.flush()
        written = os.read(ours, 1000).decode().replace("\r\n", "\n")
        display.close()
    os.close(ours)
    assert shown in written
