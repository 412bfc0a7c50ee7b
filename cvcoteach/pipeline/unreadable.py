"""The images that a run left out because they could not be read: unreadable.csv."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cvcoteach._csv import unescaped, write_csv
from cvcoteach._files import check_regular
from cvcoteach._validation import InputError

UNREADABLE = "unreadable.csv"


def write_unreadable(folder: Path, unreadable: Mapping[str, str]) -> None:
    """Write unreadable.csv, unless every image could be read. unreadable: path -> why."""
    if unreadable:
        write_csv(folder / UNREADABLE, pd.DataFrame({"path": list(unreadable), "reason": list(unreadable.values())}))


def read_unreadable(folder: Path) -> dict[str, str]:
    """Return what `write_unreadable` wrote, path -> why."""
    if not (folder / UNREADABLE).exists():
        return {}
    check_regular(folder / UNREADABLE)
    try:
        with open(folder / UNREADABLE, newline="", encoding="utf-8") as file:
            return {unescaped(line["path"]): unescaped(line["reason"]) for line in csv.DictReader(file)}
    except (ValueError, KeyError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{folder / UNREADABLE} is damaged ({type(error).__name__}: {error}); it takes the columns path and reason."
        ) from None
