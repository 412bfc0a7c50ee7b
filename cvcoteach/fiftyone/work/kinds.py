"""What a run knows of samples beside wrong labels: contradictions, strangers, overlapping and rare classes, …"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cvcoteach._validation import BoolArray, InputError, near
from cvcoteach.issues.label_issues import LabelIssues


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of samples that a run has some of."""

    name: str
    title: str
    """Two or three words."""
    rows: BoolArray
    """(n,) the samples of this kind."""

    @property
    def n(self) -> int:
        """How many there are."""
        return int(self.rows.sum())


@lru_cache(maxsize=8)
def kinds(issues: LabelIssues) -> tuple[Kind, ...]:
    """Return the kinds that there are some of, those to look at first before others."""
    return tuple(kind for kind in _all(issues) if kind.rows.any())


def kind_of(issues: LabelIssues, name: str) -> Kind:
    """Return one of the kinds by name. Raises InputError for a kind that there is nothing of."""
    for kind in kinds(issues):
        if kind.name == name:
            return kind
    known = [kind.name for kind in kinds(issues)]
    raise InputError(f"there is nothing of the kind {name!r}" + (f"; {near(name, known)}" if known else "."))


def _all(issues: LabelIssues) -> Iterator[Kind]:
    nothing = np.zeros(len(issues.labels), np.bool_)
    yield Kind("contradiction", "Contradictions", issues.contradiction)
    yield Kind("stranger", "None of the classes", issues.is_stranger)
    yield Kind("at_risk", "Classes at risk", np.isin(issues.labels, issues.at_risk) & issues.is_label_issue)
    yield Kind("few", "Too few to judge", np.isin(issues.labels, issues.beyond_judgment))
    yield Kind("overlap", "Overlapping classes", issues.overlaps_with[issues.labels] >= 0)
    yield Kind("disagreement", "Annotators disagree", nothing if issues.agreement is None else issues.agreement < 1)
    yield Kind("copy", "Exact copies", _copies(issues))


def _copies(issues: LabelIssues) -> BoolArray:
    found = np.zeros(len(issues.labels), np.bool_)
    if issues.duplicate_of is not None:
        copies = issues.duplicate_of >= 0
        found[copies] = found[issues.duplicate_of[copies]] = True
    return found


def labels_of_copies(issues: LabelIssues, row: int) -> list[str]:
    """Return the other classes that exact copies of an image were given."""
    if issues.duplicate_of is None:
        return []
    first = row if issues.duplicate_of[row] < 0 else int(issues.duplicate_of[row])
    copies = np.append(np.flatnonzero(issues.duplicate_of == first), first)
    return [issues.class_names[k] for k in np.setdiff1d(issues.labels[copies], issues.labels[row])]
