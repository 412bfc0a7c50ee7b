"""The sum of all faults that the tests made, for `make faults` and whoever reads its end."""

from __future__ import annotations

import pytest

from tests.faults.harness import Tally


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many runs were killed, or had a full disk, and how many ended otherwise than an unbroken one."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    tallies = [value for report in reports for _, value in report.user_properties if isinstance(value, Tally)]
    if tallies:
        terminalreporter.write_line(f"faults: {sum(tallies, Tally())}")
