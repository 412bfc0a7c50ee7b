"""What is done when the App opens a page."""

from __future__ import annotations

from typing import Any

import pytest

from cvcoteach.fiftyone.app.startup import GetLabelIssuesReady
from cvcoteach.fiftyone.store import runs
from cvcoteach.issues import precision_recall
from cvcoteach.issues.label_issues import LabelIssues
from tests.fiftyone.app.test_panel import Event
from tests.fiftyone.calls import context, execute, operator
from tests.fiftyone.store.test_runs import imported

NAME = "get_label_issues_ready"


def test_the_panel_neither_reads_the_run_nor_computes_its_figures_again(
    noisy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(noisy)
    runs._unpacked.clear()  # as in a server that has just started
    noisy.dataset._brain_cache.clear()
    execute(NAME, noisy.dataset)

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("it was read or computed again")

    noisy.dataset._brain_cache.clear()
    monkeypatch.setattr(LabelIssues, "load", refuse)
    monkeypatch.setattr(precision_recall, "_drawn_totals", refuse)
    shown = Event.of(noisy, "on_load").shown
    assert "look wrong" in shown
    assert "computed again" not in shown


def test_it_says_nothing_where_there_is_no_run_or_a_stale_one(noisy: Any) -> None:
    ctx = context(noisy.dataset)
    assert operator(NAME).execute(ctx) is None
    imported(noisy)
    noisy.dataset.rename_sample_field("ground_truth", "labels")
    assert operator(NAME).execute(ctx) is None
    assert operator(NAME).execute(context("no dataset of this name")) is None
    assert ctx.executor._requests == []


def test_the_app_calls_it_by_itself_and_lists_it_nowhere() -> None:
    config = GetLabelIssuesReady().config
    assert config.on_startup
    assert config.unlisted
