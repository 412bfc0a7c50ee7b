"""The "Label issues" panel: how much is wrong, where, what to look at next, and the buttons to correct it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import quote

import fiftyone.operators as foo
import fiftyone.operators.types as types
import numpy as np

from cvcoteach._checks import InputError
from cvcoteach.fiftyone import browse, charts, corrections, runs
from cvcoteach.fiftyone.figures import LEAST_CHECKS, Headline, headline, spot_checks
from cvcoteach.fiftyone.operators import PANEL, PLUGIN
from cvcoteach.fiftyone.reviewing import apply_marks, chosen, told
from cvcoteach.fiftyone.runs import FindLabelIssuesResults
from cvcoteach.readout import Readout

CARDS = 8
CHECKS = 20
HELP = """
**Accept** gives a sample the suggested label, **Keep** records that the given one is right. Without a selection the
buttons are about the open sample.

In the grid: click = accept, Alt-click = keep, then **Apply marks**.
In the modal: **a** accept, **k** keep, **x** exclude, **u** undo; each moves on to the next worst sample.
"""

_Self = TypeVar("_Self", bound="LabelIssuesPanel")


def _telling(method: Callable[[_Self, Any], None]) -> Callable[[_Self, Any], None]:
    """What does not fit becomes a toast."""

    @wraps(method)
    def wrapped(self: _Self, ctx: Any) -> None:
        try:
            method(self, ctx)
        except InputError as error:
            ctx.ops.notify(str(error), variant="error")

    return wrapped


class LabelIssuesPanel(foo.Panel):
    """In the grid the whole picture, in the modal the open sample."""

    @property
    def config(self) -> foo.PanelConfig:
        """As FiftyOne lists it."""
        return foo.PanelConfig(
            name=PANEL,
            label="Label issues",
            icon="rule",
            surfaces="grid modal",
            category=foo.Categories.CURATE,
            help_markdown=HELP,
        )

    # -- events; after each the panel is rendered anew --

    def on_load(self, ctx: Any) -> None:
        """The marks of the grid get their looks."""
        if not ctx.current_sample:
            ctx.ops.set_sample_selection_style(default="green-checkmark", alt="thumbsup")

    def on_unload(self, ctx: Any) -> None:
        """As they were."""
        ctx.ops.clear_sample_selection_style()

    def on_change_dataset(self, ctx: Any) -> None:
        """Another dataset."""

    def on_change_current_sample(self, ctx: Any) -> None:
        """Another sample is open."""

    def on_change_selected(self, ctx: Any) -> None:
        """Other samples are marked."""

    def refresh(self, ctx: Any) -> None:
        """Look again."""

    def choose_run(self, ctx: Any) -> None:
        """Another run."""
        ctx.panel.set_state("brain_key", ctx.params.get("value"))

    @_telling
    def accept(self, ctx: Any) -> None:
        """Accept the chosen samples."""
        self._correct(ctx, corrections.accept_suggestions)

    @_telling
    def keep(self, ctx: Any) -> None:
        """Keep the chosen samples' labels."""
        self._correct(ctx, corrections.keep_labels)

    @_telling
    def exclude(self, ctx: Any) -> None:
        """Exclude the chosen samples."""
        self._correct(ctx, corrections.exclude_samples)

    @_telling
    def set_label(self, ctx: Any) -> None:
        """Ask for the label."""
        key = self._key(ctx)
        params = {"brain_key": key, "ids": self._chosen(ctx, runs.load(ctx.dataset, key))}
        ctx.prompt(f"{PLUGIN}/set_label", params=params, on_success=self.refresh)

    @_telling
    def undo(self, ctx: Any) -> None:
        """Take back the last action."""
        told(ctx, corrections.undo_corrections(ctx.dataset, None, self._key(ctx), who=ctx.user_id))

    @_telling
    def apply_marks(self, ctx: Any) -> None:
        """Accept what was clicked, keep what was Alt-clicked."""
        ctx.params["brain_key"] = self._key(ctx)
        apply_marks(ctx)

    @_telling
    def open_card(self, ctx: Any) -> None:
        """Open a sample of the queue; the App opens none outside its view."""
        sample_id = ctx.params["sample_id"]
        if ctx.has_custom_view and not len(ctx.view.select(sample_id)):
            results = runs.load(ctx.dataset, self._key(ctx))
            ctx.ops.set_view(browse.left(results, browse.reviews(ctx.dataset, results)))
        ctx.ops.open_sample(id=sample_id)

    @_telling
    def show_left(self, ctx: Any) -> None:
        """The work queue in the grid."""
        results = runs.load(ctx.dataset, self._key(ctx))
        ctx.ops.set_view(browse.left(results, browse.reviews(ctx.dataset, results)))

    @_telling
    def show_checks(self, ctx: Any) -> None:
        """The next samples to check at random, flagged and not."""
        results = runs.load(ctx.dataset, self._key(ctx))
        checks = spot_checks(results.issues)
        if checks is None:
            raise InputError("no label is flagged, so there is nothing to check.")
        done = browse.reviews(ctx.dataset, results).reviewed
        due = checks.indices[~done[checks.indices]][:CHECKS]
        if not len(due):
            raise InputError("all random checks are done.")
        ctx.ops.set_view(browse.select(results, due))

    @_telling
    def show_cell(self, ctx: Any) -> None:
        """The samples of a cell of the matrix."""
        results = runs.load(ctx.dataset, self._key(ctx))
        ctx.ops.set_view(browse.cell(results, str(ctx.params["y"]), str(ctx.params["x"])))

    @_telling
    def show_quality(self, ctx: Any) -> None:
        """The samples of a bar of the histogram."""
        number = min(int(float(ctx.params["x"]) * browse.QUALITY_BINS), browse.QUALITY_BINS - 1)
        ctx.ops.set_view(browse.quality_bin(runs.load(ctx.dataset, self._key(ctx)), number))

    @_telling
    def show_class(self, ctx: Any) -> None:
        """The flagged samples of a class."""
        ctx.ops.set_view(browse.given_class(runs.load(ctx.dataset, self._key(ctx)), str(ctx.params["y"])))

    # -- what is seen --

    def render(self, ctx: Any) -> types.Property:
        """The panel as it is now."""
        panel = types.Object()
        try:
            results = runs.load(ctx.dataset, self._key(ctx))
            corrections.settle(ctx.dataset, results)
        except InputError as error:
            panel.md(f"#### No label issues to show\n{error}", name="nothing")
            panel.btn(
                "find", label="Find label issues", icon="rule", variant="contained",
                on_click=f"{PLUGIN}/find_label_issues", prompt=True,
            )  # fmt: skip
            return types.Property(panel, view=_column())
        done = browse.reviews(ctx.dataset, results)
        figures = headline(results, done)
        if ctx.current_sample:
            self._modal(panel, ctx, results, done, figures)
        else:
            self._grid(panel, ctx, results, done, figures)
        return types.Property(panel, view=_column())

    def _grid(
        self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews, figures: Headline
    ) -> None:
        self._run_choice(panel, ctx, results)
        panel.md(headline_text(figures), name="headline")
        panel.md(review_text(figures), name="reviewed")
        if "retrained" in results.info:
            panel.md(f"Retrained: {results.info['retrained']}", name="retrained")
        self._buttons(panel, ctx)
        self._queue(panel, ctx, results, done, figures)
        data, layout = charts.matrix(browse.confused(results), results.issues.class_names)
        panel.md("###### Given and suggested label of the flagged", name="matrix_title")
        panel.plot("matrix", data=data, layout=layout, on_click=self.show_cell, config=_PLOT)
        panel.md("###### Label quality", name="quality_title")
        data, layout = charts.histogram(*browse.quality_histogram(results))
        panel.plot("quality", data=data, layout=layout, on_click=self.show_quality, config=_PLOT)
        panel.md("###### Expected share of wrong labels in each class", name="classes_title")
        flagged = np.bincount(results.issues.labels[results.issues.is_label_issue], minlength=results.issues.n_classes)
        data, layout = charts.class_noise(results.issues.noise_ratio_per_class, flagged, results.issues.class_names)
        panel.plot("classes", data=data, layout=layout, on_click=self.show_class, config=_PLOT)

    def _modal(
        self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews, figures: Headline
    ) -> None:
        rows = np.flatnonzero(results.ids == ctx.current_sample.encode())
        if len(rows):
            panel.md(sample_text(results, done, int(rows[0])), name="sample")
        else:
            panel.md("This sample is not part of the run.", name="sample")
        self._buttons(panel, ctx)
        panel.md(
            "**a** accept\u2003**k** keep\u2003**x** exclude\u2003**u** undo\n\n"
            "Each key moves on to the next worst sample.",
            name="keys",
        )
        panel.md(review_text(figures), name="reviewed")
        panel.md(headline_text(figures), name="headline")

    def _run_choice(self, panel: Any, ctx: Any, results: FindLabelIssuesResults) -> None:
        keys = runs.keys(ctx.dataset)
        if len(keys) > 1:
            view = types.DropdownView()
            for key in keys:
                view.add_choice(key, label=key)
            panel.enum("brain_key", keys, label="Run", default=results.key, view=view, on_change=self.choose_run)

    def _buttons(self, panel: Any, ctx: Any) -> None:
        bar = panel.h_stack("buttons", gap=1, columns=5)
        for name, label, icon, on_click in (
            ("accept", "Accept", "check", self.accept),
            ("keep", "Keep", "thumb_up", self.keep),
            ("set", "Set\u2026", "edit", self.set_label),
            ("exclude", "Exclude", "block", self.exclude),
            ("undo", "Undo", "undo", self.undo),
        ):
            bar.btn(name, label=label, icon=icon, on_click=on_click, variant="outlined")
        marks = ctx.selected_samples
        if marks and not ctx.current_sample:
            keep = sum(mark.get("type") == "alt" for mark in marks)
            label = f"Apply marks: accept {len(marks) - keep}, keep {keep}"
            panel.btn("apply", label=label, icon="done_all", on_click=self.apply_marks, variant="contained")

    def _queue(
        self, panel: Any, ctx: Any, results: FindLabelIssuesResults, done: browse.Reviews, figures: Headline
    ) -> None:
        rows = browse.queue(results, done)[:CARDS]
        if not len(rows):
            panel.md("###### Every flagged label is reviewed", name="queue_title")
            return
        panel.md(f"###### Next to review, worst first ({figures.n_left:,} left)", name="queue_title")
        issues = results.issues
        ids = [sample_id.decode() for sample_id in results.ids[rows]]
        files = dict(zip(*ctx.dataset.select(ids).values(["id", "filepath"]), strict=True))
        cards = panel.h_stack("queue", gap=1, columns=4)
        for number, (row, sample_id) in enumerate(zip(rows, ids, strict=True)):
            card = cards.v_stack(f"card_{number}", gap=0)
            params = {"sample_id": sample_id}
            ctx.panel.set_state(f"queue.card_{number}.thumb", f"/media?filepath={quote(files[sample_id])}")
            card.img("thumb", on_click=self.open_card, params=params, height="96px", width="96px")
            given, suggested = (issues.class_names[k] for k in (issues.labels[row], issues.suggested[row]))
            card.md(f"{given} \u2192 **{suggested}**", name="caption")
        shown = panel.h_stack("shown", gap=1)
        shown.btn("left", label="Show all in the grid", icon="grid_view", on_click=self.show_left)
        shown.btn("checks", label=f"Check {CHECKS} at random", icon="casino", on_click=self.show_checks)

    def _correct(self, ctx: Any, correct: Callable[..., corrections.Correction]) -> None:
        key = self._key(ctx)
        ids = self._chosen(ctx, runs.load(ctx.dataset, key))
        told(ctx, correct(ctx.dataset, ids, key, who=ctx.user_id))
        if ctx.selected:
            ctx.ops.clear_selected_samples()

    @staticmethod
    def _chosen(ctx: Any, results: FindLabelIssuesResults) -> list[str]:
        """A button without a selection must not correct a whole view."""
        if not ctx.selected and not ctx.current_sample:
            raise InputError("no samples are chosen; select some in the grid, or open one.")
        return chosen(ctx, results)[0]

    @staticmethod
    def _key(ctx: Any) -> str | None:
        key: str | None = ctx.panel.get_state("brain_key")
        return key if key in runs.keys(ctx.dataset) else None


