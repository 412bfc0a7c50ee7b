"""Hold a finished run against limits, as a gate in continuous integration does: pass, fail, or undecided."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cvcoteach._validation import InputError, check_at_least
from cvcoteach.data.splits import rows_by_split
from cvcoteach.issues.precision_recall import Interval, expected_noise_rate, expected_precision_recall
from cvcoteach.issues.reviews import how_many_reviews, measured_noise_rate, reviews_to_decide
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.page.content import blind_sample, interval_text
from cvcoteach.pipeline.page.markdown import cell, table
from cvcoteach.pipeline.page.reviews import LEAST_BLIND, Reviews
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.run_source import root_of
from cvcoteach.pipeline.run_summary import counted

Outcome = Literal["pass", "fail", "undecided"]
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 3, "undecided": 4}

_NARROW = 0.1
"""Width of an interval of the precision that reviews should reach."""


@dataclass(frozen=True)
class Limits:
    """What a run has to hold.

    Raises InputError where none is named, and for one out of range.
    """

    max_noise: float | None = None
    """Largest share of wrong labels, in [0, 1)."""
    max_issues: int | None = None
    """Most flagged labels that nobody has reviewed."""
    min_precision: float | None = None
    """Least precision of the flags, in (0, 1]."""

    def __post_init__(self) -> None:
        if (self.max_noise, self.max_issues, self.min_precision) == (None, None, None):
            raise InputError("there is nothing to check; name --max-noise, --max-issues or --min-precision.")
        if self.max_noise is not None and not 0 <= self.max_noise < 1:
            raise InputError(f"max_noise is {self.max_noise}; it is a share of the labels, from 0 up to but not 1.")
        if self.max_issues is not None:
            check_at_least("max_issues", self.max_issues, 0)
        if self.min_precision is not None and not 0 < self.min_precision <= 1:
            raise InputError(f"min_precision is {self.min_precision}; it lies above 0 and up to 1.")


@dataclass(frozen=True)
class Finding:
    """One limit, and how the run stands to it."""

    name: str
    """"noise rate", that of a split ("noise rate of test"), "open issues" or "precision"."""
    outcome: Outcome
    limit: float
    """As it was named."""
    value: float | None
    """The estimate, or the count; None where it is not known."""
    interval: Interval | None
    """Where the value may lie; None for a count, and where it is not known."""
    sentence: str
    """What was found, for people; where it is undecided, what would decide."""


@dataclass(frozen=True)
class CheckResult:
    """A run held against limits."""

    run: Path
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """The worst of all: "fail" where any limit is broken, else "undecided" where any is, else "pass"."""
        found = {finding.outcome for finding in self.findings}
        return "fail" if "fail" in found else "undecided" if "undecided" in found else "pass"

    def as_record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {"run": str(self.run), "outcome": self.outcome, "checks": [asdict(finding) for finding in self.findings]}

    def as_markdown(self) -> str:
        """Return a summary for a pull request."""
        rows = [(f.name, f.outcome, _value_text(f), _limit_text(f)) for f in self.findings]
        sentences = "\n".join(f"- {cell(finding.sentence)}" for finding in self.findings)
        head = f"### Label check: {self.outcome}"
        return f"{head}\n\n{table(('check', 'outcome', 'found', 'limit'), rows)}\n\n{sentences}\n"

    def as_text(self) -> str:
        """Return a line per limit, for a terminal."""
        return "\n".join(
            [f"{self.outcome.upper()}: {self.run}", *(f"  {f.outcome}: {f.sentence}" for f in self.findings)]
        )


def check(run: str | Path, limits: Limits, *, corrections: Path | None = None) -> CheckResult:
    """Hold a finished run against limits.

    A share passes or fails where its whole 90 % interval does, and is undecided where the interval contains the limit.
    Labels that people reviewed count as they found them; images judged blind, see `report`, measure the noise rate and
    the precision, where that says more than the posterior. Of several splits, the noise rate of each has to hold.

    Args:
        run: The folder of a finished find-issues.
        limits: What has to hold.
        corrections: What people decided, see `correct`.

    Raises:
        InputError: The run is not finished or damaged, or the corrections do not fit it.
    """
    results = FinishedRun.read(Path(run)).results
    reviews = None
    if corrections is not None:
        reviews = Reviews.read(corrections, results, root_of(results.source), blind_sample(results))
    findings = []
    if limits.max_noise is not None:
        findings += [_noise(results, reviews, limits.max_noise), *_noise_of_splits(results, reviews, limits.max_noise)]
    if limits.max_issues is not None:
        findings.append(_issues(results, reviews, limits.max_issues))
    if limits.min_precision is not None:
        findings.append(_precision(results, reviews, limits.min_precision))
    return CheckResult(results.folder, tuple(findings))


def _noise(results: RunResults, reviews: Reviews | None, limit: float) -> Finding:
    found = results.found
    known = None if reviews is None else reviews.decided
    wrong = None if reviews is None else reviews.was_wrong(results)
    interval = expected_noise_rate(found, known=known, was_wrong=wrong)
    by = "estimated"
    if reviews is not None and reviews.sample is not None and (n := reviews.n_in_order) >= LEAST_BLIND:
        measured = measured_noise_rate(found, reviews.sample, reviews.was_wrong(results)[reviews.sample.indices[:n]])
        if interval is None or measured.width < interval.width:
            interval, by = measured, f"measured from {n:,} blind reviews"
    if interval is None:
        sentence = f"The labels carry no signal, so the noise rate is not known; {_how_to_review(results, limit)}"
        return Finding("noise rate", "undecided", limit, None, None, sentence)
    outcome: Outcome = "pass" if interval.high <= limit else "fail" if interval.low > limit else "undecided"
    sentence = f"The noise rate is {_share(interval)}, {by}; the limit is {limit:.1%}."
    if outcome == "undecided":
        sentence += f" The interval contains the limit; {_how_to_review(results, limit)}"
    return Finding("noise rate", outcome, limit, interval.estimate, interval, sentence)


def _noise_of_splits(results: RunResults, reviews: Reviews | None, limit: float) -> list[Finding]:
    """Return how the noise rate of each split stands to the limit; nothing where there are no splits."""
    found = results.found
    if found.splits is None or not results.held_out.any():
        return []
    findings = []
    known = None if reviews is None else reviews.decided
    wrong = None if reviews is None else reviews.was_wrong(results)
    for name, rows in rows_by_split(found.splits).items():
        interval = expected_noise_rate(found, rows=rows, known=known, was_wrong=wrong)
        if interval is None:  # the sentence on all labels says so
            continue
        outcome: Outcome = "pass" if interval.high <= limit else "fail" if interval.low > limit else "undecided"
        sentence = f"The noise rate of {name} is {_share(interval)}, estimated; the limit is {limit:.1%}."
        findings.append(Finding(f"noise rate of {name}", outcome, limit, interval.estimate, interval, sentence))
    return findings


def _issues(results: RunResults, reviews: Reviews | None, limit: int) -> Finding:
    flags = results.found.is_label_issue
    left = int((flags if reviews is None else flags & ~reviews.decided).sum())
    nobody = "" if reviews is None else " that nobody has reviewed"
    sentence = f"{counted(left, 'flagged label')}{nobody}; the limit is {limit:,}."
    return Finding("open issues", "pass" if left <= limit else "fail", limit, left, None, sentence)


def _precision(results: RunResults, reviews: Reviews | None, limit: float) -> Finding:
    found = results.found
    readout, by = expected_precision_recall(found) if found.filter_by == "posterior" else None, "expected"
    interval = None if readout is None else readout.precision
    measured = None if reviews is None else reviews.measured(results)
    if measured is not None and measured.precision is not None:
        interval, by = measured.precision, f"measured from {measured.n_reviewed:,} blind reviews"
    if not found.n_issues:
        return Finding("precision", "pass", limit, None, None, "No label is flagged, so no flag is wrong.")
    if interval is None:
        sentence = f"The precision of the flags is not known; {_how_to_measure(results)}"
        return Finding("precision", "undecided", limit, None, None, sentence)
    outcome: Outcome = "pass" if interval.low >= limit else "fail" if interval.high < limit else "undecided"
    sentence = f"The precision of the flags is {interval_text(interval)}, {by}; at least {limit:.0%} is wanted."
    if outcome == "undecided":
        sentence += f" The interval contains the limit; {_how_to_measure(results)}"
    return Finding("precision", outcome, limit, interval.estimate, interval, sentence)


def _how_to_measure(results: RunResults) -> str:
    n = how_many_reviews(results.found, for_width=_NARROW)
    return f"about {counted(n, 'blind review')} would tell (cvcoteach report --blind)."


def _how_to_review(results: RunResults, limit: float) -> str:
    if not results.found.n_issues:
        return "reviews of labels drawn at random would tell."
    n = reviews_to_decide(results.found, limit)
    return f"about {counted(n, 'blind review')} would decide (cvcoteach report --blind)."


def _share(interval: Interval) -> str:
    return f"{interval.estimate:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _value_text(finding: Finding) -> str:
    if finding.value is None:
        return "not known"
    return f"{finding.value:,}" if finding.interval is None else _share(finding.interval)


def _limit_text(finding: Finding) -> str:
    if finding.name == "open issues":
        return f"at most {finding.limit:,}"
    return f"at least {finding.limit:.1%}" if finding.name == "precision" else f"at most {finding.limit:.1%}"
