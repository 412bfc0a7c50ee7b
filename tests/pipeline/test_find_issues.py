"""From a source to a finished run, with a trainer that one can read in place of networks."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from cvcoteach import find_label_issues, label_issues
from cvcoteach._progress import Progress
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source
from cvcoteach.issues.flags import FlagRule
from cvcoteach.pipeline import find_issues as module
from cvcoteach.pipeline import results as results_module
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.prepare import Prepared
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import Settings
from tests.fakes import NearestMeans, clouds

QUICK = Settings(n_rounds=2)
N = 200


@dataclass
class Recorder:
    """Remembers notes and progress."""

    notes: list[str] = field(default_factory=list)
    updates: list[Progress] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def progress(self, update: Progress) -> None:
        self.updates.append(update)


@dataclass
class Counted(NearestMeans):
    """Counts its trainings, and breaks off after some."""

    n_trained: int = 0
    breaks_after: int = 99

    def fit_predict(self, *fold: Any) -> Any:
        if self.n_trained == self.breaks_after:
            raise KeyboardInterrupt
        self.n_trained += 1
        return super().fit_predict(*fold)


def source_of(location: str = "a dataset", seed: int = 0) -> tuple[Source, Counted]:
    """Images in memory, and what learns their classes from features."""
    features, _, labels = clouds(N, 3, 0.2, seed)
    array = np.zeros((N, 4, 4, 3), np.uint8)
    paths = tuple([f"image {i}" for i in range(N)])
    return Source(Path(location), Path("/"), paths, labels, ("ant", "bee", "cow"), array=array), Counted(features, 3)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[Counted], None]:
    """Put a trainer in place of networks; the source is taken as it is."""

    def put(trainer: Counted) -> None:
        def prepare(source: Any, settings: Settings, *_: Any, **__: Any) -> Prepared:
            data = source if isinstance(source, Source) else source_of(str(source.absolute()))[0]
            return Prepared(data, {}, {"seed": settings.seed}, lambda run: trainer)

        monkeypatch.setattr(module, "prepare", prepare)

    return put


def test_a_source_is_called_as_its_caller_calls_it(tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source, trainer = source_of("my photos")
    fake(trainer)
    monkeypatch.chdir(tmp_path)
    results = find_issues(source, settings=QUICK)
    assert results.folder == Path("my photos-issues")
    assert results.source == "my photos"
    assert json.loads((results.folder / "run.json").read_text())["source"] == "my photos"
    assert "<title>Label issues in my photos</title>" in (results.folder / "issues.html").read_text()
    assert results.class_names == ("ant", "bee", "cow")
    assert results.paths == source.paths


def test_paths_may_be_text(tmp_path: Path, fake: Any) -> None:
    fake(source_of()[1])
    results = find_issues("photos", str(tmp_path / "run"), QUICK)
    assert results.folder == tmp_path / "run"
    assert results.source == str(Path("photos").absolute())


def test_a_run_that_is_there_is_read_and_not_trained_again(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    first = find_issues(source, tmp_path, QUICK)
    assert trainer.n_trained == 2 + 5
    assert not first.was_done
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    again = Recorder()
    second = find_issues(source, tmp_path, QUICK, watcher=again)
    assert trainer.n_trained == 2 + 5
    assert second.was_done
    assert again.updates == []
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert second.summary == first.summary
    assert second.table().equals(first.table())


@pytest.mark.parametrize("damage", ["gone", "cut", "binary", "other flags", "a bit"])
def test_a_damaged_or_deleted_table_is_written_again_and_nothing_is_lost(
    tmp_path: Path, fake: Any, damage: str
) -> None:
    source, trainer = source_of()
    fake(trainer)
    find_issues(source, tmp_path / "run", QUICK)
    file = tmp_path / "run" / "issues.csv"
    before, n_trained = file.read_bytes(), trainer.n_trained
    there = {
        "gone": b"",
        "cut": before[: len(before) // 2],
        "binary": b"\xff\x00" * 100,
        "other flags": before.replace(b"False", b"True", 1),
        "a bit": before.replace(b"cow", b"co7", 1),
    }[damage]
    file.write_bytes(there)
    if damage == "gone":
        file.unlink()
    recorder = Recorder()
    assert find_issues(source, tmp_path / "run", QUICK, watcher=recorder).was_done
    assert (file.read_bytes(), trainer.n_trained) == (before, n_trained)
    kept = [entry.read_bytes() for entry in (tmp_path / "run").glob("issues.changed*.csv")]
    assert kept == ([] if damage == "gone" else [there])
    assert bool(kept) == any("is issues.changed.csv now, and written again" in note for note in recorder.notes)


def test_a_clock_that_jumps_back_a_day_at_each_look_fails_no_run(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, trainer = source_of()
    fake(trainer)
    usual = find_issues(source, tmp_path / "usual", QUICK)
    now, days = time.time(), itertools.count()
    monkeypatch.setattr(time, "time", lambda: now - 86_400 * next(days))
    trainer.breaks_after = trainer.n_trained + 3
    with pytest.raises(KeyboardInterrupt):
        find_issues(source, tmp_path / "run", QUICK)
    trainer.breaks_after = 99
    assert find_issues(source, tmp_path / "run", QUICK).table().equals(usual.table())
    assert find_issues(source, tmp_path / "run", QUICK).was_done


def test_a_deleted_report_is_written_again(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    find_issues(source, tmp_path / "run", QUICK)
    (tmp_path / "run" / "issues.html").unlink()
    find_issues(source, tmp_path / "run", QUICK)
    assert (tmp_path / "run" / "issues.html").exists()


def test_a_run_killed_while_another_rule_is_written_leaves_no_table_that_is_not_its_own(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, trainer = source_of()
    fake(trainer)
    find_issues(source, tmp_path / "run", QUICK)
    strict = replace(QUICK, min_probability=0.95)
    with monkeypatch.context() as patched:
        patched.setattr(results_module, "write_csv", lambda *_, **__: None)  # of all that is written, this is lost
        patched.setattr(results_module, "checksum_of", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            RunResults.load(tmp_path / "run").flagged_by(strict.flag_rule).save(RunFolder.read(tmp_path / "run"))
    assert find_issues(source, tmp_path / "run", strict).has_written_table()
    table = pd.read_csv(tmp_path / "run" / "issues.csv")
    assert table.is_label_issue.sum() == RunResults.load(tmp_path / "run").found.is_label_issue.sum()


def test_a_table_that_somebody_sorted_and_added_to_stays(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    find_issues(source, tmp_path / "run", QUICK)
    file = tmp_path / "run" / "issues.csv"
    table = pd.read_csv(file).sort_values("path").assign(remark="seen")
    table["is_label_issue"] = table["is_label_issue"].map({True: "TRUE", False: "FALSE"})
    table.to_csv(file, index=False)
    before = file.read_bytes()
    find_issues(source, tmp_path / "run", QUICK)
    assert file.read_bytes() == before


def test_an_interrupted_run_resumes_and_its_progress_starts_where_it_stopped(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    trainer.breaks_after = 3
    fake(trainer)
    with pytest.raises(KeyboardInterrupt):
        find_issues(source, tmp_path / "broken", QUICK)
    trainer.breaks_after = 99
    watcher = Recorder()
    resumed = find_issues(source, tmp_path / "broken", QUICK, watcher=watcher)
    assert trainer.n_trained == 2 + 5
    assert watcher.updates[0].message == "round 2 of 2, fold 2 of 5"
    assert 0.3 < watcher.updates[0].done / watcher.updates[0].total < 0.5
    assert watcher.updates[-1].done == watcher.updates[-1].total
    assert [update.finished for update in watcher.updates if update.finished] == ["round 2 of 2"]
    whole = find_issues(source, tmp_path / "whole", QUICK)
    assert resumed.table().equals(whole.table())


def test_a_class_that_a_fold_lacks_is_noted_by_its_name(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    source.labels[source.labels == 2] = 0
    source.labels[5] = 2
    fake(trainer)
    watcher = Recorder()
    find_issues(source, tmp_path, replace(QUICK, select="agreement"), watcher=watcher)
    assert watcher.notes == [
        "class 'cow' has 1 image: the models that score it never see the class, so look at it yourself."
    ]


def test_the_command_runs_the_algorithm_and_nothing_else(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    for settings in (Settings(), Settings(n_rounds=2, n_folds=3), Settings(select="agreement"), Settings("paper")):
        trainer.n_trained = 0
        incv = settings.cross_validation
        results = find_issues(source, tmp_path / f"{trainer.n_trained} {hash(settings)}", settings)
        expected = incv.run(source_of()[1], source.labels)
        assert trainer.n_trained == sum(incv.folds(N)) or settings.selection == "agreement"
        np.testing.assert_array_equal(results.pred_probs, expected.posterior.pred_probs)
        np.testing.assert_array_equal(results.pred_probs_round_1, expected.rounds[0].pred_probs)
        np.testing.assert_array_equal(results.selected, expected.selected)
        np.testing.assert_array_equal(results.candidate, expected.candidate)
        np.testing.assert_array_equal(results.round, expected.last_round)
        np.testing.assert_array_equal(results.issues().is_label_issue, expected.flags)
        assert results.issues().filter_by == ("incv" if settings.selection == "agreement" else "posterior")
        assert results.select == incv.select


def test_the_record_of_a_run_counts_what_each_round_did(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    by_posterior = find_issues(source, tmp_path / "posterior", Settings()).rounds
    by_agreement = find_issues(source, tmp_path / "agreement", Settings(select="agreement")).rounds
    assert [set(record) for record in by_posterior] == [set(by_agreement[0])] * 3
    assert [record["scored"] for record in by_posterior] == [N] * 3
    assert [record["selected"] + record["candidate"] for record in by_posterior] == [N] * 3
    first = by_agreement[0]
    assert first["kept"] == first["selected"] == N - first["candidate"] - first["dropped"]
    assert by_agreement[1]["scored"] == first["candidate"]
    assert {record["corrected"] for record in (*by_posterior, *by_agreement)} == {0}
    assert json.loads((tmp_path / "posterior" / "run.json").read_text())["rounds"] == list(by_posterior)


def test_what_the_rule_ignores_is_noted(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    for select, notes in (("posterior", 1), ("agreement", 0)):
        watcher = Recorder()
        find_issues(source, tmp_path / select, Settings(select=select, remove_ratio=0.5), watcher=watcher)
        assert len(watcher.notes) == notes
        assert all(note.startswith("ignored with select posterior") for note in watcher.notes)
    watcher = Recorder()
    settings = Settings(select="agreement", flag_for="recall")
    results = find_issues(source, tmp_path / "paper", settings, watcher=watcher)
    assert watcher.notes == [
        "ignored with select agreement, which flags what it does not select: flag_for, min_probability."
    ]
    np.testing.assert_array_equal(results.issues().is_label_issue, ~results.selected)
    assert results.flagged_by(FlagRule("recall")) is results
    again = find_issues(source, tmp_path / "paper", settings)
    np.testing.assert_array_equal(again.issues().is_label_issue, ~results.selected)


def test_an_error_of_the_folder_does_not_speak_of_command_options(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    find_issues(source, tmp_path, QUICK)
    with pytest.raises(InputError, match=r"its seed is 0, not 1\. Choose another output folder") as error:
        find_issues(source, tmp_path, Settings(n_rounds=2, seed=1))
    assert "--" not in str(error.value)


def test_another_rule_for_flags_trains_nothing_and_rewrites_the_flags(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    usual = find_issues(source, tmp_path / "run", QUICK)
    trained, table = trainer.n_trained, (tmp_path / "run" / "issues.csv").read_text()
    sure = find_issues(source, tmp_path / "run", replace(QUICK, min_probability=0.99))
    assert trainer.n_trained == trained
    assert sure.was_done
    np.testing.assert_array_equal(sure.issues().is_label_issue, usual.issues().wrong >= 0.99)
    np.testing.assert_array_equal(sure.issues().label_quality, usual.issues().label_quality)
    assert 0 < sure.issues().n_issues < usual.issues().n_issues
    assert (tmp_path / "run" / "issues.csv").read_text() != table
    summary = json.loads((tmp_path / "run" / "run.json").read_text())["summary"]
    assert (summary["n_issues"], summary["flag_for"]) == (sure.issues().n_issues, "probability 0.99")
    assert summary["rounds"] == usual.summary["rounds"]
    again = find_issues(source, tmp_path / "run", QUICK)
    assert (tmp_path / "run" / "issues.csv").read_text() == table
    assert again.summary == usual.summary


def test_the_flags_of_a_run_come_back_from_its_probabilities(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    run = find_issues(source, tmp_path / "run", QUICK)
    flags = find_label_issues(run.labels, run.pred_probs, filter_by="posterior", min_examples_per_class=0)
    np.testing.assert_array_equal(flags, run.issues().is_label_issue)
    np.testing.assert_array_equal(label_issues(run.labels, run.pred_probs).is_label_issue, flags)


def test_a_table_of_an_earlier_build_is_nobodys_work(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    results = find_issues(source, tmp_path / "run", QUICK)
    file = tmp_path / "run" / "issues.csv"
    assert results.has_written_table()
    table = results.table().drop(columns=["near_copy_of", "overlap"])
    table.to_csv(file, index=False, float_format="%.6f")
    assert results.has_written_table()
    table.assign(given_label="x").to_csv(file, index=False, float_format="%.6f")
    assert not results.has_written_table()
    table.assign(remark="seen").to_csv(file, index=False, float_format="%.6f")
    assert not results.has_written_table()
