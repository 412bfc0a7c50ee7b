"""cvcoteach in the FiftyOne App. Everything is in the package; here it is only registered."""

from typing import Any

from cvcoteach.fiftyone.app.operators import OPERATORS
from cvcoteach.fiftyone.app.panel import LabelIssuesPanel
from cvcoteach.fiftyone.app.sample_panel import SamplePanel


def register(plugin: Any) -> None:
    """Called by FiftyOne at every request."""
    for operator in (*OPERATORS, LabelIssuesPanel, SamplePanel):
        plugin.register(operator)
