"""Results -> tables and text. Nothing here is printed or written by itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._validation import FloatArray, IntArray
from cvcoteach.crossval.incv import CrossValResult
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.summary import figures, sentences

ISSUE_COLUMNS = (
    "path",
    "given_label",
    "predicted_label",
    "label_quality",
    "is_label_issue",
    "set",
    "round",
)


def worst_first(result: CrossValResult, label_quality: FloatArray) -> IntArray:
    """All images, (n,) indices by ascending label quality; of equal quality those not selected go first."""
    return np.lexsort((result.selected, label_quality))


def issue_table(result: CrossValResult, issues: LabelIssues, paths: Sequence[str]) -> pd.DataFrame:
    """Every image, worst first, with the columns of `issues.csv`.

    `predicted_label` is the most probable true class, `label_quality` the probability that the given label is right.
    `set` says where INCV left the image, `round` which round judged it last.
    """
    names = np.asarray(issues.class_names, dtype=object)
    where = np.select([result.selected, result.candidate], ["selected", "candidate"], "dropped")
    table = pd.DataFrame(
        {
            "path": np.asarray(paths, dtype=object),
            "given_label": names[issues.labels],
            "predicted_label": names[issues.suggested],
            "label_quality": issues.label_quality,
            "is_label_issue": issues.is_label_issue,
            "set": where,
            "round": result.last_round,
        }
    )
    return table.iloc[worst_first(result, issues.label_quality)].reset_index(drop=True)


def confusions(table: pd.DataFrame, most: int = 5) -> list[dict[str, Any]]:
    """The most frequent pairs given -> predicted among the flagged, with their counts."""
    flagged = table[table["is_label_issue"] & (table["given_label"] != table["predicted_label"])]
    counts = flagged.groupby(["given_label", "predicted_label"]).size().rename("count").reset_index()
    counts = counts.sort_values("count", ascending=False, kind="stable").head(most)
    return [
        {"given": given, "predicted": predicted, "count": int(count)}
        for given, predicted, count in counts.itertuples(index=False)
    ]


def round_figures(result: CrossValResult) -> list[dict[str, Any]]:
    """One line a round: how many were scored, kept, dropped; agreement and ε̂."""
    return [
        {
            "round": number,
            "scored": len(r.scored),
            "kept": len(r.kept),
            "dropped": len(r.dropped),
            "selected": int(r.selected.sum()),
            "candidate": int(r.candidate.sum()),
            "agreement": round(r.agreement, 4),
            "noise_rate": round(r.noise_rate, 4),
        }
        for number, r in enumerate(result.rounds, start=1)
    ]


def summary(result: CrossValResult, issues: LabelIssues, table: pd.DataFrame) -> dict[str, Any]:
    """The figures of a run, for people and machines."""
    return {
        **figures(issues),
        "noise_rate_round_1": round(result.noise_rate, 4),
        "confusions": confusions(table),
        "rounds": round_figures(result),
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """The short summary that `find-issues` ends with."""
    lines = sentences(summary)
    if summary["confusions"]:
        lines.append("Most often:")
        width = max(len(c["given"]) for c in summary["confusions"])
        lines += [
            f"  {c['given']:<{width}} looks like {c['predicted']}  ({c['count']:,})" for c in summary["confusions"]
        ]
    return "\n".join(lines)


_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 24px; max-width: 1280px; }
h1 { font-size: 20px; margin: 0 0 4px; }
p { margin: 0 0 20px; opacity: .75; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); gap: 16px; }
figure { margin: 0; }
img { width: 100%; aspect-ratio: 1; image-rendering: pixelated; border-radius: 4px; background: #8883; }
figcaption { overflow-wrap: anywhere; font-size: 12px; }
.given { color: #c33; text-decoration: line-through; } .seen { font-weight: 600; }
.file { opacity: .6; }
"""


def gallery_html(title: str, lead: str, table: pd.DataFrame, thumbnails: Sequence[bytes | None]) -> str:
    """A page of its own with the first rows of an issue table as pictures: given label, predicted label, quality.

    table: as `issue_table`; thumbnails: PNG bytes of its first rows (None where there is no picture).
    """
    figures = []
    for row, png in zip(table.itertuples(index=False), thumbnails, strict=False):
        picture = (
            f'<img alt="" src="data:image/png;base64,{base64.b64encode(png).decode()}">' if png else '<img alt="">'
        )
        figures.append(
            f'<figure>{picture}<figcaption><span class="given">{html.escape(str(row.given_label))}</span> '
            f'<span class="seen">{html.escape(str(row.predicted_label))}</span> {row.label_quality:.3f}'
            f'<br><span class="file">{html.escape(str(row.path))}</span></figcaption></figure>'
        )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>"
        f"<main>{''.join(figures)}</main></html>\n"
    )
