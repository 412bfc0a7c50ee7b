"""Which of several runs is being worked on: chosen in the grid's panel, valid for the open sample and its keys too."""

from __future__ import annotations

from typing import Any

from cvcoteach.fiftyone.app.forms import dataset_of
from cvcoteach.fiftyone.store import runs

_STORE = "cvcoteach_label_issues"
_KEY = "brain_key"


def chosen_run(ctx: Any) -> str | None:
    """Return the key of the run chosen last, else of the newest; None where there is none.

    Raises InputError where the dataset is gone.
    """
    keys = runs.keys(dataset_of(ctx))
    if len(keys) < 2:
        return keys[0] if keys else None
    key: str | None = ctx.store(_STORE).get(_KEY)
    return key if key in keys else keys[0]


def choose(ctx: Any, key: str) -> None:
    """Work on the run `key` from now on."""
    ctx.store(_STORE).set(_KEY, key)
