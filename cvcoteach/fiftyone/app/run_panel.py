"""What both panels do, beside the grid and beside an open sample: the run at hand, and the buttons to correct it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import fiftyone.operators.types as types

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app import layout
from cvcoteach.fiftyone.app.chosen_run import choose, chosen_run
from cvcoteach.fiftyone.app.forms import dataset_of
from cvcoteach.fiftyone.app.keys import review_and_move_on
from cvcoteach.fiftyone.app.layout import Action
from cvcoteach.fiftyone.app.names import PLUGIN
from cvcoteach.fiftyone.app.panel_views import Views, errors_as_toasts, run_of
from cvcoteach.fiftyone.app.progress import in_words
from cvcoteach.fiftyone.app.reviewing import DOORS, announce, apply_marks
from cvcoteach.fiftyone.app.underway import under_way
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import browse, bulk, corrections
from cvcoteach.fiftyone.work.edits import catch_up

LOOK_AGAIN = 2_000
"""Milliseconds between two looks at a delegated run."""
KEYS = "**a** accept\u2003**k** keep\u2003**e** exclude\u2003**u** undo \u2013 each moves on to the next worst sample."


class RunPanel(Views, ABC):
    """A panel about a run; what it shows of it is up to `show`."""

    @abstractmethod
    def show(self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews) -> None:
        """Add what there is to see."""

    def sample(self, ctx: Any) -> str | None:
        """Return the open sample, which the buttons are about; None for those selected in the grid."""
        return None

    def execute(self, ctx: Any) -> Any:
        """Let an event happen and render the panel; one that is closed is not rendered again."""
        if ctx.params.get("__method__") == "on_unload":
            self.on_unload(ctx)
            return None
        return super().execute(ctx)

    def on_unload(self, ctx: Any) -> None:
        """Tidy up."""

    # -- events; after each the panel is rendered again --

    def refresh(self, ctx: Any) -> None:
        """Render again."""

    @errors_as_toasts
    def choose_run(self, ctx: Any) -> None:
        """Work on another run."""
        choose(ctx, str(ctx.params["value"]))

    @errors_as_toasts
    def accept(self, ctx: Any) -> None:
        """Accept the chosen samples."""
        self._correct(ctx, "accept")

    @errors_as_toasts
    def keep(self, ctx: Any) -> None:
        """Keep the chosen samples' labels."""
        self._correct(ctx, "keep")

    @errors_as_toasts
    def exclude(self, ctx: Any) -> None:
        """Exclude the chosen samples."""
        self._correct(ctx, "exclude")

    @errors_as_toasts
    def set_label(self, ctx: Any) -> None:
        """Ask for the label."""
        params = {"brain_key": run_of(ctx).key, "ids": self.chosen(ctx)}
        ctx.prompt(f"{PLUGIN}/set_label", params=params, on_success=self.refresh)

    @errors_as_toasts
    def accept_probable(self, ctx: Any) -> None:
        """Ask from which probability on, and say how many mistakes to expect."""
        self._prompt(ctx, "accept_probable")

    @errors_as_toasts
    def filter(self, ctx: Any) -> None:
        """Ask for a pair of classes or an annotator."""
        self._prompt(ctx, "filter_label_issues")

    @errors_as_toasts
    def find(self, ctx: Any) -> None:
        """Ask what to check."""
        ctx.prompt(f"{PLUGIN}/find_label_issues", on_success=self.refresh)

    @errors_as_toasts
    def retrain(self, ctx: Any) -> None:
        """Ask how to retrain."""
        self._prompt(ctx, "retrain_coteaching")

    @errors_as_toasts
    def export(self, ctx: Any) -> None:
        """Ask where to."""
        self._prompt(ctx, "export_corrected")

    @errors_as_toasts
    def report(self, ctx: Any) -> None:
        """Ask for the file."""
        self._prompt(ctx, "report_label_issues")

    def _prompt(self, ctx: Any, name: str) -> None:
        """Open an operator's form, about the run at hand."""
        ctx.prompt(f"{PLUGIN}/{name}", params={"brain_key": run_of(ctx).key}, on_success=self.refresh)

    @errors_as_toasts
    def undo(self, ctx: Any) -> None:
        """Undo the last correction of the selected samples, else the last action; of the open sample in the modal."""
        key = chosen_run(ctx)
        if self.sample(ctx):
            ctx.params["brain_key"] = key
            review_and_move_on(ctx, "undo", self.sample(ctx))
            return
        announce(ctx, corrections.undo_corrections(ctx.dataset, ctx.selected or None, key, who=ctx.user_id))
        ctx.ops.clear_selected_samples()

    @errors_as_toasts
    def apply_marks(self, ctx: Any) -> None:
        """Accept what was clicked, keep what was Alt-clicked."""
        ctx.params["brain_key"] = chosen_run(ctx)
        apply_marks(ctx)

    @errors_as_toasts
    def follow_field(self, ctx: Any) -> None:
        """Go on with the new name of a label field."""
        runs.follow_label_field(dataset_of(ctx), str(ctx.params["key"]), str(ctx.params["label_field"]))

    # -- rendering --

    def render(self, ctx: Any) -> types.Property:
        """Return the panel as it is now, or why there is nothing to show."""
        panel = types.Object()
        try:
            results = run_of(ctx)
            catch_up(ctx.dataset, results)
            done = browse.reviews(ctx.dataset, results)
            self.show(panel, ctx, results, done)
        except Exception as error:
            panel = types.Object()
            layout.title(panel, "nothing", "No label issues to show")
            layout.paragraph(panel, "why", layout.escaped(in_words(error)))
            self.add_under_way(panel, ctx)
            if isinstance(error, runs.RenamedFieldError):
                self._new_names(panel, error)
            layout.button(panel, Action("find", "Find label issues", "rule", self.find), variant="contained")
        return types.Property(panel, view=layout.column())

    def add_under_way(self, panel: Any, ctx: Any) -> None:
        """Show the delegated runs of the dataset that have not ended, and look again in a moment."""
        sentences = under_way(ctx)
        for number, sentence in enumerate(sentences):
            layout.paragraph(panel, f"under_way_{number}", sentence)
        if sentences:
            layout.timer(panel, "again", LOOK_AGAIN, self.refresh)

    def _new_names(self, panel: Any, error: runs.RenamedFieldError) -> None:
        """Offer to go on with another label field."""
        for name in error.candidates:
            go_on = Action(f"follow_{name}", f"Go on with {name}", "drive_file_rename_outline", self.follow_field)
            layout.button(panel, go_on, variant="contained", params={"key": error.key, "label_field": name})

    def add_buttons(self, panel: Any, ctx: Any, *, exclude_first: bool = False, unseen: bool = False) -> None:
        marks = ctx.selected_samples
        if marks and not self.sample(ctx):
            keep = sum(mark.get("type") == "alt" for mark in marks)
            label = f"Apply marks: accept {len(marks) - keep}, keep {keep}"
            layout.button(panel, Action("apply", label, "done_all", self.apply_marks), variant="contained")
        keys = dict.fromkeys(("accept", "keep", "exclude", "undo"), "")
        if self.sample(ctx):  # the keys work there only
            keys = {name: f" ({name[0]})" for name in keys}
        shown = [
            Action("accept", f"Accept{keys['accept']}", "check", self.accept),
            Action("keep", f"Keep{keys['keep']}", "thumb_up", self.keep),
            Action("set", "Set\u2026", "edit", self.set_label),
            Action("exclude", f"Exclude{keys['exclude']}", "block", self.exclude),
            Action("undo", f"Undo{keys['undo']}", "undo", self.undo),
        ]
        if exclude_first:
            shown.insert(0, shown.pop(3))
        if unseen:  # there is no suggestion to accept
            shown = [action for action in shown if action.name != "accept"]
        layout.buttons(panel, "buttons", shown)

    def chosen(self, ctx: Any) -> list[str]:
        """Return the open sample or, in the grid, the selected ones: no selection must not mean the whole view."""
        if sample_id := self.sample(ctx):
            return [sample_id]
        if not ctx.selected:
            raise InputError("no samples are chosen; select some in the grid, or open one.")
        return list(ctx.selected)

    def _correct(self, ctx: Any, what: str) -> None:
        key = chosen_run(ctx)
        if self.sample(ctx):
            ctx.params["brain_key"] = key
            review_and_move_on(ctx, what, self.sample(ctx))
            return
        ids = self.chosen(ctx)
        to_keep = [mark for mark in ctx.selected_samples if mark.get("type") == "alt"] if what == "accept" else []
        if to_keep:
            alt = {mark["id"] for mark in to_keep}
            ids = [sample_id for sample_id in ids if sample_id not in alt]
            if not ids:
                raise InputError("every selected sample is Alt-clicked, to be kept; click those to accept.")
        becomes = {"accept": bulk.SUGGESTED, "exclude": None}.get(what, bulk.AS_IT_IS)
        if bulk.emptied(ctx.dataset, runs.load(ctx.dataset, key), ids, becomes):
            name = {"accept": "accept_suggestions", "exclude": "exclude_samples"}[what]  # their forms ask
            ctx.prompt(f"{PLUGIN}/{name}", params={"brain_key": key, "ids": ids}, on_success=self.refresh)
            return
        announce(ctx, DOORS[what](ctx.dataset, ids, key, who=ctx.user_id))
        ctx.ops.set_selected_samples(to_keep) if to_keep else ctx.ops.clear_selected_samples()


def files_of(dataset: Any, ids: list[str]) -> dict[str, str]:
    """Return the images of existing samples by id, thumbnails where the dataset has a field of them."""
    field = dataset.app_config.grid_media_field
    found = dataset.select(ids).values(["id", field])
    return {sample_id: path for sample_id, path in zip(*found, strict=True) if path}
