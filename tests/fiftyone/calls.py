"""Operators called as users call them: from Python, through their forms, and as the App does."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.operators.executor import ExecutionContext, Executor

from cvcoteach.fiftyone import install
from cvcoteach.fiftyone.app.operators import PLUGIN
from cvcoteach.fiftyone.store.fields import Fields


def execute(name: str, dataset: Any, **options: Any) -> Any:
    """By FiftyOne's own door."""
    plugin()
    return foo.execute_operator(f"{PLUGIN}/{name}", dataset=dataset, **options).result


def properties(name: str, dataset: Any, **request: Any) -> dict[str, Any]:
    """An operator's form."""
    ctx = context(dataset, **request)
    return dict(operator(name).resolve_input(ctx).type.properties)


def form(name: str, dataset: Any, **request: Any) -> str:
    """The sentences with which an operator's form refuses its input; while there is one, no button can be pressed."""
    return " ".join(prop.error_message for prop in properties(name, dataset, **request).values() if prop.invalid)


def notes(name: str, dataset: Any, **request: Any) -> list[str]:
    """What a form tells and does not refuse."""
    found = properties(name, dataset, **request).values()
    return [prop.view.label for prop in found if type(prop.view) is types.Notice]


def in_the_app(name: str, dataset: Any, **request: Any) -> list[tuple[str, dict[str, Any]]]:
    """What a generator operator tells the browser, from first to last: (operation, its parameters)."""
    ctx = context(dataset, query_performance=True, **request)
    return [(message.body.operator_uri, message.body.params) for message in operator(name).execute(ctx)]


def toasts(told: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """Variant and text of the toasts among them."""
    return [(params["variant"], params["message"]) for what, params in told if what == "notify"]


def operator(name: str) -> Any:
    """As registered."""
    plugin()
    return foo.get_operator(f"{PLUGIN}/{name}")


def context(dataset: Any, **request: Any) -> ExecutionContext:
    """Of a request for a dataset, by name."""
    view = request.pop("view", None)
    named = {"dataset_name": dataset if isinstance(dataset, str) else dataset.name}
    stages = view._serialize() if view is not None else None
    return ExecutionContext({**named, "view": stages, "params": {}, **request}, executor=Executor())


@cache
def plugin() -> None:
    """Where FiftyOne looks for it."""
    install.install(Path(fo.config.plugins_dir))


def status(noisy: Any) -> dict[str, str]:
    """Each sample's review."""
    return dict(zip(*noisy.dataset.values(["id", Fields("label_issues").review]), strict=True))


def in_a_fresh_process(noisy: Any, *statements: str) -> subprocess.Popen[str]:
    """A process of its own, with `dataset` and `corrections` at hand."""
    noisy.dataset.persistent = True
    lines = (
        "import sys",
        "import fiftyone as fo",
        "from cvcoteach._validation import InputError",
        "from cvcoteach.fiftyone.work import corrections",
        f"dataset = fo.load_dataset({noisy.dataset.name!r})",
        *statements,
    )
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
