"""What the panel shows in the grid: queue, random checks, cells, bars, flags, second looks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import fiftyone.operators as foo

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app import texts
from cvcoteach.fiftyone.app.chosen_run import chosen_run
from cvcoteach.fiftyone.app.progress import in_words
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.figures import spot_checks

CHECKS = 20

_Self = TypeVar("_Self", bound="Views")


def errors_as_toasts(method: Callable[[_Self, Any], None]) -> Callable[[_Self, Any], None]:
    """Turn any error into a toast: nobody sees the exception of a button."""

    @wraps(method)
    def wrapped(self: _Self, ctx: Any) -> None:
        try:
            method(self, ctx)
        except Exception as error:
            ctx.ops.notify(in_words(error), variant="error")

    return wrapped


def run_of(ctx: Any) -> FindLabelIssuesResults:
    """Return the run at hand. Raises InputError where there is none."""
    key = chosen_run(ctx)  # looks for the dataset first
    return runs.load(ctx.dataset, key)


class Views(foo.Panel):
    """The clicks that choose what the grid shows."""

    @errors_as_toasts
    def open_card(self, ctx: Any) -> None:
        """Open a sample of the queue, in a view that has it: the App opens no sample outside its view."""
        sample_id = ctx.params["sample_id"]
        if ctx.has_custom_view and not len(ctx.view.select(sample_id)):
            results = run_of(ctx)
            ctx.ops.set_view(browse.left(results, browse.reviews(ctx.dataset, results)))
        ctx.ops.open_sample(id=sample_id)

    @errors_as_toasts
    def show_left(self, ctx: Any) -> None:
        """Show the work queue in the grid."""
        results = run_of(ctx)
        ctx.ops.set_view(browse.left(results, browse.reviews(ctx.dataset, results)))

    @errors_as_toasts
    def show_accepted(self, ctx: Any) -> None:
        """Show what was accepted, the least probable suggestion first."""
        results = run_of(ctx)
        rows = browse.accepted(results, browse.reviews(ctx.dataset, results))
        if not len(rows):
            raise InputError("no suggestion has been accepted yet.")
        ctx.ops.set_view(browse.select(results, rows))

    @errors_as_toasts
    def show_checks(self, ctx: Any) -> None:
        """Show the next samples to check at random, flagged or not, without our suggestion, and say what to do."""
        results = run_of(ctx)
        checks = spot_checks(results.issues)
        if checks is None:
            raise InputError("no label is flagged, so there is nothing to check.")
        done = browse.reviews(ctx.dataset, results).reviewed
        due = checks.indices[~done[checks.indices]][:CHECKS]
        if not len(due):
            raise InputError("all random checks are done.")
        ctx.ops.set_view(browse.checks(results, due))
        ctx.ops.notify(texts.CHECKING.replace("**", ""), variant="info")

    @errors_as_toasts
    def show_cell(self, ctx: Any) -> None:
        """Show the samples of a cell of the matrix."""
        ctx.ops.set_view(browse.cell(run_of(ctx), str(ctx.params["y"]), str(ctx.params["x"])))

    @errors_as_toasts
    def show_quality(self, ctx: Any) -> None:
        """Show the samples of a bar of the histogram."""
        number = min(int(float(ctx.params["x"]) * browse.QUALITY_BINS), browse.QUALITY_BINS - 1)
        ctx.ops.set_view(browse.quality_bin(run_of(ctx), number))

    @errors_as_toasts
    def show_class(self, ctx: Any) -> None:
        """Show the flagged samples of a class."""
        ctx.ops.set_view(browse.given_class(run_of(ctx), str(ctx.params["y"])))

    @errors_as_toasts
    def show_flag(self, ctx: Any) -> None:
        """Show the samples with a flag that the run added to its five fields."""
        results = run_of(ctx)
        fields = browse.more_fields(ctx.dataset, results)
        ctx.ops.set_view(browse.with_flag(results, fields[str(ctx.params["name"])]))
