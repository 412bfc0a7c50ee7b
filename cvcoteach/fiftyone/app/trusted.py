"""Code that operators may run: what whoever runs the server allowed, not what a form or a call asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cvcoteach._validation import InputError
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.trust import is_trusted, runs_code

TRUST_VARIABLE = "CVCOTEACH_FIFTYONE_TRUST"
"""Environment variable of the server and its delegated service: names of code that may run, separated by commas."""


def allowed() -> tuple[str, ...]:
    """Return the names in `TRUST_VARIABLE`."""
    return tuple([name for name in map(str.strip, os.environ.get(TRUST_VARIABLE, "").split(",")) if name])


def check_code(params: Mapping[str, Any]) -> None:
    """Refuse a backbone or model that would run code which is not allowed.

    Raises:
        InputError: `TRUST_VARIABLE` does not name it.
    """
    backbone, model = (str(params.get(name) or "") for name in ("backbone", "model"))
    spec = ModelSpec.parse(model) if model else None
    named = [(backbone, bool(backbone) and runs_code(backbone))]
    if spec is not None:
        named.append((spec.name, spec.is_foreign))
    for name, is_foreign in named:
        if is_foreign and not is_trusted(name, allowed()):
            raise InputError(
                f"{name!r} is not a model of torchvision or timm, and would run code on the server; whoever runs the "
                f"server can allow it in the environment: {TRUST_VARIABLE}={name}"
            )
