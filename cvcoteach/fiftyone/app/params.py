"""Parameters of operators, as FiftyOne and Python callers send them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvcoteach._validation import InputError

WHOLE = frozenset(["rounds", "folds", "epochs", "image_size", "seed"])
"""Parameters that take whole numbers."""


def given(params: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that are set, under other names. names: parameter -> name.

    FiftyOne sends numbers as floats: whole ones become ints. Raises InputError for 1.5 where a whole number belongs.
    """
    there = {param: params[param] for param in names if params.get(param) not in (None, "")}
    return {names[param]: whole(param, value) if param in WHOLE else value for param, value in there.items()}


def whole(name: str, value: Any) -> int:
    """Return a whole number as int, 2.0 included. Raises InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise InputError(f"{name} is {value!r}; it takes a whole number.")
    return int(value)
