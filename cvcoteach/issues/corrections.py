"""Apply people's decisions about single images: a reviewed label is clean, an excluded image is gone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._csv import unescaped
from cvcoteach._files import check_regular
from cvcoteach._validation import BoolArray, InputError, IntArray, near
from cvcoteach.data.sources import separator_of

ACTIONS = ("accepted", "kept", "set", "excluded")
NO_ACTION = ("", "unreviewed")

# ours, and those of the FiftyOne plugin's exports; the first that is there counts
_PATHS = ("path", "filepath")
_ACTIONS = ("new_review", "review", "action")
_LABELS = ("new", "label")


@dataclass(frozen=True, eq=False)
class Corrected:
    """Labels and sets as they are after the corrections."""

    labels: IntArray
    """(n,)"""
    selected: BoolArray
    """(n,) S, and what was reviewed."""
    candidate: BoolArray
    """(n,) C, less what was reviewed."""
    excluded: BoolArray
    """(n,) in neither, and to be left out of everything."""
    reviewed: BoolArray
    """(n,) whether a person accepted, kept or set the label."""

    @property
    def n_reviewed(self) -> int:
        """The number of reviewed labels."""
        return int(self.reviewed.sum())


@dataclass(frozen=True, eq=False)
class Judged:
    """A run's labels and suggestions for n images, which people may correct."""

    paths: Sequence[str]
    """n, relative to `root`."""
    root: Path
    """Folder of the images."""
    labels: IntArray
    """(n,) given labels, 0..K-1."""
    suggested: IntArray
    """(n,) suggested classes."""
    class_names: Sequence[str]
    """(K,) names."""


def correct(file: Path, judged: Judged, selected: BoolArray, candidate: BoolArray) -> Corrected:
    """Apply the corrections in a CSV with the columns path, action and label; a later row overrules an earlier one.

    The plugin's exports are read too. What is decided about a path holds wherever the path occurs. An image that was
    moved where its label says is known by its file name, where only one has it; one that is excluded may be gone.

    Args:
        file: The CSV. Its actions are "accepted" (the suggestion, or `label` if there is one), "kept" (the given
            label), "set" (`label`) and "excluded"; "unreviewed" or nothing takes earlier rows back.
        judged: What the run said.
        selected: (n,) S before the corrections.
        candidate: (n,) C before the corrections.

    Raises:
        InputError: The file is no such table, names an image that the run does not have, another action, or a label
            that is not a class of the run, or would leave an image under two labels.
    """
    labels, suggested, class_names = judged.labels, judged.suggested, judged.class_names
    table = _read(file)
    places: dict[str, list[int]] = {}
    for row, path in enumerate(judged.paths):
        places.setdefault(path, []).append(row)
    places |= {os.path.join(judged.root, path): rows for path, rows in places.items()}
    moved = _moved(table.iloc[:, 0], places, judged.paths)
    number = {name: k for k, name in enumerate(class_names)}
    decided: dict[int, tuple[str, int]] = {}
    gone: list[tuple[int, str]] = []
    for line, (path, action, written) in enumerate(table.itertuples(index=False), start=2):
        # our own tables have names escaped; somebody may have written them as they are
        rows = next((places[name] for name in _spellings(path) if name in places), None)
        label = unescaped(written) if unescaped(written) in number else written
        if path in moved and action in ("set", "accepted") and labels[moved[path]] == number.get(label):
            rows = [moved[path]]
        if rows is None and action == "excluded":
            gone.append((line, path))
            continue
        if rows is None:
            raise InputError(f"{file.name}, line {line}: {path} is not an image of the run.")
        if action in NO_ACTION:
            for row in rows:
                decided.pop(row, None)
            continue
        if action not in ACTIONS:
            raise InputError(f"{file.name}, line {line}: the action is {action!r}; {near(action, ACTIONS)}")
        if action == "set" and not label:
            raise InputError(f"{file.name}, line {line}: the label is missing; it takes the name of a class.")
        if action in ("set", "accepted") and label and label not in number:
            raise InputError(
                f"{file.name}, line {line}: {label!r} is not a class of the run; {near(label, class_names)}"
            )
        if action == "set" or (action == "accepted" and label):
            chosen = [number[label]] * len(rows)
        else:
            chosen = (suggested if action == "accepted" else labels)[rows].tolist()
        if action != "excluded" and len(set(chosen)) > 1:
            names = " and ".join(class_names[k] for k in sorted(set(chosen)))
            raise InputError(
                f"{file.name}, line {line}: {path} comes twice in the run and would be {names}; "
                "say which with the action set and a label."
            )
        decided |= {row: (action, k) for row, k in zip(rows, chosen, strict=True)}
    if gone and not decided:  # a file about other images
        raise InputError(f"{file.name}, line {gone[0][0]}: {gone[0][1]} is not an image of the run.")

    labels, selected, candidate = labels.copy(), selected.copy(), candidate.copy()
    excluded, reviewed = np.zeros(len(labels), np.bool_), np.zeros(len(labels), np.bool_)
    for row, (action, label) in decided.items():
        candidate[row] = False
        excluded[row] = action == "excluded"
        selected[row] = reviewed[row] = not excluded[row]
        labels[row] = label
    return Corrected(labels, selected, candidate, excluded, reviewed)


