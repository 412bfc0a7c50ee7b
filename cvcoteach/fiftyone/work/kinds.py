"""What a run knows of samples beside wrong labels: contradictions, strangers, overlapping and rare classes, …"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cvcoteach._validation import BoolArray, InputError, IntArray, near
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
    differ = contradiction(issues)
    yield Kind("contradiction", "Contradictions", differ)
    yield Kind("near_contradiction", "Near copies that differ", differ & ~issues.exact_contradiction)
    yield Kind("stranger", "None of the classes", issues.is_stranger)
    yield Kind("at_risk", "Classes at risk", np.isin(issues.labels, issues.at_risk) & issues.is_label_issue)
    yield Kind("few", "Too few to judge", np.isin(issues.labels, issues.beyond_judgment))
    yield Kind("overlap", "Overlapping classes", issues.overlaps_with[issues.labels] >= 0)
    yield Kind("disagreement", "Annotators disagree", nothing if issues.agreement is None else issues.agreement < 1)
    yield Kind("copy", "Exact copies", _copies(issues, issues.duplicate_of))
    yield Kind("near_copy", "Near copies", _copies(issues, issues.near_copy_of))


def _copies(issues: LabelIssues, first: IntArray | None) -> BoolArray:
    """Return the images (n,) that are copies, or that others are copies of. first: (n,) the first copy, -1 for none."""
    found = np.zeros(len(issues.labels), np.bool_)
    if first is not None:
        copies = first >= 0
        found[copies] = found[first[copies]] = True
    return found


def copies_of(issues: LabelIssues, row: int) -> IntArray:
    """Return the rows of an image and its copies, exact and near ones."""
    first = _first_copy(issues)
    return np.flatnonzero(first == first[row])


@lru_cache(maxsize=8)
def _first_copy(issues: LabelIssues) -> IntArray:
    """Return `issues.first_copy`; found once, not at every key press."""
    return issues.first_copy


@lru_cache(maxsize=8)
def contradiction(issues: LabelIssues) -> BoolArray:
    """Return `issues.contradiction`; found once, not at every key press."""
    return issues.contradiction


def is_contradiction(issues: LabelIssues, row: int) -> bool:
    """Return whether a copy of an image, exact or near, was given another class."""
    return bool(contradiction(issues)[row])


def has_near_copies_alone(issues: LabelIssues, row: int) -> bool:
    """Return whether only near copies, no exact ones, were given another class than this image."""
    return not _exact_contradiction(issues)[row]


@lru_cache(maxsize=8)
def _exact_contradiction(issues: LabelIssues) -> BoolArray:
    """Return `issues.exact_contradiction`; found once, not at every key press."""
    return issues.exact_contradiction
