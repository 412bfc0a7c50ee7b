"""Delegated runs of a dataset that have not ended, as the panel tells of them."""

from __future__ import annotations

from typing import Any

from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionRunState

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.forms import dataset_of
from cvcoteach.fiftyone.app.layout import escaped

_NAMES = {
    "@cvcoteach/label_issues/find_label_issues": "Find label issues",
    "@cvcoteach/label_issues/retrain_coteaching": "Retrain by Co-teaching",
}
_WAITING = (ExecutionRunState.SCHEDULED, ExecutionRunState.QUEUED)
_OPEN = (*_WAITING, ExecutionRunState.RUNNING)
_HINT = "FIFTYONE\\_ALLOW\\_LEGACY\\_ORCHESTRATORS=true fiftyone delegated launch"


def under_way(ctx: Any) -> list[str]:
    """Return a line of Markdown for each of them: how far it is, or what it waits for."""
    try:
        dataset = dataset_of(ctx)
    except InputError:
        return []
    service = DelegatedOperationService()
    waiting = {"dataset_id": dataset._doc.id, "operator": {"$in": list(_NAMES)}, "run_state": {"$in": list(_OPEN)}}
    if service._repo._collection.find_one(waiting, {"_id": 1}) is None:  # one look at every rendering, not six
        return []
    return [
        f"**{name}**, delegated: {_how_far(operation, state)}"
        for uri, name in _NAMES.items()
        for state in _OPEN
        for operation in service.list_operations(operator=uri, dataset_id=dataset._doc.id, run_state=state)
    ]


def _how_far(operation: Any, state: str) -> str:
    if state in _WAITING:
        return f"waiting for the service that carries it out; start one by {_HINT}"
    status = operation.status
    if status is None or status.progress is None:
        return "under way"
    return f"**{status.progress:.0%}**, {escaped(status.label or '')}"
