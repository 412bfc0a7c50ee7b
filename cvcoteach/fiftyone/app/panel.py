"""The "Label issues" panel: how much is wrong, where, what to look at next, and the buttons to correct it."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app import charts, layout, texts
from cvcoteach.fiftyone.app.chosen_run import blind_share, choose, chosen_run
from cvcoteach.fiftyone.app.forms import dataset_of
from cvcoteach.fiftyone.app.layout import Action
from cvcoteach.fiftyone.app.operators import PANEL, PLUGIN
from cvcoteach.fiftyone.app.panel_views import CHECKS, Views, errors_as_toasts, run_of
from cvcoteach.fiftyone.app.progress import in_words
from cvcoteach.fiftyone.app.reviewing import DOORS, announce, apply_marks, review_and_move_on
from cvcoteach.fiftyone.app.underway import under_way
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import ACCEPTED
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work import blind, browse, bulk, corrections
from cvcoteach.fiftyone.work.edits import catch_up
from cvcoteach.fiftyone.work.figures import headline
from cvcoteach.fiftyone.work.unseen import unseen_in

CARDS = 8
LOOK_AGAIN = 2_000
"""Milliseconds between two looks at a delegated run."""
KEYS = "**a** accept\u2003**k** keep\u2003**e** exclude\u2003**u** undo \u2013 each moves on to the next worst sample."
HELP = f"""
**Accept** gives a sample the suggested label, **Keep** records that the given one is right.

In the grid the buttons apply to the selected samples; **Undo** without a selection takes back the last action.
Click to accept, Alt-click to keep, then **Apply marks**.

