"""A finished run: the one reader and writer of what it found."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._csv import csv_text, unescaped_values, write_csv
from cvcoteach._files import checksum_of, open_regular
from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray, near
from cvcoteach.crossval.result import Select
from cvcoteach.data.splits import held_out
from cvcoteach.issues.flags import FlagRule
from cvcoteach.issues.label_issues import NOT_SAVED, LabelIssues
from cvcoteach.issues.summary import NAMES, figures
from cvcoteach.noise_model.top_probs import Answer
from cvcoteach.pipeline.issues_table import NEEDED, tells_the_same
from cvcoteach.pipeline.pictures import pictures_of
from cvcoteach.pipeline.result_arrays import read_result_arrays, write_result_arrays
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.run_summary import confusions
from cvcoteach.pipeline.settings import RULES
from cvcoteach.pipeline.unreadable import read_unreadable

_FLOATS = "%.6f"
ARRAYS, ISSUES = "probabilities.npz", "issues.csv"

_NOT_LOOKED_FOR = -1.0
"""Stands for the probability of a stranger where there were no features to tell by."""

_IN_NOTEBOOK = 10
"""Images that a notebook shows of a run."""

_IN_ARRAYS = (
    "paths", "pred_probs", "pred_probs_round_1", "selected", "candidate", "round", "alternative", "alternative_prob",
    "reviewed", "groups",
)  # fmt: skip
_OF_ISSUES = tuple([field.name for field in fields(LabelIssues) if field.name not in NOT_SAVED])


@dataclass(frozen=True, eq=False)
class RunResults:
    """The results of a run of `find_issues`, as they lie in its folder."""

    folder: Path
    """The run folder."""
    source: str
    """Where the run found its images, or what its caller called them."""
    paths: tuple[str, ...]
    """n names of images, as in the source."""
    pred_probs: Answer
    """(n, K) out-of-sample probabilities from which everything else follows; of "agreement" those of round 1. Of more
    than 2,000 classes they are `TopProbs`: `pred_probs[rows]` is an array."""
    pred_probs_round_1: Answer
    """(n, K) those of round 1, whose models learned from all given labels."""
    selected: BoolArray
    """(n,) S: taken for right by the rounds; the models of the last one learned from it."""
    candidate: BoolArray
    """(n,) C: neither in S nor dropped."""
    round: IntArray
    """(n,) the last round that judged each image, from 1."""
    rounds: tuple[Mapping[str, Any], ...]
    """A record per round; see `run_summary.round_figures`."""
    summary: Mapping[str, Any]
    """The figures of the run, for people and machines; see `run_summary.summary`."""
    unreadable: Mapping[str, str]
    """Path -> why, of the images that were left out because they could not be read."""
    alternative: IntArray
    """(n,) the most probable true class other than the given one."""
    alternative_prob: FloatArray
    """(n,) its probability, in [0, 1]."""
    reviewed: BoolArray
    """(n,) labels that a person has kept or chosen: right, so of quality 1 and never flagged."""
    groups: IntArray
    """(n,) images of one number stayed in one fold, such as copies or those of a patient; all -1 where none did."""
    found: LabelIssues
    """What is known about every label, with the flags of the run; see `issues`."""
    was_done: bool = False
    """The folder held the finished run already; nothing was computed or written."""

    def __repr__(self) -> str:
        return f"RunResults({str(self.folder)!r}, {self.found!r})"

    def _repr_html_(self) -> str:
        """Return the most doubtful images as a table with pictures, for notebooks."""
        rows = self.found.shown_first(_IN_NOTEBOOK)
        record = RunFolder.read(self.folder).record if (self.folder / "run.json").exists() else {}
        return self.found.to_html(self.paths, pictures_of(record, self.paths, rows, 64), most=_IN_NOTEBOOK)

    @property
    def labels(self) -> IntArray:
        """(n,) given labels, 0..K-1."""
        return self.found.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """(K,) the name of each class."""
        return self.found.class_names

    @property
    def select(self) -> Select:
        """The rule by which the rounds selected."""
        return "agreement" if self.found.filter_by == "incv" else "posterior"

    @property
    def dropped(self) -> BoolArray:
        """(n,) taken for wrong beyond use by the rounds; nothing for "posterior"."""
        return ~(self.selected | self.candidate | self.held_out)

    @property
    def held_out(self) -> BoolArray:
        """(n,) images of other splits than the one learned from, such as test: only judged."""
        out = held_out(self.found.splits)
        return np.zeros(len(self.labels), np.bool_) if out is None else out

    def annotators(self) -> pd.DataFrame:
        """Return a row per annotator, the least reliable first: annotator, n_labels, agreement, quality.

        Raises InputError where the labels came without annotators.
        """
        file = self.folder / "annotators.csv"
        if self.found.n_annotators is None or not file.is_file():
            raise InputError(f"{self.folder} knows of no annotators; find-issues takes them with --annotator-column.")
        table = pd.read_csv(file, dtype={"annotator": str}, keep_default_na=False)
        table["annotator"] = unescaped_values(table["annotator"])
        return table

    @property
    def duplicate_of(self) -> IntArray:
        """(n,) the first image with the same pixels or features; -1 where there is none before it."""
        found = self.found.duplicate_of
        return np.full(len(self.labels), -1) if found is None else found

    @property
    def near_copy_of(self) -> IntArray:
        """(n,) the first image that shows the same picture, but for small changes; -1 where there is none before it."""
        found = self.found.near_copy_of
        return np.full(len(self.labels), -1) if found is None else found

    @property
    def contradiction(self) -> BoolArray:
        """(n,) images that have an exact or a near copy with another label, whatever the model says."""
        return self.found.contradiction

    @property
    def has_copy(self) -> BoolArray:
        """(n,) images that have an exact or a near copy."""
        result = np.zeros(len(self.labels), np.bool_)
        for first in (self.duplicate_of, self.near_copy_of):
            copies = np.flatnonzero(first >= 0)
            result[copies], result[first[copies]] = True, True
        return result

    @property
    def likely(self) -> IntArray:
        """(n,) the most probable true class, which of a flagged label may be the given one."""
        return np.where(self._given_is_likely, self.labels, self.alternative)

    @property
    def likely_prob(self) -> FloatArray:
        """(n,) its probability, in [0, 1]."""
        return np.where(self._given_is_likely, self.found.label_quality, self.alternative_prob)

    @property
    def _given_is_likely(self) -> BoolArray:
        own, other = self.found.label_quality, self.alternative_prob
        return (own > other) | ((own == other) & (self.labels < self.alternative))

    def issues(self, filter_by: str | None = None) -> LabelIssues:
        """Return the label issues: to the bit the flags, qualities and suggestions of the run.

        Args:
            filter_by: None for the flags of the run; "posterior" for those of the posterior, "incv" for every image
                outside S, which a run with select "agreement" has.

        Raises:
            InputError: For another rule, and for "incv" where the run selected by the posterior.
        """
        if filter_by is not None and filter_by not in RULES:
            raise InputError(f"filter_by is {filter_by!r}; {near(str(filter_by), RULES)}")
        if filter_by in (None, self.found.filter_by):
            return self.found
        if filter_by == "incv":
            raise InputError(
                f"filter_by is 'incv', but {self.folder} selected by the posterior; find the issues with select "
                "'agreement', in another folder."
            )
        return self._flagged_by(FlagRule())

    def flagged_by(self, rule: FlagRule) -> RunResults:
        """Return the same run with the flags and figures of another rule of the posterior, from the same probabilities.

        A run that selected by agreement flags what it did not select, whatever the rule.
        """
        if self.select == "agreement":
            return self
        found = self._flagged_by(rule)
        return replace(self, found=found, summary={**self.summary, **figures(found), "confusions": confusions(found)})

    def with_reviewed(self, reviewed: BoolArray) -> RunResults:
        """Return the same run, these labels (n,) being reviewed too: of quality 1 and not flagged."""
        reviewed = self.reviewed | reviewed
        right = replace(
            self, found=replace(self.found, label_quality=np.where(reviewed, 1.0, self.found.label_quality))
        )
        found = right._with_flags(self.found.is_label_issue & ~reviewed)
        figures_ = {**figures(found), "confusions": confusions(found), "n_reviewed": int(reviewed.sum())}
        return replace(self, reviewed=reviewed, found=found, summary={**self.summary, **figures_})

    def _flagged_by(self, rule: FlagRule) -> LabelIssues:
        flags = rule.flags(self.found.wrong, self.labels) & self.found.has_signal & ~self.reviewed
        return replace(self._with_flags(flags), filter_by="posterior", flag_for=str(rule))

    def _with_flags(self, flags: BoolArray) -> LabelIssues:
        return replace(
            self.found,
            is_label_issue=flags,
            suggested=np.where(flags, self.alternative, self.likely),
            suggested_prob=np.where(flags, self.alternative_prob, self.likely_prob),
        )

    def worst_first(self) -> IntArray:
        """Return all images, (n,) indices: contradictions first, of exact copies before near ones, then by ascending
        label quality. Of equal quality those not selected go first.
        """
        return self._ordered(self.contradiction)

    def _ordered(self, first: BoolArray) -> IntArray:
        return np.lexsort((self.selected, self.found.label_quality, ~first, ~self.found.exact_contradiction))

    def table(self) -> pd.DataFrame:
        """Return every image, worst first: the content of issues.csv.

        `predicted_label` is the class that the out-of-sample probabilities favour, `suggested_label` the most probable
        true class - of a flagged label always another than the given one - and `suggested_prob` its probability,
        `label_quality` the probability that the given label is right. `set` says where the rounds left the image
        ("selected": the models of the last round learned from it; "held out": of another split than the one learned
        from), `round` which of them scored it last. `split` is there where the source has several, and
        `n_annotators` and the share of them that gave the label, `agreement`, where there are several.
        `overlap` names a class that the models cannot tell from the given one, `stranger` is the probability that the
        image belongs to none of the classes, empty without features to tell by.
        `duplicate_of` is the path of the first exact copy, empty where there is none before it, `near_copy_of` that of
        the first near one; of a `contradiction` a copy of either kind has another label.
        """
        return self._table(self.contradiction)

    def _table(self, contradiction: BoolArray) -> pd.DataFrame:
        issues, names = self.found, np.asarray(self.class_names, dtype=object)
        paths = np.asarray(self.paths, dtype=object)
        table = pd.DataFrame(
            {
                "path": paths,
                "given_label": names[issues.labels],
                "predicted_label": names[issues.predicted],
                "label_quality": issues.label_quality,
                "is_label_issue": issues.is_label_issue,
                "suggested_label": names[issues.suggested],
                "suggested_prob": issues.suggested_prob,
                "set": np.select(
                    [self.held_out, self.selected, self.candidate], ["held out", "selected", "candidate"], "dropped"
                ),
                "round": self.round,
                "duplicate_of": np.where(self.duplicate_of < 0, "", paths[self.duplicate_of]),
                "contradiction": contradiction,
                "near_copy_of": np.where(self.near_copy_of < 0, "", paths[self.near_copy_of]),
                "overlap": np.append(names, "")[issues.overlaps_with[issues.labels]],
                "stranger": "" if issues.stranger is None else issues.stranger,
            }
        )
        if issues.splits is not None:
            table["split"] = issues.splits.astype(object)
        if issues.n_annotators is not None:
            table["n_annotators"], table["agreement"] = issues.n_annotators, issues.agreement
        return table.iloc[self._ordered(contradiction)].reset_index(drop=True)

    def has_written_table(self) -> bool:
        """Return whether issues.csv is as it was written, so that nothing of anybody's is lost with it.

        An earlier build may have written some of the columns only, and no contradictions of near copies.
        """
        if self._has_recorded_table():
            return True
        try:
            with open_regular(self.folder / ISSUES) as file:
                there = file.read()
            columns = next(csv.reader([there.split(b"\n", 1)[0].decode()]), [])
        except (OSError, UnicodeDecodeError, csv.Error):
            return False
        tables = [self._table(first) for first in (self.contradiction, self.found.exact_contradiction)]
        if not {*NEEDED} <= {*columns} <= {*tables[0].columns}:
            return False
        return any(there == csv_text(table[columns], float_format=_FLOATS).encode() for table in tables)

    def has_its_table(self) -> bool:
        """Return whether issues.csv says of each image what was found, in any order, with columns added or not."""
        if self._has_recorded_table():
            return True
        try:
            with open_regular(self.folder / ISSUES) as file:
                there = file.read()
        except OSError:
            return False
        written = csv_text(self.table(), float_format=_FLOATS).encode()
        return there == written or tells_the_same(there, written)

    def _has_recorded_table(self) -> bool:
        """Return whether issues.csv has the checksum that was recorded when all results had been written."""
        try:
            return checksum_of(self.folder / ISSUES) == RunFolder.read(self.folder).record.get("table")
        except (OSError, InputError):
            return False

    def put_table_aside(self) -> Path | None:
        """Rename issues.csv, which may hold somebody's work, to a name that is free; return it, None for no table."""
        if not (self.folder / ISSUES).is_file():
            return None
        names = (self.folder / f"issues.changed{number}.csv" for number in ("", *map(str, range(2, 10_000))))
        aside = next(name for name in names if not name.exists())
        os.replace(self.folder / ISSUES, aside)
        return aside

    def save(self, run: RunFolder) -> None:
        """Write issues.csv, probabilities.npz and the record of the run, which is finished with that.

        Raises InputError where the disk is full or the folder cannot be written.
        """
        if run.record.get("table") is not None:
            run.save(table=None)  # the one recorded is not that of the results from here on
        write_csv(run.path / ISSUES, self.table(), float_format=_FLOATS)
        ours = {name: getattr(self, name) for name in _IN_ARRAYS}
        found, n = self.found, len(self.labels)
        if found.splits is None:
            found = replace(found, splits=np.full(n, ""))
        if found.stranger is None:
            found = replace(found, stranger=np.full(n, _NOT_LOOKED_FOR))
        if found.n_annotators is None:
            found = replace(found, n_annotators=np.zeros(n, np.int64), agreement=np.ones(n))
        found = replace(found, duplicate_of=self.duplicate_of, near_copy_of=self.near_copy_of)
        of_issues = {name: getattr(found, name) for name in _OF_ISSUES}
        write_result_arrays(run.path / ARRAYS, {"dropped": self.dropped, **ours, **of_issues})
        table = checksum_of(run.path / ISSUES)
        run.save(state="done", rounds=list(self.rounds), summary=dict(self.summary), table=table)

    @staticmethod
    def load(folder: str | Path) -> RunResults:
        """Read what `save` wrote; nothing is trained or estimated again.

        Raises InputError for a folder without a finished run of `find_issues`.
        """
        run = RunFolder.read(Path(folder))
        if not run.done:
            raise InputError(f"{run.path} holds an unfinished run; the command that began it goes on with it.")
        if not (run.path / ARRAYS).exists():
            raise InputError(f"{run.path} has no {ARRAYS}; it takes the folder of a run of find-issues.")
        arrays = read_result_arrays(run.path / ARRAYS, {*_IN_ARRAYS, *_OF_ISSUES})
        of_issues = {name: _plain(arrays[name]) for name in _OF_ISSUES if name != "splits"}
        of_issues["splits"] = arrays["splits"] if (arrays["splits"] != "").any() else None
        if max(arrays["duplicate_of"].max(), arrays["near_copy_of"].max()) < 0:
            of_issues |= {"duplicate_of": None, "near_copy_of": None}
        if (arrays["stranger"] == _NOT_LOOKED_FOR).any():
            of_issues["stranger"] = None
        if not arrays["n_annotators"].any():
            of_issues |= {"n_annotators": None, "agreement": None}
        found = LabelIssues(**of_issues)
        ours = {name: _plain(arrays[name]) for name in _IN_ARRAYS}
        return RunResults(
            folder=run.path,
            source=run.needed("source"),
            rounds=tuple(run.needed("rounds")),
            summary=_whole(run.needed("summary"), found),
            unreadable=read_unreadable(run.path),
            found=found,
            **ours,
        )


def _whole(summary: Mapping[str, Any], found: LabelIssues) -> Mapping[str, Any]:
    """Return a summary of run.json; what somebody took out of it is counted again."""
    if {"confusions", *NAMES} <= summary.keys():
        return summary
    return {**figures(found), "confusions": confusions(found), **summary}


def _plain(array: Any) -> Any:
    """Text, numbers and names as what they were before numpy had them; other arrays as they are."""
    if not isinstance(array, np.ndarray):
        return array
    if array.ndim == 0:
        return array.item()
    return tuple(array.tolist()) if array.dtype.kind == "U" else array
