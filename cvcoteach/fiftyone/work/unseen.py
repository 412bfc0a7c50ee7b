"""Which samples of a view are to be judged without what the run says of them: the view itself carries it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fiftyone as fo


def marked(view: Any, ids: Sequence[str]) -> Any:
    """Return the same samples, with a stage that matches all of them and names those to be judged unseen."""
    return view.match({"$expr": {"$or": [True, {"$in": [{"$toString": "$_id"}, list(ids)]}]}})


def unseen_in(view: Any) -> frozenset[str]:
    """Return the samples that `marked` named; none for any other view, and for no view."""
    stages = [] if view is None else view._stages
    return next((frozenset(_named(stage)) for stage in stages if is_mark(stage)), frozenset())


def is_mark(stage: Any) -> bool:
    """Return whether a stage of a view is that of `marked`."""
    if not isinstance(stage, fo.Match) or not isinstance(stage.filter, dict):
        return False
    expression = stage.filter.get("$expr")
    either = expression.get("$or") if isinstance(expression, dict) else None
    return isinstance(either, list) and len(either) == 2 and either[0] is True


def _named(stage: Any) -> list[str]:
    ids: list[str] = stage.filter["$expr"]["$or"][1]["$in"][1]
    return ids
