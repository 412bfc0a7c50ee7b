"""The operator that accepts all suggestions above a probability, and says before how many mistakes to expect."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from cvcoteach._validation import IntArray, check_number
from cvcoteach.fiftyone.app.forms import Form, choose_run, dataset_of, filled
from cvcoteach.fiftyone.app.progress import errors_in_words
from cvcoteach.fiftyone.app.reviewing import announce, ask_before_emptying, check_emptied
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import bulk, corrections

LEAST = 0.95


class AcceptProbable(foo.Operator):
    """Give every sample of the view whose suggestion is probable enough the suggested label."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(
            name="accept_probable", label="Accept probable suggestions", icon="done_all", dynamic=True
        )

    @filled("Accept probable suggestions", submit="Accept")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask for the least probability, and say how many labels that is and how many mistakes to expect."""
        results = choose_run(form, ctx)
        if results is None:
            return
        label = "Least probability that the suggestion is right, 0 to 1"
        form.inputs.float("least_probability", label=label, default=LEAST, min=0, max=1, required=False)
        rows = form.check(lambda: bulk.probable_rows(_where(ctx), results, _least(ctx)))
        if rows is None:
            return
        if len(rows):
            form.note(bulk.in_words(results, rows))
            ids = _ids(results, rows)
            ask_before_emptying(form, ctx, bulk.emptied(ctx.dataset, results, ids, bulk.SUGGESTED))
        else:
            form.refuse("no flagged label in this view that nobody has reviewed has a suggestion so probable.")

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Accept them, and say what was done."""
        dataset = dataset_of(ctx)
        results = runs.load(dataset, ctx.params.get("brain_key"))
        rows = bulk.probable_rows(_where(ctx), results, _least(ctx))
        ids = _ids(results, rows)
        check_emptied(ctx, bulk.emptied(dataset, results, ids, bulk.SUGGESTED))
        done = corrections.accept_suggestions(dataset, ids, results.key, who=ctx.user_id)
        announce(ctx, done)
        return {"message": done.message, "ids": list(done.ids), "left_alone": dict(done.left_alone)}


def _ids(results: runs.FindLabelIssuesResults, rows: IntArray) -> list[str]:
    return [sample_id.decode() for sample_id in results.ids[rows]]


def _where(ctx: Any) -> Any:
    return ctx.view if ctx.has_custom_view else dataset_of(ctx)


def _least(ctx: Any) -> float:
    given = ctx.params.get("least_probability")
    if given is not None:
        check_number("least_probability", given)
    return LEAST if given is None else float(given)
