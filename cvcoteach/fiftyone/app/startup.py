"""What the App does when a page is opened: it gets the newest run ready, so that the panel opens as fast as later."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from cvcoteach.fiftyone.app import texts
from cvcoteach.fiftyone.app.chosen_run import chosen_run
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.figures import headline


class GetLabelIssuesReady(foo.Operator):
    """Read the run at hand and its reviews, and compute what the panel shows at once; the process keeps both."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(
            name="get_label_issues_ready", label="Get label issues ready", unlisted=True, on_startup=True
        )

    def execute(self, ctx: Any) -> None:
        """Do nothing where there is no dataset or no run, or where it is stale: the panel says so."""
        try:
            if ctx.dataset_name and (key := chosen_run(ctx)) is not None:
                results = runs.load(ctx.dataset, key)
                done = browse.reviews(ctx.dataset, results)
                texts.headline(headline(results, done))
                browse.queue(results, done)
        except Exception:  # nobody has asked for it: the panel will say what is wrong
            return
