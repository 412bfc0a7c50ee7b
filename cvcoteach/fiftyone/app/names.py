"""The names by which the App knows the plugin and its panels, and where these are open."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

PLUGIN = "@cvcoteach/label_issues"
PANEL = "label_issues"
"""The panel beside the grid."""
SAMPLE_PANEL = "label_issues_sample"
"""The panel beside an open sample."""


def panels_in(space: Any) -> list[Any]:
    """Return the panels beside the grid in a layout of the App; none where the layout is not known."""
    if isinstance(space, fo.Panel):
        return [space] if space.type == PANEL else []
    return [panel for child in (space.children if space is not None else ()) for panel in panels_in(child)]