In an open sample they apply to that sample only. {KEYS}
Undo takes back its correction or, where it has none, the last correction of a single sample.
"""


class LabelIssuesPanel(Views):
    """Shows the run in the grid, and the open sample in the modal."""

    @property
    def config(self) -> foo.PanelConfig:
        """Name the panel for FiftyOne."""
        return foo.PanelConfig(
            name=PANEL,
            label="Label issues",
            icon="rule",
            surfaces="grid modal",
            category=foo.Categories.CURATE,
            help_markdown=HELP,
        )

    # -- events; after each the panel is rendered again --

    def on_load(self, ctx: Any) -> None:
        """Set how marks look in the grid."""
        if not ctx.current_sample:
            ctx.ops.set_sample_selection_style(default="green-checkmark", alt="thumbsup")

    def on_unload(self, ctx: Any) -> None:
        """Let marks look as they did before."""
        ctx.ops.clear_sample_selection_style()

    def on_change_dataset(self, ctx: Any) -> None:
        """Render again for another dataset."""

    def on_change_current_sample(self, ctx: Any) -> None:
        """Render again for another open sample."""

    def on_change_selected(self, ctx: Any) -> None:
        """Render again for other marks."""

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
        params = {"brain_key": run_of(ctx).key, "ids": _chosen(ctx)}
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
        if ctx.current_sample:
            ctx.params["brain_key"] = key
            review_and_move_on(ctx, "undo", ctx.current_sample)
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
            show = self._modal if ctx.current_sample else self._grid
            show(panel, ctx, results, done)
        except Exception as error:
            panel = types.Object()
            layout.title(panel, "nothing", "No label issues to show")
            layout.paragraph(panel, "why", layout.escaped(in_words(error)))
            self._under_way(panel, ctx)
            if isinstance(error, runs.RenamedFieldError):
                self._new_names(panel, error)
            layout.button(panel, Action("find", "Find label issues", "rule", self.find), variant="contained")
        return types.Property(panel, view=layout.column())

    def _grid(self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews) -> None:
        issues, figures = results.issues, headline(results, done)
        self._run_choice(panel, ctx, results)
        layout.title(panel, "headline", texts.headline(figures))
        self._under_way(panel, ctx)
        if ctx.has_custom_view and unseen_in(ctx.view):
            layout.paragraph(panel, "checking", texts.CHECKING)
        if first := texts.first_of_all(issues, done):
            layout.paragraph(panel, "first", "  \n".join(first))
        layout.figures(panel, "figures", texts.estimates(figures))
        for number, note in enumerate(texts.notes(results, figures)):
            layout.paragraph(panel, f"note_{number}", note)
        self._buttons(panel, ctx)
        layout.paragraph(panel, "reviewed", texts.reviewed(done, results))
        self._queue(panel, ctx, results, done)
        self._more(panel, done)
        self.add_kinds(panel, results)
        layout.heading(panel, "matrix_title", "Given and suggested labels, flagged only" + texts.of_many(issues))
        layout.plot(panel, "matrix", charts.matrix(browse.confused(results), issues.class_names), self.show_cell)
        layout.heading(panel, "quality_title", "Label quality")
        layout.plot(panel, "quality", charts.histogram(*browse.quality_histogram(results)), self.show_quality)
        layout.heading(panel, "classes_title", "Expected share of wrong labels per class" + texts.of_many(issues))
        flagged = np.bincount(issues.labels[issues.is_label_issue], minlength=issues.n_classes)
        noise = charts.class_noise(issues.noise_ratio_per_class, flagged, issues.class_names)
        layout.plot(panel, "classes", noise, self.show_class)
        self.add_annotators(panel, results)

    def _modal(self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews) -> None:
        rows = np.flatnonzero(results.ids == ctx.current_sample.encode())
        unseen = ctx.has_custom_view and ctx.current_sample in unseen_in(ctx.view)
        exclude_first = False
        if len(rows):
            row = int(rows[0])
            exclude_first = not unseen and bool(results.issues.is_stranger[row])
            layout.title(panel, "sample", texts.sample(results, row, blind=unseen))
            layout.figures(panel, "sample_figures", texts.sample_figures(results, done, row, blind=unseen))
            if not unseen:
                told = browse.told_by(ctx.dataset, results, ctx.current_sample)
                if known := texts.known_of(results, row, told):
                    layout.paragraph(panel, "known", "  \n".join(known))
        else:
            layout.title(panel, "sample", "This sample is not part of the run")
        self._buttons(panel, ctx, exclude_first=exclude_first, unseen=unseen)
        layout.paragraph(panel, "keys", texts.CHECKING if unseen else KEYS)
        layout.paragraph(panel, "reviewed", texts.reviewed(done, results))
        for path in _files(ctx.dataset, [ctx.current_sample]).values():
            layout.picture(panel, "picture", layout.media_url(path))

    def _under_way(self, panel: Any, ctx: Any) -> None:
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

    def _buttons(self, panel: Any, ctx: Any, *, exclude_first: bool = False, unseen: bool = False) -> None:
        marks = ctx.selected_samples
        if marks and not ctx.current_sample:
            keep = sum(mark.get("type") == "alt" for mark in marks)
            label = f"Apply marks: accept {len(marks) - keep}, keep {keep}"
            layout.button(panel, Action("apply", label, "done_all", self.apply_marks), variant="contained")
        keys = dict.fromkeys(("accept", "keep", "exclude", "undo"), "")
        if ctx.current_sample:  # the keys work there only
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
        files = _files(ctx.dataset, ids)
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
        layout.paragraph(panel, "blind", "Of these, drawn at random and shown **without our suggestion**:")
        # no dropdown: the App reports the value of one whenever the panel opens, as if it had been chosen
        layout.choices(
            panel, "blind_shares",
            [
                Action(f"share_{number}", f"{one:.0%}" if one else "none", "", self.choose_blind, {"value": one})
                for number, one in enumerate(blind.SHARES)
            ],
            chosen=blind.SHARES.index(share),
        )  # fmt: skip

    def _correct(self, ctx: Any, what: str) -> None:
        key = chosen_run(ctx)
        if ctx.current_sample:
            ctx.params["brain_key"] = key
            review_and_move_on(ctx, what, ctx.current_sample)
            return
        ids = _chosen(ctx)
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


def _chosen(ctx: Any) -> list[str]:
    """Return the open sample or, in the grid, the selected ones: no selection must not mean the whole view."""
    if ctx.current_sample:
        return [ctx.current_sample]
    if not ctx.selected:
        raise InputError("no samples are chosen; select some in the grid, or open one.")
    return list(ctx.selected)


def _files(dataset: Any, ids: list[str]) -> dict[str, str]:
    """Return the images of existing samples by id, thumbnails where the dataset has a field of them."""
    field = dataset.app_config.grid_media_field
    found = dataset.select(ids).values(["id", field])
    return {sample_id: path for sample_id, path in zip(*found, strict=True) if path}
