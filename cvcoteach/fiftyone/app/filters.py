"""The operator behind the panel's filter: what is left to review of a pair of classes, an annotator, a kind, …"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone.operators as foo

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.forms import Form, choose_run, dataset_of, filled
from cvcoteach.fiftyone.app.progress import errors_in_words
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.kinds import kind_of, kinds

PAIR = "\0"
"""Between the two classes of a pair, in the value of a dropdown."""


CHOICES = ("kind", "pair", "annotator", "group", "split")


class FilterLabelIssues(foo.Operator):
    """Show what is left to review of a pair of classes, an annotator, a group, a split, or of a kind."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(name="filter_label_issues", label="Filter", icon="filter_alt", unlisted=True)

    @filled("Show what is left to review", submit="Show")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask for what there is to choose from; how many labels that is stands beside each."""
        results = choose_run(form, ctx)
        if results is None:
            return
        done = browse.reviews(ctx.dataset, results)
        pairs = {
            f"{given}{PAIR}{suggested}": f"{given} \u2192 {suggested} ({n:,})"
            for given, suggested, n in browse.pairs(results, done)
        }
        left = {kind.name: (kind.title, int(done.open(kind.rows).sum())) for kind in kinds(results.issues)}
        some = {name: f"{title} ({n:,})" for name, (title, n) in left.items() if n}
        if not pairs and not some:
            form.refuse("every flagged label is reviewed.")
            return
        group, in_groups = browse.groups(ctx.dataset, results)
        for name, choices, label in (
            ("kind", some, "Kind, flagged or not"),
            ("pair", pairs, "Given \u2192 suggested class"),
            ("annotator", _counted(browse.annotators(ctx.dataset, results)[1]), "Annotator"),
            ("group", _counted(in_groups), f"Group ({group})"),
            ("split", _counted(browse.splits(results, done)), "Split"),
        ):
            if choices:
                form.choice(name, choices, label)

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Show them in the grid, worst first."""
        dataset = dataset_of(ctx)
        results = runs.load(dataset, ctx.params.get("brain_key"))
        done = browse.reviews(dataset, results)
        chosen = {name: str(value) for name in CHOICES if (value := ctx.params.get(name))}
        if not chosen:
            raise InputError(f"nothing is chosen; choose one of {', '.join(CHOICES)}.")
        rows = done.open(kind_of(results.issues, chosen["kind"]).rows) if "kind" in chosen else done.left(results)
        if "pair" in chosen:
            rows = rows & browse.of_pair(results, done, *chosen["pair"].split(PAIR))
        if "annotator" in chosen:
            rows = rows & browse.of_annotator(dataset, results, chosen["annotator"])
        if "group" in chosen:
            rows = rows & browse.of_group(dataset, results, chosen["group"])
        if "split" in chosen:
            rows = rows & browse.of_split(results, chosen["split"])
        view = browse.worst_first(results, rows)
        ctx.ops.set_view(view)
        return {"n": len(view)}


def _counted(counts: Mapping[str, int]) -> dict[str, str]:
    """Return choices with how many labels are left of each."""
    return {name: f"{name} ({n:,})" for name, n in counts.items()}
