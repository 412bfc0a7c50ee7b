"""The panel beside an open sample: what the run says of it, and the buttons to correct it."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from cvcoteach.fiftyone.app import layout, texts
from cvcoteach.fiftyone.app.names import PLUGIN, SAMPLE_PANEL
from cvcoteach.fiftyone.app.panel import HELP
from cvcoteach.fiftyone.app.panel_views import errors_as_toasts, run_of
from cvcoteach.fiftyone.app.run_panel import KEYS, RunPanel, files_of
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.unseen import unseen_in


class SamplePanel(RunPanel):
    """Shows the open sample."""

    @property
    def config(self) -> foo.PanelConfig:
        """Name the panel for FiftyOne."""
        return foo.PanelConfig(
            name=SAMPLE_PANEL,
            label="Label issues",
            icon="rule",
            surfaces="modal",
            category=foo.Categories.CURATE,
            help_markdown=HELP,
        )

    def on_change_current_sample(self, ctx: Any) -> None:
        """Render again for another open sample."""

    @errors_as_toasts
    def set_label(self, ctx: Any) -> None:
        """Ask for the label, then open the next sample, as after a key."""
        params = {"brain_key": run_of(ctx).key, "ids": self.chosen(ctx)}
        ctx.prompt(f"{PLUGIN}/set_label", params=params, on_success=self.move_on)

    @errors_as_toasts
    def move_on(self, ctx: Any) -> None:
        """Open the next sample to review; the same stays open where there is none."""
        results, view = run_of(ctx), ctx.view if ctx.has_custom_view else None
        done = browse.reviews(ctx.dataset, results)
        if following := browse.following(results, done, self.sample(ctx), view):
            ctx.ops.open_sample(id=following)

    def sample(self, ctx: Any) -> str | None:
        """Return the open sample."""
        sample_id: str | None = ctx.current_sample
        return sample_id

    def show(self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews) -> None:
        """Add what is known of the open sample, the buttons and the picture; nothing where none is open."""
        if ctx.current_sample is None:
            return
        row = int(results.rows([ctx.current_sample])[0])
        unseen = ctx.has_custom_view and ctx.current_sample in unseen_in(ctx.view)
        exclude_first = False
        if row >= 0:
            exclude_first = not unseen and bool(results.issues.is_stranger[row])
            layout.title(panel, "sample", texts.sample(results, row, blind=unseen))
            layout.figures(panel, "sample_figures", texts.sample_figures(results, done, row, blind=unseen))
            if not unseen:
                told = browse.told_by(ctx.dataset, results, ctx.current_sample)
                if known := texts.known_of(results, row, told):
                    layout.paragraph(panel, "known", "  \n".join(known))
        else:
            layout.title(panel, "sample", "This sample is not part of the run")
        self.add_buttons(panel, ctx, exclude_first=exclude_first, unseen=unseen)
        layout.paragraph(panel, "keys", texts.CHECKING if unseen else KEYS)
        layout.paragraph(panel, "reviewed", texts.reviewed(done, results))
        for path in files_of(ctx.dataset, [ctx.current_sample]).values():
            layout.picture(panel, "picture", layout.media_url(path))
