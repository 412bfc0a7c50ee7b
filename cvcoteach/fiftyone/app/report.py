"""The operator that writes a run's report."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from cvcoteach.fiftyone.app.forms import Form, choose_run, dataset_of, filled
from cvcoteach.fiftyone.app.progress import errors_in_words
from cvcoteach.fiftyone.work.report import check_file, write_report


class ReportLabelIssues(foo.Operator):
    """Write one page with everything that was found, to send and to review in any browser."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(
            name="report_label_issues",
            label="Report label issues",
            description="One page with the doubtful images, confusions and noise per class",
            icon="summarize",
            dynamic=True,
        )

    @filled("Report label issues", submit="Write")
    def resolve_input(self, form: Form, ctx: Any) -> None:
        """Ask for the run and the file."""
        dataset_of(ctx)
        if choose_run(form, ctx) is None:
            return
        form.inputs.str("to", label="New .html file", required=True)
        if to := ctx.params.get("to"):
            form.check(lambda: check_file(to))

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Write the page, and say where it is."""
        file = write_report(dataset_of(ctx), ctx.params.get("to") or "", ctx.params.get("brain_key"))
        message = f"The report is in {file}."
        ctx.ops.notify(message, variant="success")
        return {"message": message, "file": str(file)}