_PLOT = {"displayModeBar": False, "responsive": True}


def headline_text(figures: Headline) -> str:
    """The figures at the head, as Markdown."""
    share = figures.n_issues / max(figures.n_samples, 1)
    lines = [f"##### {figures.n_issues:,} of {figures.n_samples:,} labels look wrong ({share:.1%})"]
    noise = "" if figures.noise_ratio is None else f"Estimated noise **{figures.noise_ratio:.1%}**"
    lines.append(" \u00b7 ".join(part for part in (noise, *readout_parts(figures.expected)) if part))
    if figures.expected.precision is None:
        lines.append(figures.expected.note)
    if figures.checked is not None:
        lines.append(" \u00b7 ".join([f"By {figures.n_checked} random checks", *readout_parts(figures.checked)]))
    elif figures.n_checked > 1:
        lines.append(f"{figures.n_checked} random checks done; {LEAST_CHECKS} are needed to measure.")
    return "\n\n".join(line for line in lines if line)


def readout_parts(readout: Readout) -> list[str]:
    """Precision and recall with their intervals, as far as they are known, as Markdown."""
    parts = []
    if readout.precision is not None:
        parts.append(f"of the flagged **{readout.precision}** are wrong")
    if readout.recall is not None:
        parts.append(f"of the wrong **{readout.recall}** are flagged")
    return parts


