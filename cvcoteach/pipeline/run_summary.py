"""Results -> figures and text. Nothing here is printed or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cvcoteach._validation import counted as counted
from cvcoteach.crossval.result import CrossValResult
from cvcoteach.issues.flags import PROBABLY_WRONG
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.summary import figures, sentences
from cvcoteach.noise_model.posterior import fit_posterior
from cvcoteach.pipeline.annotators import sentence

MOST_CONFUSIONS = 5
"""Pairs of classes in a summary."""


def round_figures(result: CrossValResult) -> list[dict[str, Any]]:
    """Return a record per round, the same for either rule of `IterativeCV`.

    `scored`, `kept` (joined S), `dropped` (left S, or the candidates), `selected` (S) and `candidate` count images;
    `corrected` counts those of S that are learned as another class than the given one; `agreement` and `noise_rate` are
    shares of the scored.
    """
    return [
        {
            "round": number,
            "scored": len(r.scored),
            "kept": len(r.kept),
            "dropped": len(r.dropped),
            "selected": int(r.selected.sum()),
            "candidate": int(r.candidate.sum()),
            "corrected": int((r.learned != result.labels)[r.selected].sum()),
            "agreement": round(r.agreement, 4),
            "noise_rate": round(r.noise_rate, 4),
        }
        for number, r in enumerate(result.rounds, start=1)
    ]


def confusions(issues: LabelIssues) -> list[dict[str, Any]]:
    """Return the most frequent pairs given -> suggested among the flagged labels, with their counts."""
    pairs = issues.confusions().head(MOST_CONFUSIONS)
    return [
        {"given": given, "suggested": suggested, "count": int(count)}
        for given, suggested, count in pairs[["given", "suggested", "count"]].itertuples(index=False)
    ]


def trained_on(identity: Mapping[str, Any]) -> str:
    """Return what the models of a run learned from: "images", a "backbone" or its features, or "features" of a file.

    identity: The run's, in run.json.
    """
    if "features_digest" in identity:
        return "features"
    model = str(identity.get("recipe", {}).get("model", ""))
    return "backbone" if "backbone" in identity or model.startswith("backbone:") else "images"


def view_figures(result: CrossValResult, names: Sequence[str]) -> dict[str, Any]:
    """Return what each view contributed, nothing where there is a single one.

    Of each of the `views`: its `name` and `weight`, how many labels are more probably wrong than right by it alone
    (`n_probably_wrong`), and of how many of them all views together say the same (`n_confirmed`). `n_only_together`
    counts labels that are probably wrong by all views together, but by none alone.
    """
    if not result.views:
        return {}
    posteriors = [fit_posterior(result.labels, view.pred_probs) for view in result.views]
    alone = np.stack([(each.wrong > PROBABLY_WRONG) & each.has_signal for each in posteriors])
    of_all = fit_posterior(result.labels, result.pred_probs)
    together = (of_all.wrong > PROBABLY_WRONG) & of_all.has_signal
    views = [
        {
            "name": name,
            "weight": round(view.weight, 4),
            "n_probably_wrong": int(wrong.sum()),
            "n_confirmed": int((wrong & together).sum()),
        }
        for name, view, wrong in zip(names, result.views, alone, strict=True)
    ]
    return {"views": views, "n_only_together": int((together & ~alone.any(axis=0)).sum())}


def summary(issues: LabelIssues, rounds: Sequence[Mapping[str, Any]], n_unreadable: int) -> dict[str, Any]:
    """Return the figures of a run, for people and machines: those of `issues.summary.figures`, and more.

    rounds: as `round_figures`.
    """
    return {
        **figures(issues),
        "noise_rate_round_1": rounds[0]["noise_rate"],
        "confusions": confusions(issues),
        "rounds": [dict(record) for record in rounds],
        "n_unreadable": n_unreadable,
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the short summary that `find-issues` ends with."""
    lines = sentences(summary)
    if "annotators" in summary:
        lines.append(sentence(summary))
    if summary["confusions"]:
        lines.append("Most often:")
        width = max(len(c["given"]) for c in summary["confusions"])
        lines += [
            f"  {c['given']:<{width}} looks like {c['suggested']}  ({c['count']:,})" for c in summary["confusions"]
        ]
    for view in summary.get("views", ()):
        lines.append(
            f"View, {view['name']}: weight {view['weight']:.0%}; alone it finds "
            f"{counted(view['n_probably_wrong'], 'label')} probably wrong, "
            f"{view['n_confirmed']:,} of them confirmed together."
        )
    if "n_only_together" in summary:
        lines.append(f"Found only by the views together: {counted(summary['n_only_together'], 'label')}.")
    return "\n".join(lines)
