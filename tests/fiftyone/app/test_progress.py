"""Progress: a share that never falls, seldom enough to be read, in the App, in a delegated run and from Python."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from cvcoteach._progress import Progress
from cvcoteach.crossval.trainer import FoldKey, FoldProgress
from cvcoteach.fiftyone.app import progress
from cvcoteach.fiftyone.app.progress import ProgressWatcher, with_progress
from tests.fiftyone.calls import context, in_the_app
from tests.fiftyone.work.test_find import with_embeddings


def training(watcher: ProgressWatcher, n_rounds: int, n_folds: int, key: tuple[int, int], kept: bool = False) -> None:
    """What a watcher is told of one training of two epochs."""

    def told(state: Any) -> FoldProgress:
        return FoldProgress(FoldKey(*key), n_rounds, n_folds, 1, 1, state)

    if kept:
        watcher.fold(told("kept"))
        return
    watcher.fold(told("start"))
    for epoch in (1, 2):
        watcher.epoch(SimpleNamespace(epoch=epoch, n_epochs=2))
    watcher.fold(told("done"))


@pytest.mark.parametrize("n_final", [5, 10])
@pytest.mark.parametrize("n_rounds", [1, 4])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("kept", [0, 3])
def test_the_share_rises_from_reading_to_the_end(n_rounds: int, n_final: int, kept: int, passes: int) -> None:
    told: list[tuple[float, str]] = []
    watcher = ProgressWatcher(lambda share, label: told.append((share, label)))
    watcher.reading(50, 100)
    watcher.extracting(50, 100, 12.0)
    trainings = [(n_rounds, 2, (round_, fold)) for round_ in range(1, n_rounds + 1) for fold in (1, 2)]
    last = n_rounds + passes
    trainings += [
        (last, n_final, (round_, fold)) for round_ in range(n_rounds + 1, last + 1) for fold in range(1, n_final + 1)
    ]
    for number, one in enumerate(trainings):
        training(watcher, *one, kept=number < kept)
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert len(set(shares)) > 2 * n_final * passes
    assert shares[-1] == pytest.approx(0.99)
    labels = [label for _, label in told]
    assert labels[:2] == ["reading images: 50 of 100", "computing features: 50 of 100 (12 images/s)"]
    which = "" if passes == 1 else "pass 2 of 2, "
    assert labels[-2] == f"final scoring, {which}fold {n_final} of {n_final}: epoch 2 of 2"
    assert (f"round 1 of {n_rounds}, fold 1 of 2: kept from before" in labels) == (kept > 0)


def test_the_share_is_that_of_the_whole_run_and_the_label_says_what_is_done() -> None:
    told: list[tuple[float, str]] = []
    watcher = ProgressWatcher(lambda share, label: told.append((share, label)))
    for stage in ("reading images", "computing features", "training"):
        for done in (0, 50, 100):
            watcher.progress(Progress(stage, done, 100, f"{done} of 100"))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.99)
    assert [label for _, label in told][4] == "computing features: 50 of 100"


def test_the_browser_is_told_while_the_work_goes_on_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LEAST_PAUSE", 0.02)
    ctx = context("any", query_performance=True)

    def work(tell: Any) -> str:
        for step in range(400):
            tell(step / 400, f"step {step}")
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

    def work(tell: Any) -> None:
        tell(0.5, "half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(with_progress(ctx, work, lambda _: iter(())))
    assert told == [(None, 0.5, "half")]


def test_from_python_there_is_a_line_where_fiftyones_own_bars_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = context("any")

    def work(tell: Any) -> None:
        tell(0.5, "half way")

    list(with_progress(ctx, work, lambda _: iter(())))
    assert capsys.readouterr().err == ""  # the tests' own setting
    monkeypatch.setattr(progress.fo.config, "show_progress_bars", True)
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