def lone_names(paths: Iterable[str], rows: Iterable[Any]) -> dict[str, Any]:
    """Return file name -> row, of the file names that come once."""
    named = [(os.path.basename(path), row) for path, row in zip(paths, rows, strict=True)]
    often = Counter(name for name, _ in named)
    return {name: row for name, row in named if often[name] == 1}


def _spellings(path: str) -> tuple[str, str, str]:
    return unescaped(path), path, os.path.normpath(path)


def _moved(written: Iterable[str], places: Mapping[str, list[int]], paths: Sequence[str]) -> dict[str, int]:
    """Return the rows of images that seem to be elsewhere now, by the path that was written."""
    written = dict.fromkeys(written)
    absent = [path for path in written if not any(name in places for name in _spellings(path))]
    named = {row for path in written for name in _spellings(path) for row in places.get(name, ())}
    others = [row for row in range(len(paths)) if row not in named] if absent else []
    here = lone_names([paths[row] for row in others], others)
    there = lone_names((unescaped(path) for path in absent), absent)
    return {path: here[name] for name, path in there.items() if name in here}


def decisions(file: Path) -> dict[str, str | None]:
    """Return what a corrections file decides about labels: path -> the label that was chosen or kept.

    None stands for a given label that was kept, where the file does not say which one that was.

    Of a suggestion that was accepted without its name, and of excluded images, nothing is returned: nobody knows here
    what was suggested. A later row overrules an earlier one.

    Raises:
        InputError: The file is no such table, or has an action that does not exist.
    """
    found: dict[str, str | None] = {}
    table = _table(file)
    given = table.get("given_label", pd.Series("", index=table.index, dtype=object))
    rows = zip(_read(file).itertuples(index=False), given, strict=True)
    for line, ((path, action, label), kept) in enumerate(rows, start=2):
        if action not in (*ACTIONS, *NO_ACTION):
            raise InputError(f"{file.name}, line {line}: the action is {action!r}; {near(action, ACTIONS)}")
        path = unescaped(path)
        found.pop(path, None)
        if action == "kept":
            found[path] = unescaped(kept) if kept else None
        elif action in ("set", "accepted") and label:
            found[path] = unescaped(label)
    return found


def blind_paths(file: Path) -> frozenset[str]:
    """Return the paths that a corrections file says were judged without a suggestion, in its column blind.

    Raises InputError where the file is no table.
    """
    table = _table(file)
    path = next((name for name in _PATHS if name in table.columns), None)
    if path is None or "blind" not in table.columns:
        return frozenset()
    named = table.loc[table["blind"].str.strip().str.lower() == "yes", path]
    return frozenset(named) | frozenset(map(unescaped, named))


def _read(file: Path) -> pd.DataFrame:
    """Return three columns of text: path, action, label."""
    table = _table(file)
    found = [next((name for name in names if name in table.columns), None) for names in (_PATHS, _ACTIONS, _LABELS)]
    if found[0] is None or found[1] is None:
        raise InputError(
            f"{file.name} has the columns {', '.join(table.columns)}; it takes path, action "
            f"({', '.join(ACTIONS)}) and, where one is set, label."
        )
    if found[2] is None:
        return table[[found[0], found[1]]].assign(label="")
    return table[[name for name in found if name is not None]]


def _table(file: Path) -> pd.DataFrame:
    """Return a CSV as text. Raises InputError where it is none."""
    if not file.exists():
        raise InputError(f"{file} does not exist; it takes a CSV with the columns path, action, label.")
    check_regular(file)
    try:
        separator, skipped = separator_of(file)
        table = pd.read_csv(
            file,
            dtype=str,
            keep_default_na=False,
            sep=separator,
            skiprows=skipped,
            encoding="utf-8-sig",
            compression=None,
        )
        table.columns = table.columns.str.strip()
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"{file.name} cannot be read as a CSV ({str(error).splitlines()[0]}).") from error
    return table
