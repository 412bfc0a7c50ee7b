"""What was chosen in the grid's panel, valid for the open sample and its keys too: the run, and how much is blind."""

from __future__ import annotations

from typing import Any

from cvcoteach.fiftyone.app.forms import dataset_of
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work.blind import SHARES

_STORE = "cvcoteach_label_issues"
_KEY, _BLIND = "brain_key", "blind_share"


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


def blind_share(ctx: Any) -> float:
    """Return the share of the review queue that is shown without our suggestion, in [0, 1)."""
    share = float(ctx.store(_STORE).get(_BLIND) or 0)
    return share if share in SHARES else 0.0


def choose_blind_share(ctx: Any, share: float) -> None:
    """Show this share without our suggestion from now on."""
    ctx.store(_STORE).set(_BLIND, share)
