"""From a finished run and people's reviews to what would change in a copy of its images. Nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray, near
from cvcoteach.data.sources import Choices, Source, at_hand, read_source
from cvcoteach.data.writers import Copy
from cvcoteach.issues.corrections import Corrected, Judged, correct, lone_names
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.run_source import as_in_run, location_of
from cvcoteach.pipeline.run_summary import counted

Action = Literal["relabel", "exclude", "reviews", "list"]
ACTIONS: tuple[Action, ...] = get_args(Action)

RELABELLED, EXCLUDED = "relabelled", "excluded"


@dataclass(frozen=True)
class ApplySettings:
    """What to do about doubtful labels.

    Raises InputError for an action that does not exist and a probability outside (0, 1].
    """

    action: Action
    """"relabel": give them the suggested labels; "exclude": leave their images out; "reviews": neither, do only what
    people decided; "list": as "relabel", for a list."""
    min_probability: float | None = None
    """Of all labels, change those whose suggestion is right, or to exclude those that are wrong, with at least this
    probability, in (0, 1]. None: the flagged ones, to relabel those whose suggestion is the more probable one."""
    corrections: Path | None = None
    """What people decided, see `correct`; it overrules everything else."""
    allow_empty_classes: bool = False
    """Whether a class may lose its last image."""
    held_out: bool = False
    """Whether images of other splits than the one learned from, such as test, change without a review as well."""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise InputError(f"action is {self.action!r}; {near(str(self.action), ACTIONS)}")
        if self.min_probability is not None and not 0 < self.min_probability <= 1:
            raise InputError(f"min_probability is {self.min_probability}; it lies above 0 and up to 1.")
        if self.action == "reviews" and self.corrections is None:
            raise InputError("the action reviews does what a corrections file says; name one with --corrections.")
        if self.action == "reviews" and self.min_probability is not None:
            raise InputError("the action reviews takes no --min-probability: nothing but the reviews is applied.")


@dataclass(frozen=True, eq=False)
class Plan:
    """What would change in a copy of the images of a run."""

    run: FinishedRun
    """What was found."""
    settings: ApplySettings
    """What was asked for."""
    copy: Copy
    """What would be written."""
    changes: pd.DataFrame
    """A row per image that changes: row (in the source), path, action ("relabelled", "excluded"), old, new (names; new
    is empty where excluded), probability (that the change is right, by the run; NaN where it was reviewed), why
    ("posterior", or the review)."""
    left: int
    """Flagged labels that stay, because the given class is more probable than the suggested one."""
    notes: tuple[str, ...]
    """Sentences about what the user should know."""

    @property
    def expected_mistakes(self) -> float | None:
        """How many of the changes that nobody reviewed are expected to be wrong; None where there are none."""
        probability = self.changes["probability"].dropna()
        return float((1 - probability).sum()) if len(probability) else None

    @property
    def summary(self) -> dict[str, Any]:
        """The figures, for people and machines."""
        counts = self.changes["action"].value_counts()
        mistakes = self.expected_mistakes
        return {
            "n_images": len(self.copy.source),
            "n_kept": int(self.copy.kept.sum()),
            "n_relabelled": int(counts.get(RELABELLED, 0)),
            "n_excluded": int(counts.get(EXCLUDED, 0)),
            "n_reviewed": int(self.changes["probability"].isna().sum()),
            "n_left": self.left,
            "expected_mistakes": None if mistakes is None else round(mistakes, 2),
        }

    def corrections(self) -> pd.DataFrame:
        """Return the changes as a corrections table, worst first: path, action, label, given_label, probability."""
        excluded = self.changes["action"] == EXCLUDED
        actions = np.where(excluded, "excluded", np.where(self.changes["why"] == "posterior", "accepted", "set"))
        table = pd.DataFrame(
            {
                "path": self.changes["path"],
                "action": actions,
                "label": self.changes["new"],
                "given_label": self.changes["old"],
                "probability": self.changes["probability"].round(6),
            }
        )
        return table.sort_values("probability", ascending=False, kind="stable", ignore_index=True)


def plan(
    run: str | Path, settings: ApplySettings, *, source: str | Path | None = None, choices: Choices | None = None
) -> Plan:
    """Return what would change, from a finished run and what people decided.

    Args:
        run: The folder of a finished find-issues.
        settings: What to do.
        source: The images of the run; None: where the run found them.
        choices: How to read the source, where that differs from how the run read it.

    Raises:
        InputError: Anything does not fit: the run, its images, the corrections; or a class would lose all its images.
    """
    finished = FinishedRun.read(Path(run))
    location = (
        location_of(finished.results.folder, finished.record, "with --source")
        if source is None
        else at_hand(source, None if choices is None else choices.cache_dir)
    )
    named = as_in_run(finished.results.folder, finished.record, location, choices)
    data = read_source(location, **asdict(named))
    if data.annotations is not None and settings.action != "list":
        raise InputError(
            f"{location.name} holds the labels of several annotators, which are no one's to change; --action list says "
            "what the consensus would become."
        )
    rows, notes = _rows(data, finished, location)
    decisions = _decide(finished, settings, data)
    label_of = _numbers_in(data, finished)
    applied = rows >= 0
    new = np.where(decisions.labels != finished.results.labels, label_of[decisions.labels], -1)
    lost = applied & ~decisions.excluded & (decisions.labels != finished.results.labels) & (new < 0)
    if lost.any():
        name = finished.results.class_names[int(decisions.labels[int(np.argmax(lost))])]
        raise InputError(f"the class {name!r} of the run has no image in {location} any more; find the issues again.")
    labels, kept = data.labels.copy(), np.ones(len(data), np.bool_)
    changes = _changes(finished, decisions, rows)
    relabelled = changes["action"] == RELABELLED
    at, images = changes["row"].to_numpy(), changes["image"].to_numpy()
    labels[at[relabelled]] = new[images[relabelled]]
    kept[at[~relabelled]] = False
    if emptied := _emptied_classes(data, labels, kept):
        if settings.action != "list" and not settings.allow_empty_classes:
            raise InputError(f"{emptied}; --allow-empty-classes says that this is meant.")
        notes.append(f"{emptied}.")
    notes += _contradicting(finished.results.found, decisions, applied)
    if n_protected := int((decisions.protected & applied).sum()):
        stay = "stays as it is" if n_protected == 1 else "stay as they are"
        names = ", ".join(np.unique(np.asarray(finished.results.found.splits)[decisions.protected]).tolist())
        notes.append(f"{counted(n_protected, 'flagged label')} of {names} {stay}; --held-out changes these too.")
    return Plan(
        finished,
        settings,
        Copy(data, named, labels, kept),
        changes.drop(columns="image"),
        int((decisions.left & applied).sum()),
        tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class _Decisions:
    """What is to become of the n labels of a run."""

    labels: IntArray
    """(n,) labels from now on, in the numbers of the run."""
    excluded: BoolArray
    """(n,)"""
    reviewed: BoolArray
    """(n,) whether a person decided."""
    probability: FloatArray
    """(n,) that the change is right; NaN where a person decided."""
    left: BoolArray
    """(n,) flagged, not reviewed, and not changed."""
    protected: BoolArray
    """(n,) flagged and not reviewed, but held out, so not changed."""


def _decide(run: FinishedRun, settings: ApplySettings, data: Source) -> _Decisions:
    results = run.results
    found, given = results.found, results.labels
    reviews = _reviews(run, settings.corrections, data)
    decided = reviews.reviewed | reviews.excluded
    if settings.action != "reviews" and not found.has_signal:
        raise InputError(
            f"{results.folder} found no signal in the labels, so its flags are no ground to change any; review them, "
            "and take --action reviews --corrections FILE."
        )
    right = found.wrong if settings.action == "exclude" else results.alternative_prob
    least = settings.min_probability
    flagged = found.is_label_issue if least is None else right >= least
    flagged = flagged & ~results.reviewed  # kept or chosen before the run
    chosen = flagged & ~decided
    if settings.action == "reviews":
        chosen = np.zeros_like(chosen)
    elif settings.action != "exclude" and least is None:
        chosen &= (results.alternative_prob > found.label_quality) & ~found.is_stranger  # exclude these first
    if not settings.held_out:
        chosen &= ~results.held_out
    excluded, labels = reviews.excluded.copy(), reviews.labels.copy()
    if settings.action == "exclude":
        excluded |= chosen
    else:
        labels[chosen] = results.alternative[chosen]
    protected = results.held_out & (not settings.held_out)
    left = (
        flagged & ~decided & ~chosen & ~protected if settings.action in ("relabel", "list") else np.zeros_like(chosen)
    )
    return _Decisions(
        labels=np.where(excluded, given, labels),
        excluded=excluded,
        reviewed=decided,
        probability=np.where(decided, np.nan, right),
        left=left,
        protected=flagged & ~decided & protected & (settings.action != "reviews"),
    )


def _reviews(run: FinishedRun, corrections: Path | None, data: Source) -> Corrected:
    results = run.results
    nothing = np.zeros(len(results.labels), np.bool_)
    if corrections is None:
        return Corrected(results.labels, nothing, nothing, nothing, nothing)
    judged = Judged(results.paths, data.root.absolute(), results.labels, results.found.suggested, results.class_names)
    return correct(corrections, judged, nothing, nothing)


def _changes(run: FinishedRun, decisions: _Decisions, rows: IntArray) -> pd.DataFrame:
    results, names = run.results, np.asarray(run.results.class_names, dtype=object)
    relabelled = (decisions.labels != results.labels) & ~decisions.excluded
    images = np.flatnonzero((relabelled | decisions.excluded) & (rows >= 0))
    excluded, reviewed = decisions.excluded[images], decisions.reviewed[images]
    return pd.DataFrame(
        {
            "row": rows[images],
            "image": images,
            "path": np.asarray(results.paths, dtype=object)[images],
            "action": np.where(excluded, EXCLUDED, RELABELLED),
            "old": names[results.labels[images]],
            "new": np.where(excluded, "", names[decisions.labels[images]]),
            "probability": decisions.probability[images],
            "why": np.where(reviewed, "reviewed", "posterior"),
        }
    )


def _contradicting(found: LabelIssues, decisions: _Decisions, applied: BoolArray) -> list[str]:
    """Return a note on the images whose copies would still have other labels; none where no copies would."""
    kept = np.flatnonzero(applied & ~decisions.excluded)
    after = replace(found.subset(kept), labels=decisions.labels[kept])
    exact, near = after.exact_contradiction, after.contradiction & ~decisions.reviewed[kept]
    parts = [(int(exact.sum()), "exact"), (int((near & ~exact).sum()), "near")]
    said = " and ".join(f"{counted(n, 'image')} {'has' if n == 1 else 'have'} {kind} copies" for n, kind in parts if n)
    return [f"{said} with other labels still; review them, they come first in the report."] if said else []


def _emptied_classes(data: Source, labels: IntArray, kept: BoolArray) -> str:
    """Return the beginning of a sentence on classes that would lose all their images; empty where none would."""
    k = len(data.class_names)
    before, after = np.bincount(data.labels, minlength=k), np.bincount(labels[kept], minlength=k)
    emptied = np.flatnonzero((before > 0) & (after == 0))
    if not len(emptied):
        return ""
    others, whose = (f" and {counted(len(emptied) - 1, 'other')}", "their") if len(emptied) > 1 else ("", "its")
    return f"the class {data.class_names[int(emptied[0])]!r}{others} would lose all {whose} images"


# -- the images of the run --


def _rows(data: Source, run: FinishedRun, location: Path) -> tuple[IntArray, list[str]]:
    """Return the row (n,) of the source for each image of the run, -1 where it is gone or has another label now."""
    results = run.results
    rows = _places(data.paths, results.paths)
    notes = []
    gone = int((rows < 0).sum())
    if gone == len(rows):
        raise InputError(f"{location} holds none of the images of the run, such as {results.paths[0]}.")
    moved = _n_moved(data.paths, results.paths, rows)
    if moved:
        notes.append(
            f"{counted(moved, 'image')} of the run {'was' if moved == 1 else 'were'} moved since and "
            f"{'is' if moved == 1 else 'are'} left alone."
        )
    if gone := gone - moved:
        notes.append(f"{counted(gone, 'image')} of the run {'is' if gone == 1 else 'are'} no longer in {location}.")
    number = {name: k for k, name in enumerate(results.class_names)}
    now = np.array([number.get(name, -1) for name in data.class_names], np.int64)[data.labels[rows]]
    changed = (rows >= 0) & (now != results.labels)
    if changed.any():
        n = int(changed.sum())
        notes.append(f"{counted(n, 'label')} changed since the run and {'is' if n == 1 else 'are'} left alone.")
    return np.where(changed, -1, rows), notes


def _n_moved(there: Sequence[str], wanted: Sequence[str], rows: IntArray) -> int:
    """Return how many images of the run lie elsewhere in the source: as file names say, where only one has each."""
    gone = np.flatnonzero(rows < 0)
    if not len(gone):
        return 0
    new = np.setdiff1d(np.arange(len(there)), rows)
    here, before = (lone_names([paths[i] for i in at.tolist()], at) for paths, at in ((there, new), (wanted, gone)))
    return len(here.keys() & before.keys())


def _places(there: Sequence[str], wanted: Sequence[str]) -> IntArray:
    """Return where each wanted name stands, (n,), each place once, -1 for none."""
    if len(there) == len(wanted) and tuple(there) == tuple(wanted):
        return np.arange(len(wanted))
    # names that come several times are told apart by how often they came before
    keys = [pd.DataFrame({"name": np.asarray(names, dtype=object)}) for names in (there, wanted)]
    index = [pd.MultiIndex.from_arrays([key["name"], key.groupby("name").cumcount()]) for key in keys]
    return np.asarray(index[0].get_indexer(index[1]), np.int64)


def _numbers_in(data: Source, run: FinishedRun) -> IntArray:
    """Return the source's number (K,) of each class of the run; -1 for one that it lacks."""
    number = {name: k for k, name in enumerate(data.class_names)}
    return np.array([number.get(name, -1) for name in run.results.class_names], np.int64)
