"""What the panel shows in the grid: queue, random checks, cells, bars, flags, second looks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import fiftyone.operators as foo
import numpy as np

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app import charts, layout, texts
from cvcoteach.fiftyone.app.chosen_run import blind_share, choose_blind_share, chosen_run
from cvcoteach.fiftyone.app.layout import Action
from cvcoteach.fiftyone.app.progress import in_words
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import blind, browse
from cvcoteach.fiftyone.work.figures import spot_checks
from cvcoteach.fiftyone.work.kinds import kind_of, kinds

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
        elsewhere = ctx.has_custom_view and not len(ctx.view.select(sample_id))
        if elsewhere or (blind_share(ctx) and not ctx.has_custom_view):
            self._show_queue(ctx)
        ctx.ops.open_sample(id=sample_id)

    @errors_as_toasts
    def show_left(self, ctx: Any) -> None:
        """Show the work queue in the grid."""
        self._show_queue(ctx)

    @errors_as_toasts
    def choose_blind(self, ctx: Any) -> None:
        """Choose which share of the queue is shown without our suggestion; a queue in the grid follows."""
        choose_blind_share(ctx, float(ctx.params["value"]))
        if ctx.has_custom_view:
            self._show_queue(ctx)

    def _show_queue(self, ctx: Any) -> None:
        results, share = run_of(ctx), blind_share(ctx)
        done = browse.reviews(ctx.dataset, results)
        ctx.ops.set_view(blind.view(results, blind.queue(results, done, share)))

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
        if spot_checks(results.issues) is None:
            raise InputError("no label is flagged, so there is nothing to check.")
        due = blind.due(results, browse.reviews(ctx.dataset, results))[:CHECKS]
        if not len(due):
            raise InputError("all random checks are done.")
        ctx.ops.set_view(blind.view(results, blind.Queue(due, due)))
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
    def show_kind(self, ctx: Any) -> None:
        """Show the samples of a kind, such as contradictions."""
        results = run_of(ctx)
        ctx.ops.set_view(browse.worst_first(results, kind_of(results.issues, str(ctx.params["kind"])).rows))

    @errors_as_toasts
    def show_annotator(self, ctx: Any) -> None:
        """Show what is left to review of an annotator."""
        results = run_of(ctx)
        rows = browse.of_annotator(ctx.dataset, results, str(ctx.params["y"]))
        left = browse.reviews(ctx.dataset, results).left(results)
        ctx.ops.set_view(browse.worst_first(results, rows & left))

    # -- what these clicks are on --

    def add_kinds(self, panel: Any, results: FindLabelIssuesResults) -> None:
        """Add a button for each kind of samples that there are some of."""
        found = kinds(results.issues)
        if not found:
            return
        layout.heading(panel, "kinds_title", "Also found")
        layout.buttons(
            panel,
            "kinds",
            [
                Action(
                    f"kind_{kind.name}", f"{kind.title} ({kind.n:,})", "filter_alt", self.show_kind, {"kind": kind.name}
                )
                for kind in found
            ],
            columns=2,
        )

    def add_annotators(self, panel: Any, results: FindLabelIssuesResults) -> None:
        """Add what is known of the annotators, where the labels say who gave them."""
        known = results.info.get("annotators") or []
        if not known:
            return
        issues = results.issues
        if issues.n_annotators is not None or not issues.has_signal:
            layout.heading(panel, "annotators_title", "Annotators")
            layout.paragraph(panel, "annotators", texts.annotators(known))
            return
        layout.heading(panel, "annotators_title", "Expected share of wrong labels per annotator")
        names = tuple(str(one["annotator"]) for one in known)
        wrong, flagged = (np.array([one[name] for one in known]) for name in ("quality", "n_flagged"))
        layout.plot(panel, "annotators", charts.class_noise(1 - wrong, flagged, names), self.show_annotator)
