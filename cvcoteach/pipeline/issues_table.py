"""Whether a table of issues still says what was written, whatever a spreadsheet made of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from operator import ne
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._csv import unescaped_values

NEEDED = (
    "path", "given_label", "predicted_label", "label_quality", "is_label_issue", "suggested_label", "suggested_prob",
    "set", "round",
)  # fmt: skip
"""Columns of issues.csv, without those that earlier builds did not write."""

_YES_OR_NO = ("is_label_issue", "contradiction")
_EXACT = 1e15
"""Below it, numbers are told apart by the digits that are compared."""


def tells_the_same(there: bytes, written: bytes) -> bool:
    """Return whether a CSV has a row for each image that says what the written one does, in any order.

    Columns may have been added, and those that are not in `NEEDED` left out; a spreadsheet writes TRUE for True, and
    0.5 for 0.500000. Any other value, name or number that differs is damage, or somebody's change.
    """
    try:
        found, ours = _texts(there), _texts(written)
    except ValueError:  # not UTF-8, no table, rows of several lengths
        return False
    columns = [name for name in ours.columns if name in found.columns]
    if not {*NEEDED} <= {*columns} or _misspelled([*found.columns], [*ours.columns]):
        return False
    return np.array_equal(_rows(found[columns]), _rows(ours[columns]))


def _texts(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8")


def _misspelled(found: Sequence[str], ours: Sequence[str]) -> bool:
    """Return whether a column that is missing has one in its place whose name differs in one letter."""
    pairs = [(a, b) for a, b in zip(found, ours, strict=False) if a not in ours and b not in found]
    return any(len(a) == len(b) and sum(map(ne, a, b)) == 1 for a, b in pairs)


def _rows(table: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return a number for the values of each row, (n,) in ascending order."""
    plain = table.apply(lambda values: _plain(values, str(values.name)))
    return np.sort(pd.util.hash_pandas_object(plain, index=False).to_numpy())


def _plain(values: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Return texts without what differs from program to program: of numbers the digits that count."""
    if name in _YES_OR_NO:
        return values.where(~values.isin(["TRUE", "true"]), "True").where(~values.isin(["FALSE", "false"]), "False")
    if name == "path":
        return unescaped_values(values)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    same = (np.abs(numbers) < _EXACT) & (values == values.str.strip()).to_numpy(np.bool_)
    texts = np.char.mod("%.12g", np.where(same, numbers, 0.0)).astype(object)
    return pd.Series(np.where(same, texts, unescaped_values(values).to_numpy(object)), values.index)
