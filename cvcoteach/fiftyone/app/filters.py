"""The operator behind the panel's filter: what is left to review of a pair of classes, or of an annotator's labels."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.forms import Form, choose_run, dataset_of, filled
from cvcoteach.fiftyone.app.progress import errors_in_words
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse

PAIR = "\0"
"""Between the two classes of a pair, in the value of a dropdown."""


class FilterLabelIssues(foo.Operator):
    """Show what is left to review of a pair of classes, or of an annotator."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(name="filter_label_issues", label="Filter", icon="filter_alt", unlisted=True)

    @filled("Show what is left to review", submit="Show")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask for the pair or the annotator; how many labels that is stands beside each."""
        results = choose_run(form, ctx)
        if results is None:
            return
        pairs = {
            f"{given}{PAIR}{suggested}": f"{given} \u2192 {suggested} ({n:,})"
            for given, suggested, n in browse.pairs(results, browse.reviews(ctx.dataset, results))
        }
        _, counts = browse.annotators(ctx.dataset, results)
        if not pairs:
            form.refuse("every flagged label is reviewed.")
            return
        form.choice("pair", pairs, "Given \u2192 suggested class")
        if counts:
            form.choice("annotator", {name: f"{name} ({n:,})" for name, n in counts.items()}, "Annotator")

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Show them in the grid, worst first."""
        dataset = dataset_of(ctx)
        results = runs.load(dataset, ctx.params.get("brain_key"))
        done = browse.reviews(dataset, results)
        pair, annotator = ctx.params.get("pair"), ctx.params.get("annotator")
        if not pair and not annotator:
            raise InputError("nothing is chosen; choose a pair of classes or an annotator.")
        rows = browse.of_pair(results, done, *pair.split(PAIR)) if pair else done.left(results)
        if annotator:
            rows = rows & browse.of_annotator(dataset, results, annotator)
        view = browse.worst_first(results, rows)
        ctx.ops.set_view(view)
        return {"n": len(view)}