def review_text(figures: Headline) -> str:
    """What has been reviewed, as Markdown."""
    counts = figures.counts
    parts = [f"**{figures.n_reviewed:,}** reviewed"]
    parts += [f"{counts[status]:,} {status}" for status in ("accepted", "kept", "set", "excluded") if counts[status]]
    parts.append(f"**{figures.n_left:,}** left")
    return " \u00b7 ".join(parts)


def sample_text(results: FindLabelIssuesResults, done: browse.Reviews, row: int) -> str:
    """What is known about one sample, as Markdown."""
    issues = results.issues
    given, suggested = (issues.class_names[k] for k in (issues.labels[row], issues.suggested[row]))
    status = done.status[row]
    if given == suggested:
        return f"##### {given}\n\nThe given label is probably right ({issues.label_quality[row]:.0%}) \u00b7 {status}"
    return (
        f"##### {given} \u2192 {suggested}\n\nProbability that **{given}** is wrong: **{issues.wrong[row]:.0%}**, that "
        f"**{suggested}** is right: **{issues.suggested_prob[row]:.0%}** \u00b7 {status}"
    )


def _column() -> types.GridView:
    # one column of the panel's width: without this it grows as wide as its widest line
    narrow = {"grid": {"sx": {"gridTemplateColumns": "minmax(0, 1fr)"}}}
    return types.GridView(orientation="vertical", gap=1, pad=2, componentsProps=narrow)
