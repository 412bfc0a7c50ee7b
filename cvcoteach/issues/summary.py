"""Label issues -> the figures and sentences that say how many labels are doubtful and how far to trust the flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cvcoteach.data.splits import held_out
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.precision_recall import Interval, Readout, expected_precision_recall
from cvcoteach.noise_model.posterior import NO_SIGNAL

CLEAN = 0.01
"""Where fewer labels are expected to be wrong, nothing speaks for noise: the posterior says as much of clean labels."""

NAMES = (
    "n_images", "n_classes", "n_issues", "n_probably_wrong", "n_worth_a_look", "flag_for", "has_signal", "noise_rate",
    "expected_precision", "expected_recall", "note",
)  # fmt: skip
"""Of the figures."""

_RULES = {
    "f1": "the flags with the best expected F1",
    "precision": "as many flags as an expected precision of 90% allows",
    "recall": "as few flags as an expected recall of 90% takes",
}

_BETTER = {
    "images": "a pretrained backbone",
    "backbone": "a backbone that was trained on more similar images",
    "features": "features of another network",
}
"""What might see more than what was trained on."""


def figures(issues: LabelIssues) -> dict[str, Any]:
    """Return what is known about the labels and their flags, ready for JSON.

    `noise_rate` is the expected share of wrong labels, None without a signal. `n_probably_wrong` counts labels that are
    more probably wrong than right, `n_worth_a_look` the flagged ones. `expected_precision` and `expected_recall` have
    an estimate and the ends of an interval; None where these cannot be given, and `note` says why. `overlaps` are pairs
    of classes that the models cannot tell apart, `n_strangers` counts images that belong to no class (None without
    features), `classes_at_risk` may be wiped out by fixing labels, `classes_beyond_judgment` have too few. `splits`,
    where there are any, has a record of each (`LabelIssues.by_split`).
    """
    names = issues.class_names
    readout = expected_precision_recall(issues) if issues.filter_by == "posterior" else Readout(None, None, 0, 0, "")
    return {
        "n_images": len(issues.labels),
        "n_classes": issues.n_classes,
        "n_issues": issues.n_issues,
        "n_probably_wrong": issues.n_probably_wrong,
        "n_worth_a_look": issues.n_worth_a_look,
        "flag_for": issues.flag_for,
        "has_signal": issues.has_signal,
        "noise_rate": round(issues.noise_ratio, 4) if issues.has_signal else None,
        "overlaps": [[names[i], names[j]] for i, j in issues.overlaps.tolist()],
        "n_strangers": None if issues.stranger is None else int(issues.is_stranger.sum()),
        "classes_at_risk": [names[k] for k in issues.at_risk.tolist()],
        "classes_beyond_judgment": [names[k] for k in issues.beyond_judgment.tolist()],
        "expected_precision": _rounded(readout.precision),
        "expected_recall": _rounded(readout.recall),
        "note": readout.note,
        **({} if issues.splits is None else {"splits": _splits(issues)}),
    }


def _splits(issues: LabelIssues) -> list[dict[str, Any]]:
    records = issues.by_split().to_dict("records")
    for record in records:
        record["noise_rate"] = round(record["noise_rate"], 4) if issues.has_signal else None
    return [{str(name): value for name, value in record.items()} for record in records]


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures as lines of text: the flags, the noise rate, and how far to trust both.

    figures: As `figures` returns them, and `trained_on`, if it is known: "images", "backbone" or "features".
    """
    n, worth, probably = figures["n_images"], figures["n_worth_a_look"], figures["n_probably_wrong"]
    of_labels = f"{n:,} {'label' if n == 1 else 'labels'}"
    if not figures["has_signal"]:
        flags = f"the {worth:,} flags say only what INCV did not select" if worth else f"none of {of_labels} is flagged"
        better = _BETTER[figures.get("trained_on", "images")]
        return [
            f"{NO_SIGNAL}: {flags}.",
            f"The noise rate cannot be estimated. More images or {better} would help.",
        ]
    rate = figures["noise_rate"]
    if rate < CLEAN:
        few = f"{worth:,}" if worth else "None"
        looks = f"{few} of {of_labels} {'looks' if worth <= 1 else 'look'} doubtful; no sign of noise."
        said = f"Estimated noise rate: {rate:.1%} (the expected share of wrong labels)."
        return [looks, said, *_of_splits(figures), *_special(figures)]
    lines = [
        f"{probably:,} of {of_labels} {'is' if probably == 1 else 'are'} probably wrong ({probably / n:.1%}), "
        f"{worth:,} {'is' if worth == 1 else 'are'} worth a look{_rule(figures['flag_for'])}.",
        f"Estimated noise rate: {rate:.1%} (the expected share of wrong labels).",
        *_of_splits(figures),
    ]
    precision, recall = figures["expected_precision"], figures["expected_recall"]
    if precision is not None:
        lines.append(f"Expected precision of the flags: {_interval(precision)}.")
    if recall is not None:
        lines.append(f"Expected recall: {_interval(recall)}.")
    if figures["note"]:
        lines.append(figures["note"])
    lines += _special(figures)
    if worth > n / 2:
        lines.append(
            "Warning: more than half of all labels are flagged. Check that images and labels belong together, and that "
            "the model can tell these classes apart, before acting on the flags."
        )
    return lines


def _special(figures: Mapping[str, Any]) -> list[str]:
    """Return a line each on overlapping classes, strangers, and rare classes, where there are any."""
    lines = []
    pairs, strangers = figures.get("overlaps", []), figures.get("n_strangers")
    if pairs:
        lines.append(
            f"The models cannot tell {_listed([f'{a} from {b}' for a, b in pairs])}: these count as one class, and "
            "none of their labels is flagged for the other."
        )
    if strangers:
        what = "image seems" if strangers == 1 else "images seem"
        lines.append(f"{strangers:,} {what} to belong to none of the classes: exclude before relabeling.")
    rare, few = figures.get("classes_at_risk", []), figures.get("classes_beyond_judgment", [])
    if rare:
        lines.append(
            f"Few labels of {_listed(rare)} are right, and flags spare most of these: look before accepting, or fixing "
            "labels wipes the class out."
        )
    if few:
        lines.append(f"Too few labels to judge any, so look at them yourself: {_listed(few)}.")
    return lines


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _of_splits(figures: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the noise of each split; none where there are no splits."""
    splits = figures.get("splits", [])
    if len(splits) < 2:
        return []
    each = "; ".join(
        f"{split['split']} {split['noise_rate']:.1%} of {split['n_images']:,} ({split['n_issues']:,} flagged)"
        for split in splits
    )
    names = np.array([split["split"] for split in splits])
    out = held_out(names)
    learned = "" if out is None else f" Models learned from {' and '.join(names[~out].tolist())} alone."
    return [f"By split: {each}.{learned}"]


def _rule(flag_for: str) -> str:
    if flag_for.startswith("probability "):
        return f" (those wrong with {flag_for} or more)"
    return f" ({_RULES[flag_for]})" if flag_for in _RULES else ""


def _rounded(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {name: round(value, 4) for name, value in asdict(interval).items()}


def _interval(figures: Mapping[str, float]) -> str:
    return f"{figures['estimate']:.0%} ({figures['low']:.0%} to {figures['high']:.0%})"
