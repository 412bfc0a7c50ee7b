"""The words of the panel: figures and sentences about a run and about a sample, each figure rounded here, and once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cvcoteach._validation import counted, verb
from cvcoteach.fiftyone.app.charts import MOST_CLASSES
from cvcoteach.fiftyone.app.layout import Figure, escaped
from cvcoteach.fiftyone.store.annotators import NAMES
from cvcoteach.fiftyone.store.fields import STATUSES, UNREVIEWED
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.browse import Reviews
from cvcoteach.fiftyone.work.figures import LEAST_CHECKS, Headline
from cvcoteach.fiftyone.work.kinds import has_near_copies_alone, is_contradiction, kinds
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.precision_recall import Interval, Readout


def headline(figures: Headline) -> str:
    """Say in one line, of a narrow panel too, how many labels look wrong, or still do or, at the end, did."""
    if not figures.n_reviewed:
        return f"{figures.n_issues:,} of {figures.n_samples:,} labels {verb(figures.n_issues, 'looks', 'look')} wrong"
    if figures.n_left:
        return f"{figures.n_left:,} of {figures.n_samples:,} labels still {verb(figures.n_left, 'looks', 'look')} wrong"
    were = verb(figures.n_found_wrong, "was", "were")
    return f"Nothing left to review: {figures.n_found_wrong:,} of {figures.n_reviewed:,} {were} wrong"


def estimates(figures: Headline) -> list[Figure]:
    """Return noise, precision and recall, each with its interval and, once reviews have moved it, the initial one."""
    noise = "unknown" if figures.noise_ratio is None else f"{figures.noise_ratio:.1%}"
    now, first = figures.expected, figures.at_first
    return [
        Figure(noise, "of all labels wrong", "estimated noise"),
        _estimate(now.precision, first.precision, "of the flagged wrong"),
        _estimate(now.recall, first.recall, "of the wrong flagged"),
    ]


def first_of_all(issues: LabelIssues, done: Reviews) -> list[str]:
    """Return as lines of Markdown what to know before labels are changed: contradictions, strangers, odd classes."""
    lines, found = [], {kind.name: int(done.open(kind.rows).sum()) for kind in kinds(issues)}
    if n := found.get("contradiction"):
        near = found.get("near_contradiction", 0)
        exact = n - near
        each = f"{exact:,} exact and {near:,} near" if exact and near else "near" if near else "exact"
        lines.append(f"**{n:,} contradiction{'s' * (n != 1)} first**: {each} copies with different labels.")
    if n := found.get("stranger"):
        lines.append(f"**{n:,}** perhaps of **none of the classes**: exclude before relabeling.")
    names = [escaped(name) for name in issues.class_names]
    if len(issues.overlaps):
        pairs = [f"{names[i]} and {names[j]}" for i, j in issues.overlaps.tolist()]
        lines.append(f"**Cannot be told apart**, so neither is flagged for the other: {_listed(pairs)}.")
    if len(issues.at_risk):
        rare = _listed([names[k] for k in issues.at_risk])
        lines.append(f"**At risk**: few labels of {rare} are right; look before accepting.")
    if len(issues.beyond_judgment):
        lines.append(f"**Too few to judge**, so look yourself: {_listed([names[k] for k in issues.beyond_judgment])}.")
    return lines


def annotators(known: Sequence[Mapping[str, Any]]) -> str:
    """Return the least reliable annotators as Markdown, by quality where it is known."""
    each = [
        f"**{escaped(str(one['annotator']))}** "
        + (
            f"{one['quality']:.2f} of {counted(one['n_labels'], 'label')}"
            if one.get("quality") is not None
            else _flagged(one)
        )
        for one in known
    ]
    by_quality = any(one.get("quality") is not None for one in known)
    return f"The least reliable first{', by quality from 0 to 1' * by_quality}: {_listed(each)}."


def _flagged(one: Mapping[str, Any]) -> str:
    return f"{one['n_flagged']:,} of {counted(one['n_labels'], 'label')} flagged"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def notes(results: FindLabelIssuesResults, figures: Headline) -> Iterator[str]:
    """Yield what else there is to know, as Markdown: why something is unknown, random checks, retraining."""
    if figures.expected.precision is None:
        yield escaped(figures.expected.note)
    if figures.checked is not None:
        yield f"By **{figures.n_checked}** random checks: {'; '.join(_parts(figures.checked))}.{_counted(figures)}"
    elif figures.n_checked > 1:
        yield f"**{figures.n_checked}** random checks done; {LEAST_CHECKS} are needed to measure.{_counted(figures)}"
    if "retrained" in results.info:
        yield f"**Retrained.** {escaped(results.info['retrained'])}"


def first_notes(notes: Sequence[str], most: int) -> list[str]:
    """Return the first notes on a run and, where there are others, a sentence that says where these are."""
    n = len(notes) - most
    others = [f"({n:,} more note{'s are' if n > 1 else ' is'} in the run's `info`.)"] if n > 0 else []
    return [*notes[:most], *others]


def reviewed(done: Reviews, results: FindLabelIssuesResults) -> str:
    """Say what has been reviewed and what is left, as Markdown."""
    counts = done.counts
    n = int(done.reviewed.sum())
    parts = [f"**{n:,}** reviewed" + (f", **{int(done.was_wrong.sum()):,}** of them wrong" if n else "")]
    parts += [f"{counts[status]:,} {status}" for status in STATUSES if status != UNREVIEWED]
    parts.append(f"**{len(browse.queue(results, done)):,}** left")
    return " \u00b7 ".join(parts)


def of_many(issues: LabelIssues) -> str:
    """Return what follows the heading of a chart that has no room for all classes."""
    return f" (the worst {MOST_CLASSES} of {issues.n_classes:,} classes)" if issues.n_classes > MOST_CLASSES else ""


def sample(results: FindLabelIssuesResults, row: int, *, blind: bool = False) -> str:
    """Name the given and the suggested label of one sample, as Markdown; with `blind` ask about the given one."""
    given, suggested = _names(results, row)
    if blind:
        return f"Is it {escaped(given)}?"
    if results.issues.is_stranger[row]:
        return f"{escaped(given)} \u2192 {NONE}"
    return escaped(given) if given == suggested else f"{escaped(given)} \u2192 {escaped(suggested)}"


def sample_figures(results: FindLabelIssuesResults, done: Reviews, row: int, *, blind: bool = False) -> list[Figure]:
    """Return what is known about one sample; with `blind` nothing that the run says."""
    issues = results.issues
    given, suggested = _names(results, row)
    if blind:
        return [Figure(escaped(given), "given label"), Figure(done.status[row].capitalize(), "review")]
    shown = [Figure(f"{issues.wrong[row]:.0%}", f"{escaped(given)} is wrong", "probability")]
    if issues.stranger is not None and issues.is_stranger[row]:
        shown.append(Figure(f"{issues.stranger[row]:.0%}", "no class fits", "probability"))
    elif given != suggested:
        shown.append(Figure(f"{issues.suggested_prob[row]:.0%}", f"{escaped(suggested)} is right", "probability"))
    return [*shown, Figure(done.status[row].capitalize(), "review", "flagged" if issues.is_label_issue[row] else "")]


NONE = "none of these?"
"""In place of the suggestion for what probably belongs to none of the classes."""

AGREED = "copies agree now"
"""In place of the suggestion for what was a contradiction before its copies were corrected."""

_DASH = "\u2013"
_WHOLE_DASH = f"\u2060{_DASH}\u2060"
"""A dash at which no line is broken."""

CHECKING = (
    "**Random checks** are shown without our suggestion. In an open one: **k** if its label is right, **Set\u2026** to "
    f"give another, **e** if no class fits. From {LEAST_CHECKS} on, precision and recall are measured from them."
)
"""What to do in the view of random checks."""


def card(results: FindLabelIssuesResults, row: int, *, blind: bool = False) -> tuple[str, str]:
    """Return what stands under a thumbnail: the given label, and what it should perhaps be."""
    given, suggested = _names(results, row)
    if blind:
        return given, "?"
    if results.issues.is_stranger[row]:
        return given, NONE
    if given != suggested or not is_contradiction(results.issues, row):
        return given, suggested
    copies = browse.labels_of_copies(results, row)
    return given, f"a copy is {copies[0]}" if copies else AGREED


def known_of(results: FindLabelIssuesResults, row: int, told: Mapping[str, str]) -> list[str]:
    """Return what else is known of a sample, as lines of Markdown. told: what the sample itself says, name -> value."""
    lines, issues = [], results.issues
    copies = browse.labels_of_copies(results, row) if is_contradiction(issues, row) else []
    if copies:
        lines.append(
            f"**Contradiction**: {'a near' if has_near_copies_alone(issues, row) else 'an exact'} copy is labelled "
            f"{_listed([f'**{escaped(name)}**' for name in copies])}."
        )
    elif is_contradiction(issues, row):
        lines.append("**Contradiction**, settled: its copies have the same label by now.")
    if issues.is_stranger[row]:
        lines.append("**Perhaps none of the classes**: exclude it, unless you see one that fits.")
    given, other = issues.labels[row], issues.overlaps_with[issues.labels[row]]
    if other >= 0:
        pair = [escaped(issues.class_names[k]) for k in (given, other)]
        lines.append(f"{' and '.join(pair)} cannot be told apart here.")
    if given in issues.at_risk:
        lines.append(f"{escaped(issues.class_names[given])} is a class at risk: few of its labels are right.")
    parts = [f"{escaped(name)}: **{escaped(value)}**" for name, value in told.items()]
    quality = {str(one["annotator"]): one.get("quality") for one in results.info.get("annotators") or []}
    for name, who in told.items():
        if name.replace(" ", "_") in NAMES and quality.get(who) is not None:
            parts.append(f"**{quality[who]:.0%}** of this annotator's labels are probably right")
    if issues.n_annotators is not None and issues.agreement is not None:
        n = int(issues.n_annotators[row])
        parts.append(f"{n:,} annotator{'s' * (n != 1)}, **{issues.agreement[row]:.0%}** gave this label")
    if issues.splits is not None:
        parts.append(f"split: **{escaped(str(issues.splits[row]))}**")
    if parts:
        lines.append(" \u00b7 ".join(parts))
    return lines


def _counted(figures: Headline) -> str:
    n_flagged, wrong, n_others, missed = figures.checked_wrong
    checked = [(n_flagged, wrong, "flagged"), (n_others, missed, "other")]
    parts = [
        f"{of_them} of {n} {what} labels {verb(of_them, 'was', 'were')} wrong" for n, of_them, what in checked if n
    ]
    return f" ({', '.join(parts)}.)" if parts else ""


def _estimate(now: Interval | None, first: Interval | None, what: str) -> Figure:
    if now is None:
        return Figure("unknown", what)
    more = _range(now)
    if first is not None and _range(first) != more:
        more += f"  \nat first {_range(first).replace(_DASH, _WHOLE_DASH)}"
    return Figure(f"{now.estimate:.0%}", what, more)


def _with_range(interval: Interval) -> str:
    return f"{interval.estimate:.0%} ({_range(interval)})"


def _range(interval: Interval) -> str:
    if f"{interval.low:.0%}" == f"{interval.high:.0%}":  # narrow: a decimal more shows that it is an interval
        low, high = f"{100 * interval.low:.1f}", f"{interval.high:.1%}"
        return high if high == f"{low}%" else f"{low}{_DASH}{high}"
    return f"{100 * interval.low:.0f}{_DASH}{interval.high:.0%}"


def _parts(readout: Readout) -> list[str]:
    parts = []
    if readout.precision is not None:
        parts.append(f"of the flagged **{_with_range(readout.precision)}** are wrong")
    if readout.recall is not None:
        parts.append(f"of the wrong **{_with_range(readout.recall)}** are flagged")
    return parts


def _names(results: FindLabelIssuesResults, row: int) -> tuple[str, str]:
    issues = results.issues
    return issues.class_names[issues.labels[row]], issues.class_names[issues.suggested[row]]
