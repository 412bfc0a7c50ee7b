"""The panel beside the grid: how much is wrong, where, what to look at next, and the buttons to correct it."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np

from cvcoteach.fiftyone.app import charts, layout, texts
from cvcoteach.fiftyone.app.chosen_run import blind_share
from cvcoteach.fiftyone.app.layout import Action
from cvcoteach.fiftyone.app.names import PANEL
from cvcoteach.fiftyone.app.panel_views import CHECKS
from cvcoteach.fiftyone.app.run_panel import KEYS, RunPanel, files_of
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import ACCEPTED
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import blind, browse
from cvcoteach.fiftyone.work.figures import headline
from cvcoteach.fiftyone.work.unseen import unseen_in

CARDS = 8
CHARTS = 800
"""Pixels that the charts take, about."""
HELP = f"""
**Accept** gives a sample the suggested label, **Keep** records that the given one is right.

In the grid the buttons apply to the selected samples; **Undo** without a selection takes back the last action.
Click to accept, Alt-click to keep, then **Apply marks**.

In an open sample they apply to that sample only. {KEYS}
Undo takes back its correction or, where it has none, the last correction of a single sample.
"""


class LabelIssuesPanel(RunPanel):
    """Shows the run beside the grid.

    It does not follow the open sample, which covers it: the next one would open later for it, at every key.
    """

    @property
    def config(self) -> foo.PanelConfig:
        """Name the panel for FiftyOne."""
        return foo.PanelConfig(
            name=PANEL,
            label="Label issues",
            icon="rule",
            surfaces="grid",
            category=foo.Categories.CURATE,
            help_markdown=HELP,
        )

    # -- events; after each the panel is rendered again --

    def on_load(self, ctx: Any) -> None:
        """Set how marks look in the grid."""
        ctx.ops.set_sample_selection_style(default="green-checkmark", alt="thumbsup")

    def on_unload(self, ctx: Any) -> None:
        """Let marks look as they did before."""
        ctx.ops.clear_sample_selection_style()

    def on_change_dataset(self, ctx: Any) -> None:
        """Render again for another dataset."""

    def on_change_selected(self, ctx: Any) -> None:
        """Render again for other marks."""

    # -- rendering --

    def show(self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews) -> None:
        """Add the figures and the buttons; the queue once these are drawn, the charts once they are scrolled to."""
        issues, figures = results.issues, headline(results, done)
        self._run_choice(panel, ctx, results)
        layout.title(panel, "headline", texts.headline(figures))
        self.add_under_way(panel, ctx)
        if ctx.has_custom_view and unseen_in(ctx.view):
            layout.paragraph(panel, "checking", texts.CHECKING)
        if first := texts.first_of_all(issues, done):
            layout.paragraph(panel, "first", "  \n".join(first))
        layout.figures(panel, "figures", texts.estimates(figures))
        for number, note in enumerate(texts.notes(results, figures)):
            layout.paragraph(panel, f"note_{number}", note)
        self.add_buttons(panel, ctx)
        layout.paragraph(panel, "reviewed", texts.reviewed(done, results))
        rest = layout.later(panel, "rest")
        self._queue(rest, ctx, results, done)
        self._more(rest, done)
        self.add_kinds(rest, results)
        self._charts(layout.later(rest, "charts", height=CHARTS), results)

    def _charts(self, panel: Any, results: FindLabelIssuesResults) -> None:
        """Add the charts, which take the page as long to draw as all the rest."""
        issues = results.issues
        layout.heading(panel, "matrix_title", "Given and suggested labels, flagged only" + texts.of_many(issues))
        layout.plot(panel, "matrix", charts.matrix(browse.confused(results), issues.class_names), self.show_cell)
        layout.heading(panel, "quality_title", "Label quality")
        layout.plot(panel, "quality", charts.histogram(*browse.quality_histogram(results)), self.show_quality)
        layout.heading(panel, "classes_title", "Expected share of wrong labels per class" + texts.of_many(issues))
        flagged = np.bincount(issues.labels[issues.is_label_issue], minlength=issues.n_classes)
        noise = charts.class_noise(issues.noise_ratio_per_class, flagged, issues.class_names)
        layout.plot(panel, "classes", noise, self.show_class)
        self.add_annotators(panel, results)

    def _more(self, panel: Any, done: browse.Reviews) -> None:
        """Add what is done to many at once, and the other operators."""
        n = done.counts[ACCEPTED]
        second = [Action("second", f"See {n:,} accepted", "visibility", self.show_accepted)] if n else []
        layout.buttons(
            panel,
            "many",
            (
                Action("probable", "Accept above\u2026", "done_all", self.accept_probable),
                Action("filter", "Filter\u2026", "filter_alt", self.filter),
                *second,
            ),
        )
        layout.buttons(
            panel, "operators",
            (
                Action("find", "Find", "rule", self.find),
                Action("retrain", "Retrain", "model_training", self.retrain),
                Action("export", "Export", "output", self.export),
                Action("report", "Report", "summarize", self.report),
            ),
        )  # fmt: skip

    def _run_choice(self, panel: Any, ctx: Any, results: FindLabelIssuesResults) -> None:
        keys = runs.keys(ctx.dataset)
        if len(keys) > 1:
            view = types.DropdownView()
            for key in keys:
                view.add_choice(key, label=key)
            panel.enum("brain_key", keys, label="Run", default=results.key, view=view, on_change=self.choose_run)

    def _queue(self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews) -> None:
        share = blind_share(ctx)
        queue = blind.queue(results, done, share)
        rows = queue.rows[:CARDS]
        if not len(rows):
            layout.heading(panel, "queue_title", "Every flagged label is reviewed")
            return
        layout.heading(panel, "queue_title", "Next to review, worst first")
        unseen = set(queue.unseen.tolist())
        ids = [sample_id.decode() for sample_id in results.ids[rows]]
        files = files_of(ctx.dataset, ids)
        shown = []
        for row, sample_id in zip(rows, ids, strict=True):
            if sample_id in files:  # it may have been deleted since
                given, suggested = texts.card(results, int(row), blind=int(row) in unseen)
                params = {"sample_id": sample_id}
                shown.append(layout.Card(layout.media_url(files[sample_id]), given, suggested, params))
        layout.cards(panel, "queue", shown, self.open_card)
        layout.buttons(
            panel, "shown",
            (
                Action("left", f"Show all {len(queue.rows):,} in the grid", "grid_view", self.show_left),
                Action("checks", f"Check {CHECKS} at random", "casino", self.show_checks),
            ),
        )  # fmt: skip
        layout.paragraph(panel, "blind", "Random checks among them, shown **without our suggestion**:")
        # no dropdown: the App reports the value of one whenever the panel opens, as if it had been chosen
        layout.choices(
            panel, "blind_shares",
            [
                Action(f"share_{number}", f"{one:.0%}" if one else "none", "", self.choose_blind, {"value": one})
                for number, one in enumerate(blind.SHARES)
            ],
            chosen=blind.SHARES.index(share),
        )  # fmt: skip
