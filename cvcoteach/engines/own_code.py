"""Trusted modules of the working folder, which workers of Ray import as the command does: after what is installed.

Ray would search the folder before anything else, so that a file in it would be run for any module called like it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress

_TOLD = f"{os.devnull}/cvcoteach:"
"""Begins what workers are told among the folders that they search; no folder can be there."""


def told(names: Iterable[str], folder: str) -> list[str]:
    """Return what tells workers to import each "package.module:function" from a folder."""
    return [f"{_TOLD}{name}:{folder}" for name in names]


def import_what_is_told() -> None:
    """Import it, in a worker; elsewhere nothing is told. What cannot be imported is an error where it is used."""
    for entry in [entry for entry in sys.path if entry.startswith(_TOLD)]:
        sys.path.remove(entry)
        module, function, folder = entry.removeprefix(_TOLD).split(":", 2)
        from cvcoteach.training import pretrained  # not above: it imports torch

        if folder not in pretrained.own_code:
            pretrained.own_code.insert(0, folder)
        with suppress(Exception):
            pretrained.imported(f"{module}:{function}")
