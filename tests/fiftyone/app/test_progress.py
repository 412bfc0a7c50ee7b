"""Progress: a share that never falls, seldom enough to be read, in the App, in a delegated run and from Python."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cvcoteach._progress import Progress
from cvcoteach.fiftyone.app import progress
from cvcoteach.fiftyone.app.progress import ProgressWatcher, with_progress
from tests.fiftyone.calls import context, in_the_app
from tests.fiftyone.work.test_find import with_embeddings

STAGES = [
    Progress("reading images", 50, 100),
    Progress("computing features", 50, 100, "50 of 100 (12 images/s)"),
    *(Progress("training", 10.0 * epoch, 200.0, f"round 1 of 2, epoch {epoch} of 20") for epoch in range(21)),
]


def test_the_share_rises_from_reading_to_the_end() -> None:
    shown: list[tuple[float, str]] = []
    watcher = ProgressWatcher(lambda share, label: shown.append((share, label)))
    for update in STAGES:
        watcher.progress(update)
    shares = [share for share, _ in shown]
    assert shares == sorted(shares)
    assert shares[:2] == pytest.approx([0.025, 0.025 + 0.475 / 2])
    assert len(set(shares)) > 20
    assert shares[-1] == pytest.approx(0.99)
    labels = [label for _, label in shown]
    assert labels[:2] == ["reading images: 50 of 100", "computing features: 50 of 100 (12 images/s)"]
    assert labels[-1] == "training: round 1 of 2, epoch 20 of 20"


def test_the_time_left_is_told_before_the_details(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    labels: list[str] = []
    watcher = ProgressWatcher(lambda share, label: labels.append(label))
    for done in (0, 25, 50, 100):
        watcher.progress(Progress("training", done, 100, "round 1 of 2"))
    assert labels == [
        "training: round 1 of 2",
        "training, about 30 s left: round 1 of 2",
        "training, about 20 s left: round 1 of 2",
        "training: round 1 of 2",
    ]


def test_the_share_never_falls_where_a_total_is_corrected() -> None:
    shares: list[float] = []
    watcher = ProgressWatcher(lambda share, label: shares.append(share))
    for done, total in ((50, 100), (60, 300), (299, 300), (400, 300)):
        watcher.progress(Progress("training", done, total))
    assert shares == sorted(shares)
    assert shares[0] == shares[1] == pytest.approx(0.495)
    assert shares[-1] == pytest.approx(0.99)


def test_a_note_is_kept_and_shown_where_the_run_is() -> None:
    shown: list[tuple[float, str]] = []
    watcher = ProgressWatcher(lambda share, label: shown.append((share, label)))
    watcher.progress(Progress("copying images", 1, 2))
    watcher.note("one class is rare.")
    assert watcher.notes == ["one class is rare."]
    assert shown[-1] == (shown[-2][0], "one class is rare.")


def test_the_browser_is_told_while_the_work_goes_on_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LEAST_PAUSE", 0.02)
    ctx = context("any", query_performance=True)

    def work(watcher: ProgressWatcher) -> str:
        for step in range(400):
            watcher.progress(Progress("copying images", step, 400))
            time.sleep(0.0005)
        return "result"

    told, when = [], []
    for message in with_progress(ctx, work, lambda result: iter([ctx.ops.notify(result)])):
        told.append((message.body.operator_uri, message.body.params))
        when.append(time.monotonic())
    steps = [params for what, params in told if what == "set_progress"]
    assert steps[0] == {"label": "starting", "progress": 0}
    assert steps[-1]["progress"] == 1
    assert 3 < len(steps) < 60
    assert told[-1][0] == "notify"
    assert when[len(when) // 2] < when[-1] - 0.02  # not all at the end


def test_a_delegated_run_writes_its_progress_and_raises_its_errors() -> None:
    told: list[tuple[Any, float, str]] = []
    ctx = context("any", delegated=True, query_performance=True)
    ctx._set_progress = lambda operation, step: told.append((operation, step.progress, step.label))

    def work(watcher: ProgressWatcher) -> None:
        watcher.progress(Progress("training", 50, 100, "half"))
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(with_progress(ctx, work, lambda _: iter(())))
    assert told == [(None, 0.495, "training: half")]


def test_from_python_there_is_a_line_where_fiftyones_own_bars_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = context("any")

    def work(watcher: ProgressWatcher) -> None:
        watcher.progress(Progress("reading images", 100, 100))
        watcher.progress(Progress("computing features", 100, 100))

    list(with_progress(ctx, work, lambda _: iter(())))
    assert capsys.readouterr().err == ""  # the tests' own setting
    monkeypatch.setattr(progress.fo.config, "show_progress_bars", True)
    monkeypatch.setattr(progress, "_LEAST_PAUSE", 0.0)
    list(with_progress(ctx, work, lambda _: iter(())))
    assert "50% |" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_in_the_app_ends_with_the_panel_and_a_toast(noisy: Any) -> None:
    with_embeddings(noisy)
    told = in_the_app("find_label_issues", noisy.dataset, params={"embeddings_field": "embedding", "rounds": 2})
    assert [what for what, _ in told if what != "set_progress"] == [
        "reload_dataset",
        "open_panel",
        "notify",
    ]
    shares = [params["progress"] for what, params in told if what == "set_progress"]
    assert shares == sorted(shares)
    assert told[-1][1]["variant"] == "success"
