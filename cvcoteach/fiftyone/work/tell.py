"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Tell = Callable[[float, str], None]
"""Share done, in [0, 1], and what is going on."""
