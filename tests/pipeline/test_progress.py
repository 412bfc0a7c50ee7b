"""Progress of the whole run, from what its parts report."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from cvcoteach._progress import Progress, Silent, duration
from cvcoteach.crossval.trainer import FoldKey, FoldProgress
from cvcoteach.pipeline import progress as module
from cvcoteach.pipeline.progress import Bar, Calling, RunProgress, TimeLeft


def recorded() -> tuple[RunProgress, list[Progress]]:
    updates: list[Progress] = []
    return RunProgress(Calling(updates.append)), updates


def event(
    key: tuple[int, int],
    state: Literal["start", "done", "kept"],
    n_train: int = 50,
    n_rounds: int = 2,
    n_folds: int = 2,
) -> FoldProgress:
    return FoldProgress(FoldKey(*key), n_rounds, n_folds, n_train, 50, state)


def epoch(number: int, of: int = 4) -> Any:
    return SimpleNamespace(epoch=number, n_epochs=of, images_per_second=1234.5, loss=0.51234)


def test_training_is_counted_in_images_times_epochs_over_all_rounds() -> None:
    progress, updates = recorded()
    progress.plan(100, [2, 2, 5])
    progress.fold(event((1, 1), "start"))
    progress.epoch(epoch(1))
    progress.epoch(epoch(2))
    # two rounds of two folds of 50 images, five folds of 80: 600 images, 4 epochs
    assert updates[-1].total == 600 * 4
    assert updates[-1].done == 50 * 2
    assert updates[-1].stage == "training"
    assert updates[-1].message == "round 1 of 3, fold 1 of 2, epoch 2 of 4, 1,234 images/s"
    progress.fold(event((1, 1), "done"))
    assert updates[-1].done == 50 * 4
    assert updates[-1].finished == ""


def test_sizes_are_corrected_by_what_is_seen() -> None:
    progress, updates = recorded()
    progress.plan(100, [2, 2])
    for fold in (1, 2):
        progress.fold(event((1, fold), "start"))
        progress.fold(event((1, fold), "done"))
    progress.fold(event((2, 1), "start", n_train=70))
    assert (updates[-1].done, updates[-1].total) == (100, 100 + 2 * 70)
    assert [update.finished for update in updates if update.finished] == ["round 1 of 2"]


def test_folds_of_an_earlier_process_count_as_done_but_show_nothing() -> None:
    progress, updates = recorded()
    progress.plan(100, [2, 2])
    for fold in (1, 2):
        progress.fold(event((1, fold), "kept"))
    assert updates == []
    progress.fold(event((2, 1), "start"))
    assert (updates[0].done, updates[0].total) == (100, 200)


def test_folds_trained_together_move_together() -> None:
    progress, updates = recorded()
    progress.plan(100, [2, 5])
    for fold in (1, 2):
        progress.fold(event((1, fold), "start"))
    progress.epoch(epoch(2))
    assert updates[-1].message.startswith("round 1 of 2, folds 1 to 2 of 2, epoch 2 of 4")
    assert updates[-1].done == 2 * 50 * 2
    progress.epoch(epoch(4))
    progress.epoch(epoch(1))  # heads of another size begin
    for fold in (1, 2):
        progress.fold(event((1, fold), "done"))
    done = [update.done for update in updates]
    assert done == sorted(done)
    assert updates[-1].done == 2 * 50 * 4


def test_rounds_that_candidates_run_out_for_are_left_out() -> None:
    progress, updates = recorded()
    progress.plan(100, [2, 2, 2, 2, 5])
    for fold in (1, 2):
        progress.fold(event((1, fold), "start", n_rounds=4))
        progress.fold(event((1, fold), "done", n_rounds=4))
    progress.fold(event((2, 1), "start", n_train=80, n_rounds=2, n_folds=5))
    assert updates[-1].message == "round 2 of 2, fold 1 of 5"
    assert updates[-1].total == 100 + 5 * 80


def test_a_training_without_folds_counts_its_epochs() -> None:
    progress, updates = recorded()
    for number in (1, 2, 3, 4):
        progress.epoch(epoch(number))
    assert [(update.done, update.total) for update in updates] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert updates[0].message == "epoch 1 of 4 (loss 0.512), 1,234 images/s"
    assert updates[-1].finished == "epoch 4 of 4 (loss 0.512)"


def test_a_long_training_without_folds_is_worth_a_dozen_lines_at_most() -> None:
    progress, updates = recorded()
    for number in range(1, 46):
        progress.epoch(epoch(number, of=45))
    lines = [update.finished for update in updates if update.finished]
    assert 8 <= len(lines) <= 12
    assert lines[0] == "epoch 4 of 45 (loss 0.512)"
    assert lines[-1].startswith("epoch 45 of 45")


def test_reading_and_extraction_count_images() -> None:
    progress, updates = recorded()
    progress.reading(500, 2000)
    progress.extracting(2000, 2000, 345.6)
    assert updates == [
        Progress("reading images", 500, 2000, "500 of 2,000"),
        Progress("computing features", 2000, 2000, "2,000 of 2,000, 346 images/s", "2,000 of 2,000"),
    ]


def test_without_a_watcher_nothing_is_shown() -> None:
    progress = RunProgress()
    progress.note("a sentence")
    progress.reading(0, 0)
    Silent().note("a sentence")


def test_the_time_left_comes_from_what_was_done_since_the_stage_began(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    left = TimeLeft()
    assert left.after(Progress("training", 100, 400)) == ""  # what an earlier process did took no time here
    clock[0] = 30.0
    assert left.after(Progress("training", 200, 400)) == ", about 1 min 0 s left"
    assert left.after(Progress("training", 400, 400)) == ""
    assert left.after(Progress("computing features", 0, 10)) == ""
    clock[0] = 40.0
    assert left.after(Progress("computing features", 5, 10)) == ", about 10 s left"


def test_a_slow_start_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    left = TimeLeft()
    left.after(Progress("training", 0, 1000))
    clock[0] = 100.0
    left.after(Progress("training", 10, 1000))  # ten times slower than what follows
    for done in range(20, 510, 10):
        clock[0] += 1.0 * 10
        said = left.after(Progress("training", done, 1000))
    minutes, seconds = (int(number) for number in re.findall(r"\d+", said))
    assert 500 <= minutes * 60 + seconds < 1.05 * 500  # the mean of all would say 588


def test_a_bar_is_one_moving_line_below_the_notes_and_goes_at_the_end() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    bar.note("a sentence")
    bar.progress(Progress("reading images", 5, 10, "5 of 10"))
    bar.progress(Progress("training", 1, 4, "round 1 of 2"))
    bar.progress(Progress("training", 0, 4, "again"))
    bar.close()
    bar.close()
    shown = stream.getvalue()
    assert " 50% |" in shown
    assert "reading images: 5 of 10" in shown
    assert " 25% |" in shown
    assert "  0% |" in shown
    assert shown.startswith("a sentence\n")
    assert shown.count("\n") == 1


def test_the_time_left_is_not_what_a_narrow_terminal_cuts_off(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    bar = Bar(stream)
    bar.progress(Progress("training", 0, 10, "round 1 of 3"))
    clock[0] = 60.0
    bar.progress(Progress("training", 1, 10, "round 1 of 3, fold 1 of 5, epoch 3 of 30, 1,144 images/s"))
    assert bar._bar is not None
    bar._bar.refresh()
    line = stream.getvalue().split("\r")[-1]
    assert "training, about 9 min 0 s left" in line[:80]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (42.4, "42 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
