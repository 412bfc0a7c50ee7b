"""Copies of an image: one fold, and contradictions first, whatever the model says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cvcoteach import RunResults, label_issues
from cvcoteach._csv import write_csv
from cvcoteach.crossval.trainer import Fold
from cvcoteach.data.sources import Source
from cvcoteach.pipeline.copies import Content, found_copies
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.settings import Machine, Settings
from cvcoteach.training.head_trainer import HeadTrainer
from tests.fakes import clouds
from tests.pipeline.test_find_issues import Recorder

N = 200
MACHINE = Machine(device="cpu", threads=1)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Fold]:
    """The folds that heads were trained on."""
    seen: list[Fold] = []
    train = HeadTrainer.fit_predict_many

    def watched(trainer: HeadTrainer, folds: Any) -> Any:
        seen.extend(folds)
        return train(trainer, folds)

    monkeypatch.setattr(HeadTrainer, "fit_predict_many", watched)
    return seen


def with_copies(folder: Path) -> tuple[Source, np.ndarray]:
    """Two hundred rows; the last ten repeat the first ten, three of them under another label."""
    features, _, labels = clouds(N, 3, 0.05, 0)
    features[-10:], labels[-10:] = features[:10], labels[:10]
    labels[-3:] = (labels[-3:] + 1) % 3
    np.save(folder / "x.npy", features)
    paths = tuple(f"{i}.png" for i in range(N))
    return Source(folder / "photos", folder, paths, labels, ("ant", "bee", "cow")), features


@pytest.mark.slow
@pytest.mark.parametrize("select", ["posterior", "agreement"])
def test_copies_stay_in_one_fold_and_contradictions_come_first(
    tmp_path: Path, trained: list[Fold], select: Any
) -> None:
    source, _ = with_copies(tmp_path)
    told = Recorder()
    settings = Settings(features=tmp_path / "x.npy", select=select)
    results = find_issues(source, tmp_path / "run", settings, MACHINE, watcher=told)
    twin = np.arange(N) % 190
    assert len(trained) > 4
    for fold in trained:
        assert not np.intersect1d(twin[fold.train_idx], twin[fold.eval_idx]).size
    assert "10 of 200 images repeat another one exactly; copies stay in one fold." in told.notes
    assert "6 images are copies of each other with different labels." in told.notes
    assert (results.summary["n_duplicates"], results.summary["n_contradictions"]) == (10, 6)
    table = pd.read_csv(results.folder / "issues.csv", keep_default_na=False)
    contradicting = {f"{i}.png" for i in (7, 8, 9, 197, 198, 199)}
    assert set(table.path[:6]) == contradicting
    assert set(table.path[table.contradiction]) == contradicting
    copies = table[table.duplicate_of != ""]
    assert dict(zip(copies.path, copies.duplicate_of, strict=True)) == {f"{i + 190}.png": f"{i}.png" for i in range(10)}
    loaded = RunResults.load(results.folder)
    assert loaded.table().equals(results.table())
    assert loaded.duplicate_of.tolist() == [-1] * 190 + list(range(10))


def with_near_copies() -> tuple[np.ndarray, np.ndarray]:
    """Two hundred rows; the last ten nearly repeat the first ten, three of them under another label."""
    features, _, labels = clouds(N, 3, 0.05, 0)
    rng = np.random.default_rng(1)
    features = np.hstack([features, rng.normal(size=(N, 32))]).astype(np.float32)
    features[-10:] = features[:10] + 0.02 * rng.normal(size=features[:10].shape)
    labels[-10:] = labels[:10]
    labels[-3:] = (labels[-3:] + 1) % 3
    return features, labels


@pytest.mark.slow
def test_near_copies_with_different_labels_come_first_unless_they_are_left_unbound(tmp_path: Path) -> None:
    features, labels = with_near_copies()
    np.save(tmp_path / "x.npy", features)
    source = Source(tmp_path / "p", tmp_path, tuple(f"{i}.png" for i in range(N)), labels, ("ant", "bee", "cow"))
    told = Recorder()
    settings = Settings(features=tmp_path / "x.npy", n_rounds=1)
    results = find_issues(source, tmp_path / "run", settings, MACHINE, watcher=told)
    assert "6 images are near copies of each other with different labels." in told.notes
    figures = ("n_near_copies", "n_contradictions", "n_near_contradictions")
    assert [results.summary[name] for name in figures] == [10, 6, 6]
    table = pd.read_csv(results.folder / "issues.csv", keep_default_na=False)
    contradicting = {f"{i}.png" for i in (7, 8, 9, 197, 198, 199)}
    assert set(table.path[:6]) == contradicting
    assert set(table.path[table.contradiction]) == contradicting
    loose = find_issues(source, tmp_path / "loose", replace(settings, bind_near_copies=False), MACHINE)
    assert not loose.contradiction.any()
    assert [loose.summary[name] for name in figures] == [0, 0, 0]
    in_python = label_issues(labels, features=features, n_rounds=1, progress=False)
    assert set(np.flatnonzero(in_python.contradiction)) == {7, 8, 9, 197, 198, 199}


@pytest.mark.slow
def test_a_table_that_an_earlier_build_wrote_without_them_is_its_own(tmp_path: Path) -> None:
    features, labels = with_near_copies()
    np.save(tmp_path / "x.npy", features)
    source = Source(tmp_path / "p", tmp_path, tuple(f"{i}.png" for i in range(N)), labels, ("ant", "bee", "cow"))
    run = find_issues(source, tmp_path / "run", Settings(features=tmp_path / "x.npy", n_rounds=1), MACHINE)
    order = np.lexsort((run.selected, run.found.label_quality))
    table = run.table().set_index("path").loc[[run.paths[i] for i in order]].reset_index()
    write_csv(run.folder / "issues.csv", table.assign(contradiction=False), float_format="%.6f")
    assert run.has_written_table()
    write_csv(run.folder / "issues.csv", table.assign(contradiction=True), float_format="%.6f")
    assert not run.has_written_table()


@pytest.mark.slow
def test_python_binds_copies_as_the_command_does(tmp_path: Path) -> None:
    source, features = with_copies(tmp_path)
    run = find_issues(source, tmp_path / "run", Settings(features=tmp_path / "x.npy"), MACHINE)
    found = label_issues(source.labels, features=features, progress=False)
    np.testing.assert_allclose(found.label_quality, run.issues().label_quality, atol=1e-5)


@pytest.mark.slow
def test_where_nearly_all_rows_are_copies_nothing_is_bound(tmp_path: Path, trained: list[Fold]) -> None:
    labels = np.arange(N) % 3
    np.save(tmp_path / "x.npy", np.eye(3)[labels])
    source = Source(tmp_path / "photos", tmp_path, tuple(map(str, range(N))), labels, ("ant", "bee", "cow"))
    results = find_issues(source, tmp_path / "run", Settings(features=tmp_path / "x.npy", n_rounds=1), MACHINE)
    assert results.summary["n_duplicates"] == 0
    assert len(np.unique(np.eye(3)[labels[trained[0].eval_idx]], axis=0)) == 3


@pytest.mark.slow
def test_runs_of_an_earlier_build_have_no_copies(tmp_path: Path) -> None:
    source, _ = with_copies(tmp_path)
    run = find_issues(source, tmp_path / "run", Settings(features=tmp_path / "x.npy", n_rounds=1), MACHINE)
    with np.load(run.folder / "probabilities.npz") as arrays:
        older = {name: arrays[name] for name in arrays.files if name != "duplicate_of"}
    np.savez(run.folder / "probabilities.npz", **older)
    loaded = RunResults.load(run.folder)
    assert not loaded.contradiction.any()
    assert (loaded.table().duplicate_of == "").all()


def test_near_copies_leave_as_many_groups_as_there_are_folds() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 64)).astype(np.float32)
    features[1] = features[0] + 0.01 * rng.normal(size=64)
    groups = np.arange(120) % 12
    assert found_copies(Content(features), 5, groups, bind_near=True).n_near == 1
    assert found_copies(Content(features), 12, groups, bind_near=True).n_near == 0
